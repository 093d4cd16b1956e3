"""A training is the same for the same seed, and the same when it was killed on its way."""

import io

import pytest
import torch

from tutorial_lib.data.embedded import digits
from tutorial_lib.gradcon import MODELS, GradientConstraint, one_class_split
from tutorial_lib.models.autoencoder import build_autoencoder
from tutorial_lib.training import loop
from tutorial_lib.training.autoencoder import AutoencoderConfig, train_autoencoder
from tutorial_lib.training.checkpoints import CheckpointError
from tutorial_lib.training.loop import TrainingDiverged
from tutorial_lib.training.trained import trained_autoencoder

CONFIG = AutoencoderConfig(epochs=6, batch_size=16)


def trained(kind="cae", config=CONFIG, alpha=0.03, **more):
    torch.manual_seed(config.seed)
    model = build_autoencoder(kind, (1, 8, 8), width=0.25)
    constraint = GradientConstraint(model, alpha)
    split = one_class_split("digits", 0)
    history = train_autoencoder(
        model, split.train, constraint, config, progress=False, validation=split.validation, **more
    )
    return model, constraint, history


def assert_same(one, other):
    for name, value in one[0].state_dict().items():
        assert torch.equal(value, other[0].state_dict()[name]), name
    for name, value in one[1].mean.items():
        assert torch.equal(value, other[1].mean[name]), name
    assert one[1].steps == other[1].steps
    for part in ("reconstruction", "latent", "alignment", "validation", "best_epoch"):
        assert getattr(one[2], part) == getattr(other[2], part), part


@pytest.mark.parametrize("kind", ["cae", "vae"])
def test_the_same_seed_gives_the_same_model(kind):
    first = trained(kind)
    torch.manual_seed(99)
    torch.rand(7)
    assert_same(first, trained(kind))
    other = trained(kind, AutoencoderConfig(epochs=6, batch_size=16, seed=1))
    assert not torch.equal(next(first[0].parameters()), next(other[0].parameters()))


def test_a_training_learns_and_aligns():
    _, constraint, history = trained(config=AutoencoderConfig(epochs=60, batch_size=16))
    assert history.reconstruction[-1] < 0.5 * history.reconstruction[0]
    assert history.alignment[-1] > 0.5
    assert len(history.reconstruction) == len(history.validation) == 60
    assert constraint.steps == 8 * (history.best_epoch + 1)  # 8 batches an epoch, up to the epoch that was kept


def test_the_epoch_of_the_lowest_validation_loss_is_kept():
    config = AutoencoderConfig(epochs=13, batch_size=16, learning_rate=0.02)  # unsteady
    model, constraint, history = trained(config=config)
    best = min(range(13), key=lambda epoch: history.validation[epoch])
    assert history.best_epoch == best < 12
    shorter = trained(config=AutoencoderConfig(epochs=best + 1, batch_size=16, learning_rate=0.02))
    assert_same((model, constraint, shorter[2]), shorter)


def test_without_validation_the_last_epoch_is_kept():
    model = build_autoencoder("cae", (1, 8, 8), width=0.1)
    history = train_autoencoder(model, torch.rand(20, 1, 8, 8), config=AutoencoderConfig(epochs=3), progress=False)
    assert history.best_epoch == 2 and history.validation == [] and not model.training


@pytest.mark.parametrize("kind", ["cae", "vae"])
def test_a_stopped_training_goes_on_to_the_same_result(kind, tmp_path):
    state = tmp_path / "state.bin"
    stopped(state, kind=kind, after=3)
    left_over = torch.load(io.BytesIO(state.read_bytes()[32:]), weights_only=True)
    assert len(left_over["history"]["reconstruction"]) == 3
    torch.manual_seed(99)
    resumed = trained(kind, resume_from=state)
    assert_same(resumed, trained(kind))
    assert state.exists(), "whoever keeps the result deletes it"
    assert_same(resumed, trained(kind, resume_from=state))


def stopped(path, kind="cae", after=1):
    """A state on disk, of a training that was interrupted."""
    saved = []

    def stop(state):
        save(state)
        saved.append(1)
        if len(saved) == after:
            raise KeyboardInterrupt

    save = loop._State.save
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop._State, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            trained(kind, resume_from=path, save_every=0)


def test_a_state_of_other_settings_or_images_or_a_damaged_one_is_refused(tmp_path):
    path = tmp_path / "state.bin"
    stopped(path)
    with pytest.raises(ValueError, match="made with other settings"):
        trained(config=AutoencoderConfig(epochs=7, batch_size=16), resume_from=path)
    with pytest.raises(ValueError, match="made with other settings"):
        trained(alpha=0.1, resume_from=path)
    images = one_class_split("digits", 0)
    for train, validation in ((images.validation, images.validation), (images.train, images.train)):
        model = build_autoencoder("cae", (1, 8, 8), width=0.25)
        with pytest.raises(ValueError, match="made with other images; delete it"):
            train_autoencoder(model, train, GradientConstraint(model, 0.03), CONFIG, path, False, validation)
    content = bytearray(path.read_bytes())
    content[500] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged; delete it"):
        trained(resume_from=path)


