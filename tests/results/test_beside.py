"""Ours beside the published numbers: nothing is left out, and every mean, control and stand-in is what the rows say."""

from __future__ import annotations

import csv
import importlib
import statistics
from collections import Counter
from dataclasses import fields

import pytest

from tutorial_lib.experiments import adversarial, out_of_distribution
from tutorial_lib.results import beside, published, slides
from tutorial_lib.results.beside import counts, entries, larger_is_better, lesson
from tutorial_lib.results.rows import RESULTS, Measurement, Row
from tutorial_lib.results.slides import FLIPPED, PublishedTable, by_columns, published_tables
from tutorial_lib.results.verdict import CANNOT, NOT_REPRODUCED, NOT_RUN, REPRODUCED
from tutorial_lib.runs.registry import EXPERIMENTS

TABLES = published_tables()
ALL = {table.name: entries(table) for table in TABLES}
FOLDER = RESULTS.parent / "published"


def test_every_published_number_is_there_once():
    for path in FOLDER.glob("*.csv"):
        with path.open(newline="", encoding="utf-8") as file:
            printed = [float(row["value"]) for row in csv.DictReader(file)]
        assert [entry.value for entry in ALL[path.stem]] == printed
    on_the_slides = [entry for found in ALL.values() for entry in found if entry.match.on_the_slides]
    assert len(on_the_slides) == 748, "88 + 84 + 160 + 90 + 57 + 12 + 48 + 40 + 90 + 39 + 40"


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_lines_of_a_table_are_told_apart_and_ask_for_columns_that_rows_have(table):
    names = [(entry.match.what, entry.match.method, entry.match.metric) for entry in ALL[table.name]]
    assert Counter(names).most_common(1)[0][1] == 1
    known = {field.name for field in fields(Row)} | {FLIPPED}
    for entry in ALL[table.name]:
        match = entry.match
        for columns in (match.columns, match.held_out or {}, *match.controls.values()):
            assert set(columns) <= known
        assert entry.verdict.state != CANNOT or entry.verdict.reason, "says what is missing"
        assert bool(match.held_out) <= (match.seen == "same")


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_table_teaches_one_sentence(table):
    text = lesson(ALL[table.name])
    assert text.endswith(".") and ". " not in text.rstrip(".").replace("e. g. ", "")
    assert "nan" not in text


def row(value: float, seed: int = 0, **columns) -> Row:
    made = {
        "method": "purview",
        "condition": "svhn",
        "metric": "auroc",
        "n": 10,
        "challenging_data": "same",
        "experiment": "tried",
        "study": "cifar10",
        "command": "run",
        "commit": "abc",
        "versions": "1",
        "device": "cpu",
        "seconds": 60.0,
    }
    return Row(value=value, seed=seed, **{**made, **columns})


@pytest.fixture
def tried(tmp_path, monkeypatch):
    """A published file that nobody has described, with the columns of result rows."""
    text = "study,condition,method,metric,value,challenging_data,source\ncifar10,svhn,purview,auroc,0.9,same,a page\n"
    (tmp_path / "tried.csv").write_text(text)
    monkeypatch.setattr(published, "_FOLDER", tmp_path)
    [table] = published_tables()
    return table


def test_a_new_experiment_finds_its_place_by_its_columns(tried):
    held_out = [row(0.7, seed, challenging_data="other") for seed in (0, 1)]
    rows = [row(0.905), row(0.915, 1), *held_out, row(0.1, condition="lsun"), row(0.2, study="svhn")]
    [entry] = entries(tried, lambda name: rows if name == "tried" else [])
    assert entry.ours.by_seed == {0: 0.905, 1: 0.915} and entry.ours.rows == tuple(rows[:2])
    assert entry.ours.spread == pytest.approx(statistics.stdev([0.905, 0.915]))
    assert entry.ours.minutes == 1 and entry.ours.of("commit") == ["abc"]
    assert entry.held_out.mean == 0.7 and entry.verdict.state == REPRODUCED
    assert lesson([entry]).startswith("Of 1 numbers with ours beside them, 1 is reproduced")
    [entry] = entries(tried, lambda name: [])
    assert entry.verdict.state == NOT_RUN and counts([entry])[NOT_RUN] == 1


def described(table: PublishedTable, **more) -> PublishedTable:
    return PublishedTable(table.name, table.title, lambda printed: by_columns(printed, **more))


def test_a_stand_in_is_shown_and_never_judged(tried):
    table = described(tried, stand_in="digits")
    [entry] = entries(table, lambda name: [row(0.9, study="digits")])
    assert entry.ours.mean == 0.9 and entry.stand_in == "digits"
    assert entry.verdict.state == NOT_RUN and entry.verdict.difference is None
    [entry] = entries(table, lambda name: [row(0.9, study="digits"), row(0.5)])
    assert entry.ours.mean == 0.5 and not entry.stand_in and entry.verdict.state == NOT_REPRODUCED


