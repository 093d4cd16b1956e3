"""Trained classifiers: shipped, cached, or trained now, and never the wrong one."""

import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import pytest
import torch

from tutorial_lib.models import build
from tutorial_lib.studies import STUDIES, load_study
from tutorial_lib.training import loop, trained
from tutorial_lib.training.checkpoints import CheckpointError, save_checkpoint
from tutorial_lib.training.classifier import TrainingConfig, accuracy
from tutorial_lib.training.trained import cached_folder, recipe, shipped_file

QUICK = {"lenet": {"epochs": 2, "batch_size": 64, "learning_rate": 1e-2, "optimizer": "adam", "flip": False}}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TUTORIAL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def study():
    return quick_study()


def quick_study():
    """The digits with a training of two epochs."""
    return replace(load_study("digits"), recipes={**QUICK, "": QUICK["lenet"]})


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_network_of_the_digits_is_a_good_one():
    study = load_study("digits")
    model = study.classifier()
    assert accuracy(model, study.test) >= 0.975
    assert not model.training
    with torch.no_grad():
        assert model(study.test.images[:3]).shape == (3, 8)
    # pixels are normalised inside, with the statistics of the training images
    # (half precision keeps eleven bits of them)
    assert model.normalize.mean.item() == pytest.approx(study.train.float().mean().item(), rel=2**-11)
    assert model.normalize.std.item() == pytest.approx(study.train.float().std().item(), rel=2**-11)


