"""Attacks that know the detector, the differentiable detectors that they need, and the checks of an attack."""

import numpy as np
import pytest
import torch
from torch import nn

from tutorial_lib.attacks import (
    BIM,
    FGSM,
    PGD,
    FeatureMatching,
    LogitMatching,
    OrthogonalPGD,
    SelectivePGD,
    check_attack,
    differentiable_log_norms,
    fallen,
    second_stage_in_torch,
)
from tutorial_lib.attacks.adaptive import without
from tutorial_lib.detectors import Purview, logistic_regression
from tutorial_lib.gradients import squared_norms
from tutorial_lib.models.predict import predict_features, predict_logits


@pytest.fixture(scope="module")
def purview(study, model):
    """Purview's detector, fitted on BIM's images of validation digits."""
    images, labels = study.validation.float(), study.validation.labels
    attacked = BIM(48 / 255, 8 / 255)(model, images, labels)
    return Purview(model).fit(images, attacked.images[attacked.fooled])


def test_matched_logits_are_near_those_of_a_clean_image(study, model, right):
    images, labels = right
    targets = study.validation.images
    attacked = LogitMatching(targets, 96 / 255, steps=60)(model, images, labels)
    assert attacked.success_rate > 0.8

    def nearest(x):
        return torch.cdist(predict_logits(model, x), predict_logits(model, targets)).amin(dim=1)

    plain = PGD(96 / 255, 8 / 255)(model, images, labels, torch.Generator().manual_seed(0))
    fooled = attacked.fooled & plain.fooled
    assert nearest(attacked.images)[fooled].mean() < 0.5 * nearest(plain.images)[fooled].mean()


def test_matched_features_are_nearer_than_matched_logits_leave_them(study, model, right):
    images, labels = right
    targets = study.validation.images

    def nearest(x):
        return torch.cdist(predict_features(model, x), predict_features(model, targets)).amin(dim=1)

    by_logits = LogitMatching(targets, 64 / 255, steps=40)(model, images, labels)
    by_features = FeatureMatching(targets, 64 / 255, steps=40)(model, images, labels)
    assert nearest(by_features.images).mean() < nearest(by_logits.images).mean()


def test_the_target_is_of_another_class(study, model, right):
    with pytest.raises(ValueError, match="one that the model gives another class"):
        own = study.validation.subset(study.validation.labels == right[1][0])
        keep = predict_logits(model, own.images).argmax(1) == right[1][0]
        LogitMatching(own.images[keep])(model, right[0][:1], right[1][:1])


@pytest.mark.parametrize(("label", "loss"), [("ones", "bce"), ("uniform", "ce")])
def test_differentiable_norms_are_the_exact_ones(model, right, colour, label, loss):
    for network, images in ((model, right[0][:5]), (colour[0], colour[1][:3])):
        expected, _ = squared_norms(network, images, label, loss)
        found = differentiable_log_norms(network, images, label, loss)
        np.testing.assert_allclose(found.detach().numpy(), expected.log().numpy(), rtol=1e-3, atol=1e-3)


def test_their_gradient_is_that_of_finite_differences(model, right):
    import copy

    network, image = copy.deepcopy(model).double(), right[0][:1].double().clamp(0.1, 0.9)

    def total(x):
        return differentiable_log_norms(network, x)[:, ::2].sum()

    image.requires_grad_()
    (gradient,) = torch.autograd.grad(total(image), image)
    step = torch.zeros_like(image)
    step[0, 0, 2, 3] = 1e-6
    with torch.no_grad():
        slope = (total(image + step) - total(image - step)) / 2e-6
    assert gradient[0, 0, 2, 3].item() == pytest.approx(slope.item(), rel=1e-3, abs=1e-6)


def test_the_detector_in_torch_is_the_detector(model, right, purview):
    images = right[0]
    stage = second_stage_in_torch(purview._h)
    expected = purview.predict(images)  # log odds of predict_proba
    found = stage(differentiable_log_norms(model, images)).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=2e-2, atol=2e-2)