def test_a_printed_mean_is_compared_with_whole_seeds_only(tried):
    columns = {"method": "purview", "metric": "auroc"}
    table = described(tried, columns=columns, mean_over=2)
    other_cell = row(0.9, 0, condition="b", seconds=60.5)
    rows = [row(0.8, 0, condition="a"), other_cell, row(0.1, 1, condition="a")]
    [entry] = entries(table, lambda name: rows)
    assert entry.ours.by_seed == {0: pytest.approx(0.85)} and len(entry.ours.rows) == 2
    assert entry.ours.minutes == pytest.approx(120.5 / 60)


def test_a_mean_of_all_rounds_is_one_of_all_conditions_that_begin_alike(tried):
    table = described(tried, columns={"method": "purview", "metric": "auroc", "condition": "clean/*"}, mean_over=0)
    rows = [row(v, s, condition=f"clean/{n}") for s, n, v in ((0, 20, 0.2), (0, 50, 0.6), (1, 20, 0.3))]
    [entry] = entries(table, lambda name: [*rows, row(0.9, condition="noise/20")])
    assert entry.ours.by_seed == {0: pytest.approx(0.4)}, "the second seed has not come to its end"


def test_the_best_control_is_chosen_and_the_printed_unit_is_used(tried):
    columns = {"method": "purview", "metric": "auroc"}
    controls = {"worse": {**columns, "method": "msp"}, "turned round": {**columns, FLIPPED: "yes"}}
    table = described(tried, columns=columns, controls=controls, scale=100.0, metric="AUROC %", point=1.0)
    [entry] = entries(table, lambda name: [row(0.3), row(0.6, method="msp")])
    assert entry.ours.mean == pytest.approx(30) and entry.control.title == "turned round"
    assert entry.control.mean == pytest.approx(70) and entry.over_control == (pytest.approx(-40), None)
    table = described(tried, columns=columns, controls=controls, metric="detection error")
    [entry] = entries(table, lambda name: [row(0.3), row(0.2, method="msp")])
    assert entry.control.title == "worse" and entry.over_control[0] == pytest.approx(-0.1), "a larger error is worse"


def test_which_way_is_better():
    assert all(map(larger_is_better, ("AUROC", "AUPR", "detection accuracy", "accuracy %", "SRCC")))
    assert not any(
        map(larger_is_better, ("ECE %", "NLL", "FPR at 95 % TPR", "detection error %", "test error %", "OR", "RMSE"))
    )


def test_calibration_is_compared_in_percent():
    [entry] = [
        entry
        for entry in ALL["calibration"]
        if (entry.match.what, entry.match.metric) == ("CIFAR-10 · LeNet-5", "test error %")
    ]
    assert entry.ours.mean == pytest.approx(100 - 100 * entry.ours.rows[0].value)
    assert isinstance(entry.ours.rows[0], Measurement) and entry.value == 15.57


def test_names_are_those_of_the_experiments():
    """Before there are rows, a name that no experiment has would only look like a number that was not run."""
    plugin, active, quality = (
        importlib.import_module(f"tutorial_lib.experiments.{name}")
        for name in ("introspective_plugin", "active_learning", "image_quality")
    )
    known = {
        "introspective_plugin": {"method": plugin.METHODS, "protocol": plugin.PUBLISHED},
        "active_learning": {"method": active.STRATEGIES, "variant": active.LOOKS},
        "image_quality": {"method": quality.METHODS, "metric": quality.CRITERIA},
        "out_of_distribution": {"method": out_of_distribution.METHODS},
        "adversarial": {"method": {**adversarial.METHODS}},
    }
    for name, columns in known.items():
        studies = set(EXPERIMENTS[name].studies)
        for match in (entry.match for entry in ALL[name]):
            assert set(match.studies) <= studies and {match.stand_in} <= studies | {""}
            for asked in filter(None, (match.columns, match.held_out, *match.controls.values())):
                assert all(asked[column] in names for column, names in columns.items() if column in asked), asked


def test_an_experiment_without_rows_is_no_error():
    assert beside._shipped("of_another_world") == []
    assert {table.name for table in slides.published_tables()} == {path.stem for path in FOLDER.glob("*.csv")}


def test_a_cell_that_made_many_rows_took_its_time_once(tried):
    columns = {"method": "purview", "metric": "auroc"}
    rows = [row(0.1 * n, seed, condition=str(n), seconds=90.0 + seed) for n in range(5) for seed in (0, 1)]
    [entry] = entries(described(tried, columns=columns, mean_over=5), lambda name: rows)
    assert len(entry.ours.rows) == 10 and entry.ours.minutes == pytest.approx((90 + 91) / 60 / 2)
    for found in ALL.values():
        for one in found:
            of_cells = {(r.seed, r.seconds) for r in one.ours.rows}
            assert not one.ours or one.ours.minutes == pytest.approx(
                sum(seconds for _, seconds in of_cells) / 60 / len(one.ours.by_seed)
            )


