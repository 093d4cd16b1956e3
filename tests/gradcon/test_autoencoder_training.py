"""A training is the same for the same seed, and the same when it was killed on its way."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from tutorial_lib.data.embedded import digits
from tutorial_lib.gradcon import (
    AutoencoderConfig,
    GradientConstraint,
    build_autoencoder,
    one_class_split,
    train_autoencoder,
    trained_autoencoder,
)
from tutorial_lib.training.checkpoints import CheckpointError
from tutorial_lib.training.classifier import TrainingDiverged

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


EPOCHS = 60
KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import torch
torch.set_num_threads(1)
import test_autoencoder_training as here
config = here.AutoencoderConfig(epochs=here.EPOCHS, batch_size=16)
here.trained(sys.argv[3], config, checkpoint=Path(sys.argv[1]), save_every=0)
"""


@pytest.mark.parametrize("kind", ["cae", "vae"])
def test_a_killed_training_goes_on_to_the_same_result(kind, tmp_path):
    state = tmp_path / "state.bin"
    folder = os.path.dirname(__file__)
    killed = subprocess.Popen([sys.executable, "-c", KILLED, state, folder, kind])
    try:
        deadline = time.monotonic() + 120
        while not state.exists() and killed.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.1)  # some epochs further, in the middle of one
    finally:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    assert killed.returncode == -signal.SIGKILL and state.exists()
    left_over = torch.load(_content(state), weights_only=True)
    done = len(left_over["history"]["reconstruction"])
    assert 1 <= done < EPOCHS
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the killed process; sums in another order are other sums
    try:
        config = AutoencoderConfig(epochs=EPOCHS, batch_size=16)
        resumed = trained(kind, config, checkpoint=state)
        assert not state.exists()
        assert_same(resumed, trained(kind, config))
    finally:
        torch.set_num_threads(threads)


def _content(path):
    import io

    return io.BytesIO(path.read_bytes()[32:])


def stopped(path, epochs=6):
    """A state on disk, of a training that was interrupted."""
    config = AutoencoderConfig(epochs=epochs, batch_size=16)
    with pytest.MonkeyPatch.context() as patch:
        from tutorial_lib.gradcon import training

        def stop(state, path):
            save(state, path)
            raise KeyboardInterrupt

        save = training._State.save
        patch.setattr(training._State, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            trained(config=config, checkpoint=path, save_every=0)


def test_a_state_of_other_settings_or_a_damaged_one_is_refused(tmp_path):
    path = tmp_path / "state.bin"
    stopped(path)
    with pytest.raises(ValueError, match="made with other settings"):
        trained(config=AutoencoderConfig(epochs=7, batch_size=16), checkpoint=path)
    with pytest.raises(ValueError, match="made with other settings"):
        trained(alpha=0.1, checkpoint=path)
    content = bytearray(path.read_bytes())
    content[500] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged; delete it"):
        trained(checkpoint=path)


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
    (file,) = (tmp_path / "autoencoders").glob("*.pt")
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
    assert len(list((tmp_path / "autoencoders").glob("*.pt"))) == 6
    file.write_bytes(b"half a file")
    repaired = trained_autoencoder(split.train, config=CONFIG, validation=split.validation, width=0.25)
    assert_same(*(((t.model, t.constraint, t.history)) for t in (first, repaired)))


def test_splits_of_one_class():
    everything = digits()
    for normal in (0, 7):
        split = one_class_split("digits", normal)
        sources = [set(part.source.tolist()) for part in (split.train, split.validation, split.normal)]
        assert sum(map(len, sources)) == len(set.union(*sources)) == int((everything.labels == normal).sum())
        for part in (split.train, split.validation, split.normal):
            assert (part.labels == normal).all()
        assert not (split.strange.labels == normal).any()
        assert len(split.strange) == len(split.normal) == round(0.3 * int((everything.labels == normal).sum()))
        assert len(split.validation) == round(0.1 * (len(split.train) + len(split.validation)))
        # no stranger was ever a training image of another class's model
        other = one_class_split("digits", int(split.strange.labels[0]))
        assert split.strange.source[0] in other.normal.source
    again = one_class_split("digits", 7)
    assert torch.equal(again.strange.source, split.strange.source)
    with pytest.raises(ValueError, match="classes 0 to 9, got 10"):
        one_class_split("digits", 10)
    with pytest.raises(ValueError, match="digits, mnist, cifar10"):
        one_class_split("letters", 0)