def test_other_second_stages(model, right, study):
    features = torch.randn(60, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    fitted = logistic_regression().fit(features.numpy(), np.arange(60) % 2)
    np.testing.assert_allclose(
        second_stage_in_torch(fitted)(features).numpy(), fitted.decision_function(features.numpy()), atol=1e-9
    )
    with pytest.raises(TypeError, match="pipeline of a StandardScaler"):
        second_stage_in_torch(object())
    with pytest.raises(ValueError, match="no differentiable form"):
        differentiable_log_norms(model, right[0][:1], "zeros", "mse")


@pytest.mark.parametrize("attack_type", [SelectivePGD, OrthogonalPGD])
def test_who_knows_the_detector_is_seen_less(study, model, right, purview, attack_type):
    images, labels = right[0][:20], right[1][:20]
    stage = second_stage_in_torch(purview._h)

    def score(x):
        return stage(differentiable_log_norms(model, x))

    oblivious = BIM(48 / 255, 8 / 255)(model, images, labels)
    aware = attack_type(score, 48 / 255, 8 / 255, steps=20)(model, images, labels)
    both = oblivious.fooled & aware.fooled
    assert both.sum() > 8
    seen, hidden = purview.predict(oblivious.images[both]), purview.predict(aware.images[both])
    assert hidden.mean() < seen.mean()  # by how much is a matter of the network


def test_orthogonal_directions_are_orthogonal():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 5, 3, 4, 4, generator=generator)
    torch.testing.assert_close((without(a, b) * b).flatten(1).sum(1), torch.zeros(5), rtol=0, atol=1e-4)
    torch.testing.assert_close(without(a, torch.zeros_like(b)), a)


def test_a_score_of_the_wrong_shape_or_kind(model, right):
    with pytest.raises(ValueError, match="wanted one number each"):
        OrthogonalPGD(lambda x: x.flatten(1))(model, *right)
    with pytest.raises(TypeError, match="score must be a function"):
        OrthogonalPGD(3)
    with pytest.raises(TypeError, match="no features"):
        FeatureMatching(right[0])(nn.Sequential(nn.Flatten(), model.head.__class__(64, 8)), *right)


# --- checks ---------------------------------------------------------------------------------------------------------


def failed(checks):
    return [check.name for check in checks if not check.passed]


def test_a_good_attack_passes_every_check(model, right):
    images, labels = right
    found = check_attack(PGD(64 / 255, 8 / 255, steps=12, restarts=2), model, images, labels)
    assert len(found) == 9
    assert failed(found) == []


def test_a_broken_attack_is_found_out(model, right):
    """One that walks away from the boundary, as one with a wrong sign does."""

    class WrongWay(BIM):
        def _objective(self, model, labels, logits):
            up = super()._objective(model, labels, logits)

            def down(images):
                loss, found = up(images)
                return -loss, found

            return down

    names = failed(check_attack(WrongWay(48 / 255, 8 / 255), model, *right))
    assert "Many steps do at least what one does" in names
    assert "Without a bound it reaches 100 %" in names


def test_a_model_that_hides_its_gradient_is_found_out(model, right):
    class Saturated(nn.Module):
        def forward(self, images):
            return 1e6 * model(images)

    class Softmax(nn.Module):
        def forward(self, images):
            return model(images).softmax(dim=1)

    assert "No image starts with a gradient of 0" in failed(check_attack(FGSM(48 / 255), Saturated(), *right))
    assert "The model gives logits, not probabilities" in failed(check_attack(FGSM(48 / 255), Softmax(), *right))


def test_transfer_does_less(study, model, right):
    torch.manual_seed(0)
    other = nn.Sequential(nn.Flatten(), nn.Linear(64, 8))
    images, labels = study.train.float(), study.train.labels
    optimizer = torch.optim.Adam(other.parameters(), lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(other(images), labels).backward()
        optimizer.step()
    found = check_attack(BIM(48 / 255, 4 / 255, steps=20), model, *right, other_model=other)
    assert found[-1].name == "An attack on another network does less"
    assert found[-1].passed


def test_an_image_falls_to_any_attack(model, right):
    weak, strong = FGSM(16 / 255)(model, *right), BIM(48 / 255, 8 / 255)(model, *right)
    assert torch.equal(fallen([weak, strong]), weak.fooled | strong.fooled)
    with pytest.raises(ValueError, match="at least one"):
        fallen([])