def test_a_stand_in_may_have_other_names_and_so_have_its_controls(tried):
    columns = {"method": "purview", "metric": "auroc", "condition": "all", "protocol": ""}
    table = described(
        tried,
        columns=columns,
        controls={"MSP": {**columns, "method": "msp"}},
        stand_in="digits",
        on_stand_in={"condition": "*", "protocol": "level"},
        mean_over=0,
    )
    there = [
        row(value, study="digits", condition=kind, protocol="level", method=method)
        for method, values in (("purview", (0.8, 0.6)), ("msp", (0.5, 0.3)))
        for kind, value in zip("ab", values, strict=True)
    ]
    [entry] = entries(table, lambda name: [*there, row(0.1, study="digits", condition="all")])
    assert entry.ours.mean == pytest.approx(0.7) and entry.control.mean == pytest.approx(0.4)
    assert entry.stand_in == "digits" and entry.verdict.state == NOT_RUN
    [entry] = entries(table, lambda name: [*there, row(0.9, condition="all")])
    assert entry.ours.mean == 0.9 and entry.verdict.state == REPRODUCED, "the published data come first"


@pytest.mark.parametrize(("study", "database"), [("multi_live", "MULTI-LIVE"), ("tid2013", "TID2013")])
def test_opinions_are_judged_once_they_are_there_and_the_ladder_stands_in_until_then(study, database):
    [table] = [one for one in TABLES if one.name == "image_quality"]
    for entry in ALL["image_quality"]:
        ours = entry.match.method.endswith("UNIQUE")
        unitless = entry.match.metric in ("PLCC", "SRCC", "KRCC") and entry.match.what == "TID2013"
        assert (entry.stand_in == "ladder") == bool(entry.ours) == (ours and unitless)
        assert entry.verdict.state == CANNOT and "opinions of" in entry.verdict.reason
        if entry.ours:
            assert {r.protocol for r in entry.ours.rows} == {"level"} and len(entry.ours.rows) == 4 * len(
                entry.ours.by_seed
            )
    printed = published.read_published("image_quality", database=database, criterion="SRCC")
    value = {one["estimator"]: one["value"] for one in printed}["Introspective UNIQUE"]
    rows = [
        row(
            value + 0.002,
            0,
            study=study,
            method="unique_introspective",
            metric="srcc",
            condition="all",
            challenging_data="none",
        ),
        row(
            0.5,
            0,
            study=study,
            method="control_random_filters",
            metric="srcc",
            condition="all",
            challenging_data="none",
        ),
    ]
    found = {(e.match.what, e.match.method, e.match.metric): e for e in entries(table, lambda name: rows)}
    entry = found[database, "Introspective UNIQUE", "SRCC"]
    assert entry.verdict.state == REPRODUCED and not entry.stand_in and entry.control.title == "random filters"
    assert found[database, "Feed-Forward UNIQUE", "SRCC"].verdict.state == CANNOT


def test_an_advantage_within_seed_noise_is_not_counted(tried):
    columns = {"method": "purview", "metric": "auroc"}
    table = described(tried, columns=columns, controls={"MSP": {**columns, "method": "msp"}})
    controls = [row(0.5, seed, method="msp") for seed in range(3)]
    [clear] = entries(table, lambda name: [*(row(0.6 + 0.01 * s, s) for s in range(3)), *controls])
    [noisy] = entries(table, lambda name: [*(row(v, s) for s, v in enumerate((0.3, 0.5, 0.8))), *controls])
    assert noisy.over_control[0] > 0
    assert "1 of 2 numbers beat the best of their controls by more than seed noise" in lesson([clear, noisy])


def test_the_best_of_some_controls_is_not_the_best_of_all(tried):
    """A number whose strongest control was never run for it beats nothing yet."""
    columns = {"method": "purview", "metric": "auroc"}
    controls = {"MSP": {**columns, "method": "msp"}, "H on logits": {**columns, "method": "control_logits"}}
    table = described(tried, columns=columns, controls=controls)
    rows = [row(0.9 + 0.01 * s, s) for s in range(3)] + [row(0.5, s, method="msp") for s in range(3)]
    [some] = entries(table, lambda name: rows)
    assert some.over_control and some.beats_controls is None and some.controls_missing == ("H on logits",)
    assert "0 of 1 numbers beat the best of their controls by more than seed noise, and of 1 that would" in lesson(
        [some]
    )
    [lost] = entries(table, lambda name: [*rows[:3], *(row(0.95, s, method="msp") for s in range(3))])
    assert lost.beats_controls is False, "what does not beat some does not beat all"
    rows += [row(0.95, s, method="control_logits") for s in range(3)]
    [whole] = entries(table, lambda name: rows)
    assert whole.beats_controls is False and not whole.controls_missing
    assert "the one number with a control does not beat it" in lesson([whole])
