"""The trainer: learns, repeats itself under a seed, resumes, refuses nonsense."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from tutorial_lib.data.images import ImageSet
from tutorial_lib.models import build
from tutorial_lib.training import loop
from tutorial_lib.training.checkpoints import CheckpointError
from tutorial_lib.training.classifier import TrainingConfig, accuracy, augment, train_classifier
from tutorial_lib.training.loop import TrainingDiverged

QUICK = TrainingConfig(
    epochs=3, batch_size=32, learning_rate=3e-3, optimizer="adam", shift=1, flip=False, precision="float32"
)


def stripes(n: int = 192, seed: int = 0) -> ImageSet:
    """Two classes: horizontal and vertical stripes under noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2
    pattern = (torch.arange(8) % 2).float()
    clean = torch.where(labels[:, None, None] == 0, pattern[None, :, None], pattern[None, None, :])
    noisy = 0.6 * clean + 0.4 * torch.rand(n, 8, 8, generator=generator)
    return ImageSet("stripes", (255 * noisy[:, None]).to(torch.uint8), labels, ("rows", "columns"), torch.arange(n))


def network(seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return build("lenet", 2, (1, 8, 8))


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_learns_stripes():
    model = network()
    history = train_classifier(model, stripes(), stripes(seed=1), QUICK, progress=False)
    assert history.loss[-1] < 0.5 * history.loss[0]
    assert accuracy(model, stripes(seed=2)) > 0.95
    assert len(history.validation_accuracy) == 3 and not model.training


def test_same_seed_same_network_other_seed_other_network():
    def trained(seed):
        model = network()
        torch.manual_seed(torch.seed())  # whatever the global state is, it must not matter
        train_classifier(model, stripes(), config=TrainingConfig(**{**QUICK.__dict__, "seed": seed}), progress=False)
        return weights(model)

    assert torch.equal(trained(0), trained(0))
    assert not torch.equal(trained(0), trained(1))


def stopped(path, after=1):
    """A state on disk, of a training that was interrupted when it had been saved so many times."""
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
            resumed(network(), path, save_every=0)


def resumed(model, path, config=QUICK, images=None, **more):
    images = images or stripes()
    return train_classifier(model, images, stripes(seed=1), config=config, progress=False, resume_from=path, **more)


def test_a_stopped_training_resumes_to_the_same_network(tmp_path):
    whole = network()
    train_classifier(whole, stripes(), stripes(seed=1), QUICK, progress=False)
    state = tmp_path / "state.bin"
    stopped(state, after=2)
    model = network(seed=9)  # other weights: all must come from the state
    history = resumed(model, state)
    assert torch.equal(weights(whole), weights(model))
    assert len(history.loss) == len(history.validation_accuracy) == 3
    assert [file.name for file in tmp_path.iterdir()] == ["state.bin"], "one file, left for whoever keeps the result"
    again = network(seed=8)
    assert resumed(again, state) == history
    assert torch.equal(weights(whole), weights(again))


def test_a_state_of_other_settings_or_other_images_is_refused(tmp_path):
    state = tmp_path / "state.bin"
    stopped(state)
    with pytest.raises(ValueError, match="other settings.*'epochs': 3"):
        resumed(network(), state, replace(QUICK, epochs=9))
    images = stripes()
    with pytest.raises(ValueError, match="made with other images; delete it"):
        resumed(network(), state, images=replace(images, labels=1 - images.labels))
    changed = images.images.clone()
    changed[7, 0, 3, 3] ^= 1
    with pytest.raises(ValueError, match="made with other images; delete it"):
        resumed(network(), state, images=replace(images, images=changed))


def test_a_damaged_state_is_named(tmp_path):
    state = tmp_path / "state.bin"
    stopped(state)
    state.write_bytes(state.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="damaged; delete it"):
        resumed(network(), state)


def test_a_small_training_is_the_same_on_any_number_of_threads():
    found, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(network())
            train_classifier(found[-1], stripes(), config=QUICK, progress=False)
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert torch.equal(weights(found[0]), weights(found[1]))


def test_divergence_is_reported_with_advice():
    config = TrainingConfig(epochs=5, batch_size=16, learning_rate=1e8, schedule="constant", precision="float32")
    with pytest.raises(TrainingDiverged, match="learning rate below 1e"):
        train_classifier(network(), stripes(), config=config, progress=False)


def test_labels_without_a_logit_are_refused():
    images = stripes()
    three = ImageSet("three", images.images, images.labels + 1, ("a", "b", "c"), images.source)
    with pytest.raises(ValueError, match="labels run from 1 to 2"):
        train_classifier(network(), three, config=QUICK, progress=False)


@pytest.mark.parametrize("field", ["optimizer", "schedule", "precision"])
def test_unknown_choices_are_named(field):
    with pytest.raises(ValueError, match=f"{field} must be one of"):
        TrainingConfig(**{field: "other"})


def test_augment_agrees_with_a_slow_loop():
    images = torch.randint(0, 256, (6, 3, 5, 7), dtype=torch.uint8)
    chosen = torch.tensor([4, 0, 0, 5])
    batch = augment(images, chosen, 2, True, torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)  # the same draws, in the documented order: translation, then mirror
    offset = torch.randint(-2, 3, (2, 4, 1), generator=generator)
    mirrored = torch.rand(4, 1, generator=generator) < 0.5
    for i, index in enumerate(chosen):
        padded = F.pad(images[index].float() / 255, (2, 2, 2, 2))
        down, right = 2 + int(offset[0, i]), 2 + int(offset[1, i])
        crop = padded[:, down : down + 5, right : right + 7]
        torch.testing.assert_close(batch[i], crop.flip(2) if mirrored[i] else crop)


def test_augment_without_shift_and_flip_is_the_image():
    images = torch.randint(0, 256, (3, 1, 4, 4), dtype=torch.uint8)
    torch.testing.assert_close(augment(images, torch.arange(3), 0, False, torch.Generator()), images.float() / 255)