def test_channel_statistics_are_those_of_float64():
    images = torch.randint(0, 256, (30, 3, 5, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, deviation = trained.channel_statistics(images)
    pixels = images.double() / 255
    assert mean == pytest.approx(pixels.mean((0, 2, 3)).tolist(), rel=1e-14)
    assert deviation == pytest.approx(pixels.std((0, 2, 3)).tolist(), rel=1e-14)


def test_the_second_time_it_comes_from_the_cache(study, cache, monkeypatch):
    first = weights(study.classifier())
    monkeypatch.setattr(trained, "train_classifier", lambda *a, **k: pytest.fail("trained again"))
    assert same(first, weights(study.classifier()))
    [folder] = [path for path in (cache / "models").iterdir() if path.is_dir()]
    assert folder.name.startswith("digits_lenet_seed0_")
    record = json.loads((folder / "model.json").read_text())
    assert record["config"]["epochs"] == 2
    assert len(record["history"]["loss"]) == 2
    assert record["validation_accuracy"] == accuracy(study.classifier(), study.validation)
    assert not list(cache.rglob("*.part"))


def test_same_seed_same_weights_and_another_seed_others(study, cache, monkeypatch, tmp_path):
    first, second = weights(study.classifier(seed=1)), weights(study.classifier(seed=2))
    assert not same(first, second)
    monkeypatch.setenv("TUTORIAL_CACHE", str(tmp_path / "elsewhere"))
    assert same(first, weights(study.classifier(seed=1))), "trained twice with one seed"


def test_training_leaves_random_state_and_threads_alone(study):
    torch.manual_seed(5)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        study.classifier()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(state, torch.get_rng_state())


def _sum_of_quick_weights():
    """In a place of its own, so that nothing comes from the cache."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setenv("TUTORIAL_CACHE", folder)
        model = quick_study().classifier()
    return float(sum(value.double().abs().sum() for value in model.state_dict().values()))


def test_one_key_one_network_whatever_the_threads():
    before = torch.get_num_threads()
    sums = []
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            sums.append(_sum_of_quick_weights())
    finally:
        torch.set_num_threads(before)
    program = (
        "import joblib, test_trained as here\n"
        "print(repr(here._sum_of_quick_weights()))\n"
        "[worker] = joblib.Parallel(n_jobs=2)([joblib.delayed(here._sum_of_quick_weights)()])\n"
        "print(repr(worker))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=_beside_the_tests(OMP_NUM_THREADS="1")
    )
    assert done.returncode == 0, done.stderr
    sums += [float(line) for line in done.stdout.split()]
    assert len(sums) == 5
    assert len(set(sums)) == 1, sums


def _beside_the_tests(**variables):
    """The environment of a process that can import this file."""
    paths = [str(Path(__file__).parent), str(Path(trained.__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **variables}


def test_a_returned_model_is_the_callers_own(study):
    model = study.classifier()
    with torch.no_grad():
        model.head.weight.zero_()
    assert study.classifier().head.weight.abs().sum() > 0


def test_the_cache_belongs_to_settings_images_and_code(study, monkeypatch):
    config = recipe(study, "lenet", 0)
    folder = cached_folder(study, "lenet", config)
    assert cached_folder(replace(study), "lenet", config) == folder
    others = [
        cached_folder(study, "lenet", replace(config, epochs=3)),
        cached_folder(study, "lenet", replace(config, seed=1)),
        cached_folder(study, "resnet20", config),
        cached_folder(replace(study, normalisation=((0.5,), (0.25,))), "lenet", config),
    ]
    changed = replace(study)
    images = changed.train.images.clone()
    images[0, 0, 0, 0] ^= 1
    changed._loaded["train"] = replace(changed.train, images=images)
    others.append(cached_folder(changed, "lenet", config))
    monkeypatch.setattr(trained, "_classifier_source", lambda: "other code")
    others.append(cached_folder(study, "lenet", config))
    assert len({folder, *others}) == 7


def test_a_damaged_cache_is_said_and_made_again(study, cache):
    first = weights(study.classifier())
    [file] = cache.rglob("model.pt")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.warns(RuntimeWarning, match="is damaged.*trained again"):
        again = study.classifier()
    assert same(first, weights(again))
    assert same(first, weights(study.classifier()))


def test_half_a_cache_is_made_again(study, cache):
    study.classifier()
    [file] = cache.rglob("model.json")
    file.unlink()
    with pytest.warns(RuntimeWarning, match="trained again"):
        study.classifier()


def test_shipped_weights_need_no_training_images(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("TUTORIAL_DATA", str(tmp_path / "nothing"))
    monkeypatch.setattr(trained, "SHIPPED", tmp_path / "weights")
    study = load_study("mnist")
    model = build("lenet", 10, (1, 28, 28), (0.1,), (0.3,))
    record = {"config": asdict(recipe(study, "lenet", 4))}
    save_checkpoint(shipped_file(study, "lenet", 4), model.state_dict(), record, half=True)
    loaded = study.classifier(seed=4)
    for name, value in weights(loaded).items():
        torch.testing.assert_close(value, model.state_dict()[name], rtol=1e-3, atol=1e-4)
    assert loaded.normalize.mean.item() == pytest.approx(0.1, abs=1e-4)
    assert not loaded.training


def test_ship_halves_what_the_cache_holds_and_says_what_made_it(study, tmp_path, monkeypatch):
    monkeypatch.setattr(trained, "SHIPPED", tmp_path / "weights")
    cached = study.classifier(seed=1)
    file = trained.ship(study, "lenet", 1, command="make it so")
    record = json.loads(file.with_suffix(".json").read_text())
    assert record["command"] == "make it so"
    assert record["config"]["seed"] == 1
    shipped = study.classifier(seed=1)
    assert record["test_accuracy"] == accuracy(shipped, study.test)
    assert not same(weights(cached), weights(shipped)), "half precision was not used"
    for name, value in weights(cached).items():
        torch.testing.assert_close(shipped.state_dict()[name].float(), value.half().float(), rtol=0, atol=0)


def test_a_checkpoint_from_elsewhere_is_shipped_if_the_recipe_made_it(study, tmp_path, monkeypatch):
    monkeypatch.setattr(trained, "SHIPPED", tmp_path / "weights")
    state, config = build("lenet", 8, (1, 8, 8)).state_dict(), asdict(recipe(study, "lenet", 3))
    file = save_checkpoint(tmp_path / "elsewhere.pt", state, {"config": config})
    assert trained.ship(study, "lenet", 3, "made elsewhere", file) == shipped_file(study, "lenet", 3)
    assert torch.equal(study.classifier(seed=3).head.weight, state["head.weight"].half().float())
    with pytest.raises(ValueError, match="the recipe is"):
        trained.ship(study, "lenet", 4, "made elsewhere", file)


def test_shipped_weights_are_not_given_for_another_training(study):
    assert shipped_file(study, "lenet", 0).exists()
    long, short = load_study("digits").classifier(), study.classifier()
    assert not same(weights(long), weights(short))


def test_damaged_shipped_weights_are_an_error_not_a_reason_to_train(study, tmp_path, monkeypatch):
    monkeypatch.setattr(trained, "SHIPPED", tmp_path / "weights")
    file = shipped_file(study, "lenet", 0)
    save_checkpoint(file, build("lenet", 8, (1, 8, 8)).state_dict(), {})
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="is damaged"):
        study.classifier()


SHIPPED = sorted(trained.SHIPPED.glob("*.pt"))


@pytest.mark.parametrize("file", SHIPPED, ids=[file.stem for file in SHIPPED])
def test_what_is_shipped_loads_and_was_made_by_the_recipe_that_stands(file, cache):
    name, network, seed = re.fullmatch(r"([a-z0-9]+)_(\w+)_seed(\d+)", file.stem).groups()
    study = load_study(name)
    assert shipped_file(study, network, int(seed)) == file
    assert study.classifier(network, int(seed)).head.out_features == study.num_classes
    assert not cache.exists(), "it was trained"
    record = json.loads(file.with_suffix(".json").read_text())
    assert record["command"] == f"python -m tutorial_lib train {name} --network {network} --seed {seed} --ship"


def test_the_networks_of_the_live_pages_are_shipped():
    shipped = {file.stem for file in SHIPPED}
    assert {f"digits_lenet_seed{seed}" for seed in range(5)} | {"digits_resnet20_seed0"} <= shipped


def test_a_network_trained_anew_is_as_good_as_the_shipped_one(monkeypatch, tmp_path):
    study = load_study("digits")
    shipped = accuracy(study.classifier(), study.test)
    assert shipped == json.loads(shipped_file(study, "lenet", 0).with_suffix(".json").read_text())["test_accuracy"]
    monkeypatch.setattr(trained, "SHIPPED", tmp_path)
    # measured: .988 to .993 over five seeds; a margin of 1.5 % is six images of 433
    assert accuracy(study.classifier(), study.test) == pytest.approx(shipped, abs=0.015)


def test_an_unknown_network_is_refused_before_anything_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("TUTORIAL_DATA", str(tmp_path))
    with pytest.raises(ValueError, match="did you mean|Did you mean"):
        load_study("cifar10").classifier("resnet21")


@pytest.mark.parametrize("seed", [-1, 0.5, "0", None])
def test_a_seed_is_a_whole_number(study, seed):
    with pytest.raises(ValueError, match="seed must be a whole number from 0 on"):
        study.classifier(seed=seed)


@pytest.mark.parametrize("name", STUDIES)
def test_recipes_are_trainings(name):
    study = load_study(name)
    for network in ("lenet", "resnet20", "densenet_bc_100_12"):
        config = recipe(study, network, seed=3)
        assert isinstance(config, TrainingConfig)
        assert config.seed == 3
        if name != "cifar10":
            assert not config.flip, "a mirrored digit is no digit"


def test_a_long_training_says_what_it_costs(study, capsys, monkeypatch):
    monkeypatch.setattr(loop, "LONG", 1000)
    study.classifier()
    says = capsys.readouterr().err
    assert says.startswith("training lenet on digits: 2 epochs of 794 images, about ")
    assert "about a minute or less on this" in says
    assert "kept in" in says


def test_a_short_training_says_nothing(study, capsys):
    study.classifier()
    assert capsys.readouterr() == ("", "")
    assert 2 * 794 * 64 < loop.LONG


def test_a_long_training_that_was_killed_goes_on_and_ends_the_same(study, cache, monkeypatch, tmp_path):
    monkeypatch.setattr(loop, "LONG", 1000)
    undisturbed = weights(study.classifier())
    monkeypatch.setenv("TUTORIAL_CACHE", str(tmp_path / "second"))
    save = loop._State.save

    def save_and_stop(state):
        save(state)
        raise KeyboardInterrupt

    run_epochs = partial(loop.run_epochs)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop._State, "save", save_and_stop)
        patch.setattr(
            "tutorial_lib.training.classifier.run_epochs",
            lambda *a, save_every, **k: run_epochs(*a, save_every=0, **k),
        )
        study.classifier()
    assert list((tmp_path / "second/models").glob("*_unfinished.bin"))
    assert same(undisturbed, weights(study.classifier()))
    assert not list((tmp_path / "second/models").glob("*_unfinished*"))


@pytest.mark.slow
def test_two_processes_at_once_train_once(cache):
    program = (
        "import time, test_trained as here\n"
        "real, calls = here.trained.train_classifier, []\n"
        "def slow(*a, **k):\n"
        "    calls.append(1)\n"
        "    result = real(*a, **k)\n"
        "    time.sleep(2)\n"
        "    return result\n"
        "here.trained.train_classifier = slow\n"
        "model = here.quick_study().classifier()\n"
        "print(len(calls), float(sum(p.double().abs().sum() for p in model.parameters())))\n"
    )
    environment = _beside_the_tests(OMP_NUM_THREADS="1")
    runs = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(2)
    ]
    answers = [run.communicate(timeout=300)[0].split() for run in runs]
    assert sorted(int(calls) for calls, _ in answers) == [0, 1]
    assert answers[0][1] == answers[1][1]
