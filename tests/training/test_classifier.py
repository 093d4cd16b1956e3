"""The trainer: learns, repeats itself under a seed, resumes, refuses nonsense."""

import pytest
import torch
import torch.nn.functional as F

from tutorial_lib.data.images import ImageSet
from tutorial_lib.models import build
from tutorial_lib.training.classifier import TrainingConfig, TrainingDiverged, accuracy, augment, train_classifier

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


def test_a_killed_training_resumes_to_the_same_network(tmp_path, monkeypatch):
    whole = network()
    train_classifier(whole, stripes(), stripes(seed=1), QUICK, progress=False)

    state = tmp_path / "state.pt"
    killed = network()
    import tutorial_lib.training.classifier as training

    original, calls = training._save_state, []

    def kill_after_the_second(*arguments):
        original(*arguments)
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "_save_state", kill_after_the_second)
    with pytest.raises(KeyboardInterrupt):
        train_classifier(killed, stripes(), stripes(seed=1), QUICK, progress=False, resume_from=state)
    monkeypatch.setattr(training, "_save_state", original)
    resumed = network(seed=9)  # other weights: all must come from the state
    history = train_classifier(resumed, stripes(), stripes(seed=1), QUICK, progress=False, resume_from=state)
    assert torch.equal(weights(whole), weights(resumed))
    assert len(history.loss) == 3
    assert not state.exists()


def test_a_state_of_other_settings_is_refused(tmp_path, monkeypatch):
    import tutorial_lib.training.classifier as training

    original = training._save_state
    monkeypatch.setattr(training, "_save_state", lambda *a: (original(*a), (_ for _ in ()).throw(KeyboardInterrupt)))
    with pytest.raises(KeyboardInterrupt):
        train_classifier(network(), stripes(), config=QUICK, progress=False, resume_from=tmp_path / "s.pt")
    with pytest.raises(ValueError, match="other settings"):
        train_classifier(
            network(),
            stripes(),
            config=TrainingConfig(**{**QUICK.__dict__, "epochs": 9}),
            progress=False,
            resume_from=tmp_path / "s.pt",
        )


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
