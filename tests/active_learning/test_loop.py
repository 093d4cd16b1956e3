"""The loop on two blobs of tiny images: what is the same for twins, what is counted, and going on after a kill."""

import functools
import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn

from tutorial_lib.active_learning import (
    Budget,
    FixedSteps,
    History,
    Round,
    area_under_curve,
    last_round,
    mean_interval,
    mean_over_rounds,
    paired_difference,
    predict_pool,
    run_rounds,
    run_with_twin,
)
from tutorial_lib.data.images import ImageSet
from tutorial_lib.storage import Damaged


def blobs(count: int, seed: int) -> ImageSet:
    """Images of 1 x 2 x 2 pixels in three overlapping classes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (count,), generator=generator)
    centres = torch.tensor([[60.0, 60, 120, 120], [120, 60, 60, 120], [120, 120, 60, 60]])
    pixels = centres[labels] + 30 * torch.randn(count, 4, generator=generator)
    images = pixels.clamp(0, 255).to(torch.uint8).reshape(-1, 1, 2, 2)
    return ImageSet("blobs", images, labels, ("a", "b", "c"), torch.arange(count))


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.ReLU())
        self.head = nn.Linear(8, 3)

    def features(self, images):
        return self.body(images)

    def forward(self, images):
        return self.head(self.features(images))


TRAIN = FixedSteps(Small, steps=15, batch_size=8, learning_rate=0.02)
BUDGET = Budget(start=6, query=5, rounds=4)
POOL, TESTS = blobs(60, 0), {"clean": blobs(80, 1), "other": blobs(50, 2)}


def noisy_members(model, images, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.stack([model(images.float() / 255).detach()] * 3)
    return (logits + torch.randn(logits.shape, generator=generator)).softmax(-1)


def run(strategy="margin", seed=0, **options):
    return run_rounds(TRAIN, strategy, POOL, TESTS, BUDGET, seed, progress=False, **options)


def test_every_strategy_runs_and_buys_nothing_twice():
    for strategy in ("random", "entropy", "least_confidence", "margin", "bald", "badge"):
        history = run(strategy, predict=functools.partial(predict_pool, sample=noisy_members))
        bought = [i for r in history.rounds for i in r.bought]
        assert len(set(bought)) == len(bought) == BUDGET.total == 21
        assert history.labelled().tolist() == [6, 11, 16, 21]
        assert history.accuracy("clean").shape == (4,)


def test_twins_begin_alike_to_the_digit():
    mine, twin = run_with_twin(TRAIN, "badge", POOL, TESTS, BUDGET, 4, progress=False)
    assert mine.rounds[0].bought == twin.rounds[0].bought
    assert mine.rounds[0].accuracy == twin.rounds[0].accuracy
    assert mine.rounds[1].bought != twin.rounds[1].bought
    assert str(twin) == str(run("random", seed=4))


def test_another_seed_is_another_run_and_the_same_seed_the_same():
    assert str(run(seed=1)) == str(run(seed=1))
    assert run(seed=1).rounds[0].bought != run(seed=2).rounds[0].bought


def test_training_starts_from_the_same_weights_whatever_the_images():
    at_birth = []

    def remembered():
        model = Small()
        at_birth.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
        return model

    train = FixedSteps(remembered, steps=1, batch_size=4)
    for images in (POOL, TESTS["clean"]):
        train(images.images, images.labels, 7)
    train(POOL.images, POOL.labels, 8)
    assert torch.equal(at_birth[0], at_birth[1])
    assert not torch.equal(at_birth[0], at_birth[2])


@pytest.mark.parametrize("count", [3, 60])
def test_as_many_steps_however_many_images(count, monkeypatch):
    steps = []
    inner = torch.optim.Adam.step
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self, *a: steps.append(1) or inner(self, *a))
    TRAIN(POOL.images[:count], POOL.labels[:count], 0)
    assert len(steps) == 15


def test_the_strategy_sees_neither_labels_nor_what_is_labelled():
    seen = []

    def looking(prediction, count, seed):
        seen.append(prediction)
        return np.arange(count)

    history = run(looking)
    taken = set(history.rounds[0].bought)
    for prediction, bought in zip(seen, history.rounds[1:], strict=False):
        assert not taken & set(prediction.names.tolist())
        assert not hasattr(prediction, "labels")
        assert bought.bought == tuple(prediction.names[:5].tolist())
        taken |= set(bought.bought)


def test_negative_flips_are_what_was_right_and_is_wrong():
    models = []

    def remembering(images, labels, seed):
        models.append(TRAIN(images, labels, seed))
        return models[-1]

    history = run_rounds(remembering, "entropy", POOL, TESTS, BUDGET, 0, progress=False)
    assert math.isnan(history.rounds[0].negative_flips["clean"])
    images, labels = TESTS["clean"].images, TESTS["clean"].labels.tolist()
    answers = [model(images.float() / 255).argmax(1).tolist() for model in models]
    for number in range(1, 4):
        before, now = answers[number - 1], answers[number]
        flips = sum(b == y != n for b, n, y in zip(before, now, labels, strict=True)) / len(labels)
        assert history.rounds[number].negative_flips["clean"] == flips
        accuracy = sum(n == y for n, y in zip(now, labels, strict=True)) / len(labels)
        assert history.rounds[number].accuracy["clean"] == accuracy


@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(tmp_path, after):
    calls = []

    def mortal(images, labels, seed):
        calls.append(len(images))
        if len(calls) > after:
            raise KeyboardInterrupt
        return TRAIN(images, labels, seed)

    state = tmp_path / "run.json"
    with pytest.raises(KeyboardInterrupt):
        run_rounds(mortal, "badge", POOL, TESTS, BUDGET, 0, state=state, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    resumed = run("badge", state=state)
    assert str(resumed) == str(run("badge"))
    never = functools.partial(mortal)  # it would raise: nothing is trained for a finished run
    assert str(run_rounds(never, "badge", POOL, TESTS, BUDGET, 0, state=state, progress=False)) == str(resumed)


def test_a_state_of_another_run_or_a_damaged_one_is_refused(tmp_path):
    state = tmp_path / "run.json"
    run(state=state, settings={"steps": 15})
    for different, options in {"seed": {"seed": 1}, "strategy": {"strategy": "entropy"}, "settings": {}}.items():
        settings = {} if different == "settings" else {"steps": 15}
        with pytest.raises(ValueError, match=f"another run .*{different}"):
            run(state=state, settings=settings, **options)
    whole = state.read_text()
    place = whole.index('"bought": [') + len('"bought": [')
    another = whole[:place] + str((int(whole[place]) + 1) % 10) + whole[place + 1 :]  # one image for another
    for content in (whole[:50], "[]", "{}", another):
        state.write_text(content)
        with pytest.raises(Damaged, match="delete it to start anew"):
            run(state=state)


def test_requests_that_cannot_be_met():
    with pytest.raises(ValueError, match="needs 65 labels, the pool has 60"):
        run_rounds(TRAIN, "margin", POOL, TESTS, Budget(5, 20, 4), 0)
    with pytest.raises(ValueError, match="there is no strategy 'best'"):
        run("best")
    with pytest.raises(ValueError, match="different places"):
        run(lambda prediction, count, seed: np.zeros(count, dtype=int))
    with pytest.raises(ValueError, match="at least 1"):
        Budget(rounds=0)
    with pytest.raises(ValueError, match="at least one test set"):
        run_rounds(TRAIN, "margin", POOL, {}, BUDGET, 0)


def history(seed: int, *accuracy: float) -> History:
    rounds = [Round(10 * n, (), {"clean": a}, {}) for n, a in enumerate(accuracy, 1)]
    return History("any", seed, rounds)


def test_the_paired_interval_is_scipys():
    runs = [history(s, 0.3, 0.5 + 0.01 * s, 0.6) for s in range(5)]
    twins = [history(s, 0.3, 0.45, 0.55 + 0.02 * (s % 2)) for s in reversed(range(5))]
    interval = paired_difference(runs, twins, "clean")
    a = [mean_over_rounds(r, "clean") for r in runs]
    b = [mean_over_rounds(r, "clean") for r in reversed(twins)]
    peer = scipy.stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx(tuple(peer))
    assert interval.value == pytest.approx(np.mean(a) - np.mean(b))


def test_summaries_by_hand():
    curve = history(0, 0.2, 0.4, 0.8)
    assert area_under_curve(curve, "clean") == pytest.approx((0.3 * 10 + 0.6 * 10) / 20)
    assert last_round(curve, "clean") == 0.8


def test_pairs_that_are_none_are_refused():
    with pytest.raises(ValueError, match="seeds"):
        paired_difference([history(0, 0.1)], [history(1, 0.1)], "clean")
    with pytest.raises(ValueError, match="two seeds"):
        paired_difference([history(0, 0.1)], [history(0, 0.1)], "clean")
    with pytest.raises(ValueError, match="same number of labels"):
        pair = [history(0, 0.1), history(1, 0.1)]
        paired_difference(pair, [history(0, 0.1, 0.2), history(1, 0.1)], "clean")


def test_a_pool_that_is_bought_whole_and_one_of_a_single_class():
    bought = run_rounds(TRAIN, "margin", blobs(30, 0), TESTS, Budget(10, 10, 3), 0, progress=False)
    assert sorted(i for r in bought.rounds for i in r.bought) == list(range(30))
    one = replace(blobs(30, 0), labels=torch.zeros(30, dtype=torch.int64))
    assert len(run_rounds(TRAIN, "badge", one, TESTS, Budget(10, 10, 2), 0, progress=False).rounds) == 2


def test_names_and_labels_that_do_not_exist_are_said(tmp_path):
    with pytest.raises(ValueError, match="no test set 'cleen'; did you mean 'clean'"):
        history(0, 0.5, 0.6).accuracy("cleen")
    with pytest.raises(ValueError, match="finite"):
        mean_interval([0.1, float("nan")])
    (tmp_path / "s.json").write_text('{"run": [], "rounds": [], "right": {}, "next": []}')
    with pytest.raises((Damaged, ValueError), match="s.json"):
        run(state=tmp_path / "s.json")


def test_batches_are_shuffled_and_weights_decay():
    images = torch.arange(12, dtype=torch.uint8).view(12, 1, 1, 1).repeat(1, 1, 1, 2)
    labels = torch.arange(12) % 2
    met = []

    class Watched(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, batch):
            met.append((255 * batch.flatten(1)[:, 0]).round().int().tolist())
            return self.layer(batch.flatten(1))

    FixedSteps(Watched, steps=6, batch_size=4)(images, labels, 0)
    for epoch in (met[:3], met[3:]):
        assert sorted(sum(epoch, [])) == list(range(12)), "each image once"
    assert met[:3] != met[3:] and met[0] != [0, 1, 2, 3]
    plain, decayed = (
        FixedSteps(Watched, steps=60, batch_size=12, weight_decay=decay)(images, labels, 0).layer.weight.norm()
        for decay in (0.0, 10.0)
    )
    assert decayed < 0.9 * plain