def test_bad_input_is_refused():
    model = build_autoencoder("cae", (1, 8, 8), width=0.1)
    for images, error, says in (
        (torch.rand(4, 3, 8, 8), ValueError, "images: .*1 channels"),
        (torch.rand(4, 1, 28, 28), ValueError, "images: .*8x8"),
        (torch.rand(4, 1, 8, 8) + 1, ValueError, r"images: .*\[0, 1\]"),
        (torch.rand(0, 1, 8, 8), ValueError, "images: .*empty"),
        (torch.zeros(4, 1, 8, 8, dtype=torch.int64), TypeError, "images: .*uint8"),
    ):
        with pytest.raises(error, match=says):
            train_autoencoder(model, images, progress=False)
    with pytest.raises(ValueError, match="validation: "):
        train_autoencoder(model, torch.rand(4, 1, 8, 8), validation=torch.rand(4, 1, 9, 9), progress=False)
    for settings, says in (
        ({"epochs": 0}, "epochs"),
        ({"learning_rate": -1}, "learning_rate"),
        ({"precision": "half"}, "half"),
    ):
        with pytest.raises(ValueError, match=says):
            AutoencoderConfig(**settings)
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(TrainingDiverged, match="epoch 1 of 100; try a learning rate below 0.001"):
        train_autoencoder(model, torch.rand(4, 1, 8, 8), progress=False)


def test_a_trained_one_comes_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TUTORIAL_CACHE", str(tmp_path))
    split = one_class_split("digits", 1)
    first = trained_autoencoder(split.train, config=CONFIG, validation=split.validation, width=0.25)
    assert first.constraint.steps > 0
    (file,) = (tmp_path / "autoencoders").glob("*/model.pt")
    written = file.stat().st_mtime_ns
    again = trained_autoencoder(split.train, config=CONFIG, validation=split.validation, width=0.25)
    assert file.stat().st_mtime_ns == written
    assert_same(*(((t.model, t.constraint, t.history)) for t in (first, again)))
    # each of these is another training
    for change in (
        {"alpha": 0.0},
        {"kind": "vae"},
        {"width": 0.5},
        {"validation": None},
        {"config": AutoencoderConfig(2)},
    ):
        settings = {"config": CONFIG, "validation": split.validation, "width": 0.25} | change
        trained_autoencoder(split.train, **settings)
    assert len(list((tmp_path / "autoencoders").glob("*/model.pt"))) == 6
    file.write_bytes(b"half a file")
    with pytest.warns(RuntimeWarning, match="trained again"):
        repaired = trained_autoencoder(split.train, config=CONFIG, validation=split.validation, width=0.25)
    assert_same(*(((t.model, t.constraint, t.history)) for t in (first, repaired)))


def test_a_long_training_that_was_stopped_is_gone_on_with_and_leaves_no_state(tmp_path, monkeypatch):
    monkeypatch.setenv("TUTORIAL_CACHE", str(tmp_path))
    split = one_class_split("digits", 1)
    expected = trained_autoencoder(split.train, config=CONFIG, width=0.25)
    monkeypatch.setenv("TUTORIAL_CACHE", str(tmp_path / "second"))
    monkeypatch.setattr(loop, "LONG", 1000)
    save = loop._State.save

    def stop(state):
        save(state)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop._State, "save", stop)  # after the last epoch, and before the result is stored
        trained_autoencoder(split.train, config=CONFIG, width=0.25)
    [state] = tmp_path.glob("second/autoencoders/*_unfinished.bin")
    with monkeypatch.context() as patch:
        patch.setattr("tutorial_lib.training.autoencoder.training_step", lambda *a: pytest.fail("an epoch was lost"))
        found = trained_autoencoder(split.train, config=CONFIG, width=0.25)
    assert_same(*(((t.model, t.constraint, t.history)) for t in (expected, found)))
    assert not state.exists()


def test_a_damaged_state_is_said_and_the_training_starts_again(tmp_path, monkeypatch):
    monkeypatch.setenv("TUTORIAL_CACHE", str(tmp_path))
    monkeypatch.setattr(loop, "LONG", 1000)
    split = one_class_split("digits", 1)
    expected = trained_autoencoder(split.train, config=CONFIG, width=0.25)
    [folder] = [path for path in (tmp_path / "autoencoders").iterdir() if path.is_dir()]
    folder.rename(tmp_path / "elsewhere")
    state = folder.with_name(f"{folder.name}_unfinished.bin")
    state.write_bytes(b"half a state")
    with pytest.warns(RuntimeWarning, match="damaged.*starts again"):
        again = trained_autoencoder(split.train, config=CONFIG, width=0.25)
    assert_same(*(((t.model, t.constraint, t.history)) for t in (expected, again)))
    assert not state.exists()


def test_images_may_be_tensors_and_widths_given(tmp_path, monkeypatch):
    monkeypatch.setenv("TUTORIAL_CACHE", str(tmp_path))
    images = digits().float()[:40]
    before = torch.get_rng_state()
    found = {
        name: trained_autoencoder(images, *model, AutoencoderConfig(epochs=1, seed=3), widths=(6, 2))
        for name, model in MODELS.items()
    }
    assert torch.equal(torch.get_rng_state(), before)
    assert [t.constraint.alpha for t in found.values()] == [0, 0.03, 0, 0.03]
    assert all(t.model.widths == (6, 2) and t.constraint.steps == 1 for t in found.values())
    rebuilt = found["vae"].model(images).detach()
    torch.testing.assert_close(found["vae"].reconstruct((255 * images).round().to(torch.uint8)), rebuilt)
