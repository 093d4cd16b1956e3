"""The six attacks: against closed forms, slow loops and torchattacks, and by the rules that every attack keeps."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tutorial_lib.attacks import (
    BIM,
    FGSM,
    PGD,
    CarliniWagner,
    FeatureMatching,
    IterLL,
    LogitMatching,
    OrthogonalPGD,
    SelectivePGD,
    Semantic,
    noise_of_the_same_size,
)
from tutorial_lib.attacks.base import margin


def linear(weights):
    """A network without bias whose logits are the pixels' products with rows of ``weights`` (K, D), images 1 x 1 x D."""
    weight = torch.as_tensor(weights, dtype=torch.float64)
    model = nn.Sequential(nn.Flatten(), nn.Linear(weight.shape[1], weight.shape[0], bias=False)).double()
    model[1].weight.data.copy_(weight)
    return model


def every_attack(targets):
    def brightness(images):
        return images.flatten(1).mean(1)

    return (
        FGSM(32 / 255),
        BIM(32 / 255, 8 / 255, steps=6),
        PGD(32 / 255, 8 / 255, steps=6),
        IterLL(32 / 255, 8 / 255, steps=6),
        CarliniWagner(searches=2, steps=15),
        Semantic(),
        LogitMatching(targets, 32 / 255, steps=6),
        FeatureMatching(targets, 32 / 255, steps=6),
        SelectivePGD(brightness, 32 / 255, 8 / 255, steps=6),
        OrthogonalPGD(brightness, 32 / 255, 8 / 255, steps=6),
    )


NAMES = [
    "FGSM",
    "BIM",
    "PGD",
    "IterLL",
    "CarliniWagner",
    "Semantic",
    "LogitMatching",
    "FeatureMatching",
    "SelectivePGD",
    "OrthogonalPGD",
]


@pytest.fixture(params=range(len(NAMES)), ids=NAMES)
def attack(request, study):
    return every_attack(study.validation.images[:60])[request.param]


def run(attack, model, images, labels, seed=0, **more):
    return attack(model, images, labels, torch.Generator().manual_seed(seed), **more)


# --- the rules of every attack --------------------------------------------------------------------------------------


def test_form_of_the_result(attack, model, right):
    images, labels = right
    before = images.clone()
    attacked = run(attack, model, images, labels)
    assert torch.equal(images, before), "the clean images were changed"
    assert attacked.images.shape == images.shape
    assert attacked.images.dtype == images.dtype
    assert attacked.images.min() >= 0
    assert attacked.images.max() <= 1
    whole = attacked.images * 255
    assert torch.allclose(whole, whole.round(), atol=1e-4), "not on whole 255ths"
    assert attacked.fooled.any()
    with torch.no_grad():
        assert torch.equal(attacked.answers, model(attacked.images).argmax(1)), "success is asked after rounding"
    if hasattr(attack, "epsilon"):
        assert attacked.distance().max() <= attack.epsilon + 1e-6


def test_what_is_stored_as_bytes_fools_as_well(attack, model, right):
    attacked = run(attack, model, *right)
    stored = (attacked.images * 255).round().to(torch.uint8)
    with torch.no_grad():
        assert torch.equal(model(stored.float() / 255).argmax(1), attacked.answers)


def test_an_image_does_not_depend_on_the_images_around_it(attack, model, right):
    images, labels = right[0].double(), right[1]
    model = build_like(model).double()
    whole = run(attack, model, images, labels)
    small = run(attack, model, images, labels, batch_size=3)
    torch.testing.assert_close(small.images, whole.images, rtol=0, atol=1e-6)
    generator = torch.Generator().manual_seed(0)
    parts = [attack(model, images[part], labels[part], generator) for part in (slice(0, 7), slice(7, None))]
    torch.testing.assert_close(torch.cat([p.images for p in parts]), whole.images, rtol=0, atol=1e-6)


def build_like(model):
    import copy

    return copy.deepcopy(model)


def test_what_the_model_gets_wrong_is_left_alone(attack, model, right):
    images, labels = right
    wrong = labels.clone()
    wrong[:5] = (wrong[:5] + 1) % 8
    attacked = run(attack, model, images, wrong)
    assert torch.equal(attacked.images[:5], images[:5])
    assert not attacked.attackable[:5].any()
    assert not attacked.fooled[:5].any()
    assert attacked.success_rate == pytest.approx(attacked.fooled.sum().item() / 35)


def test_the_model_is_left_as_it_was(attack, model, right):
    model = build_like(model)
    model.train()
    next(model.parameters()).requires_grad_(False)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    run(attack, model, *right)
    assert model.training
    assert torch.equal(state, torch.get_rng_state())
    assert [p.requires_grad for p in model.parameters()][:2] == [False, True]
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_works_inside_inference_mode(model, right):
    with torch.inference_mode():
        assert run(PGD(32 / 255, 8 / 255), model, *right).fooled.any()


def test_bytes_and_floats_are_the_same_images(model, right):
    images, labels = right
    stored = (images * 255).round().to(torch.uint8)
    assert torch.equal(run(BIM(), model, stored, labels).images, run(BIM(), model, images, labels).images)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_cuda_device(attack, model, right):
    images, labels = right
    there = run(attack, build_like(model).cuda(), images, labels)
    assert there.images.device.type == "cpu"
    here = run(attack, model, images, labels)
    assert abs(there.success_rate - here.success_rate) <= 0.1


# --- against closed forms -------------------------------------------------------------------------------------------


def test_fgsm_of_a_linear_model_is_the_sign_of_the_difference_of_its_rows():
    """With two classes the gradient of the cross-entropy is (1 - p_y) (w_other - w_y): its sign is known by hand."""
    weights = [[2.0, -1.0, 0.5, 3.0], [1.0, 1.0, 0.25, -2.0]]
    image = torch.full((1, 1, 1, 4), 0.5, dtype=torch.float64)
    attacked = FGSM(0.1, eight_bit=False)(linear(weights), image, torch.tensor([0]))
    assert attacked.images.flatten().tolist() == pytest.approx([0.4, 0.6, 0.4, 0.4])


def test_bim_of_a_linear_model_walks_into_the_corner_of_the_box():
    weights = [[2.0, -1.0], [1.0, 1.0]]
    image = torch.tensor([[[[0.5, 0.02]]]], dtype=torch.float64)
    attacked = BIM(0.1, 0.03, steps=5, eight_bit=False)(linear(weights), image, torch.tensor([0]))
    assert attacked.images.flatten().tolist() == pytest.approx([0.4, 0.12])


def test_carlini_wagner_finds_the_distance_to_the_boundary():
    """Of two linear classes the nearest point of the other one lies |w_a x - w_b x| / |w_a - w_b| away."""
    generator = torch.Generator().manual_seed(3)
    weights = torch.randn(2, 30, generator=generator, dtype=torch.float64)
    images = 0.3 + 0.4 * torch.rand(8, 1, 5, 6, generator=generator, dtype=torch.float64)
    model = linear(weights)
    labels = model(images).argmax(1)
    gap = (weights[0] - weights[1]) @ images.flatten(1).T
    nearest = gap.abs() / (weights[0] - weights[1]).norm()
    attacked = CarliniWagner(searches=8, steps=100, eight_bit=False)(model, images, labels)
    assert attacked.success_rate == 1
    ratio = attacked.distance("l2") / nearest
    assert ratio.min() > 1 - 1e-9
    assert ratio.max() < 1.05


def test_carlini_wagner_with_negative_logits():
    """All logits below zero: an implementation that masks the true class with 0 believes that it has won."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2))
    model[1].weight.data.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    model[1].bias.data.fill_(-50.0)
    image = torch.tensor([[[[0.6, 0.4]]]])
    attacked = CarliniWagner(searches=6)(model, image, torch.tensor([0]))
    assert attacked.fooled.all()
    assert attacked.distance("l2").item() == pytest.approx(0.2 / math.sqrt(2), rel=0.06)
    assert margin(torch.tensor([[-3.0, -5.0]]), torch.tensor([0])).item() == -2


def test_carlini_wagner_moves_pixels_that_are_black_or_white():
    image = torch.tensor([[[[1.0, 0.0]]]])
    attacked = CarliniWagner(searches=4)(linear([[1.0, 0.0], [0.0, 1.0]]).float(), image, torch.tensor([0]))
    assert attacked.fooled.all()
    assert attacked.images[0, 0, 0, 0] < 0.6
    assert attacked.images[0, 0, 0, 1] > 0.4


def test_carlini_wagner_reaches_the_margin_it_is_asked_for(model, right):
    images, labels = right[0][:10], right[1][:10]
    attacked = CarliniWagner(kappa=2.0, searches=4, steps=40)(model, images, labels)
    with torch.no_grad():
        found = margin(model(attacked.images), labels)
    assert (found[attacked.fooled] >= 2.0 - 1e-4).any()
    plain = CarliniWagner(searches=4, steps=40)(model, images, labels)
    assert attacked.distance("l2").mean() > plain.distance("l2").mean()


def test_carlini_wagner_marks_what_it_could_not_fool():
    """A model that ignores all but one pixel's sign cannot be fooled within [0, 1]; the image is marked as a failure."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2))
    model[1].weight.data.zero_()
    model[1].weight.data[0, 0] = 1e-3
    model[1].bias.data.copy_(torch.tensor([5.0, 0.0]))
    attacked = CarliniWagner(searches=2, steps=5)(model, torch.full((1, 1, 1, 2), 0.5), torch.tensor([0]))
    assert not attacked.fooled.any()
    assert attacked.success_rate == 0


def test_iterll_aims_at_what_is_least_likely_on_the_clean_image():
    """Class 2 is least likely at the start; on the way the least likely class changes, the target does not."""
    weights = [[4.0, 0.0], [0.0, 1.0], [-1.0, 0.5]]
    image = torch.tensor([[[[0.6, 0.6]]]], dtype=torch.float64)
    attacked = IterLL(0.5, 0.1, steps=5, eight_bit=False)(linear(weights), image, torch.tensor([0]))
    logits = linear(weights)(attacked.images)
    assert logits[0, 2] > linear(weights)(image)[0, 2]
    assert attacked.images[0, 0, 0, 0].item() == pytest.approx(0.1)


def test_semantic_is_the_negative(model, right):
    attacked = run(Semantic(), model, *right)
    assert torch.equal((attacked.images * 255).round(), 255 - (right[0] * 255).round())


# --- against slow loops ---------------------------------------------------------------------------------------------


def test_pgd_is_madrys_loop_and_keeps_the_worst_iterate(colour):
    """One image at a time, torch alone, from the clean image; the worst iterate is the one of the largest margin."""
    network, images, labels = colour
    epsilon, step, steps = 16 / 255, 4 / 255, 5
    attacked = PGD(epsilon, step, steps, eight_bit=False, random_start=False)(network, images, labels)
    for image, label, found in zip(images.split(1), labels.split(1), attacked.images, strict=True):
        here, visited = image.clone(), [image]
        for _ in range(steps):
            here = here.detach().requires_grad_()
            F.cross_entropy(network(here), label).backward()
            here = here.detach() + step * here.grad.sign()
            here = torch.max(torch.min(here, image + epsilon), image - epsilon).clamp(0, 1)
            visited.append(here)
        with torch.no_grad():
            margins = [margin(network(v), label).item() for v in visited]
            assert margin(network(found[None]), label).item() == pytest.approx(max(margins), rel=1e-3, abs=1e-4)


def test_random_starts_are_inside_the_box_and_differ(colour):
    from tutorial_lib.attacks.base import uniform

    drawn = uniform([1, 2, 1], torch.zeros(3, 3, 16, 16))
    assert torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[1])
    assert -1 <= drawn.min() < -0.95
    assert 0.95 < drawn.max() <= 1
    network, images, labels = colour
    small = PGD(8 / 255, 1 / 255, steps=1)
    first, again, other = (run(small, network, images, labels, seed).images for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_restarts_never_do_less(model, right):
    images, labels = right
    one = run(PGD(24 / 255, 4 / 255, 5), model, images, labels)
    four = run(PGD(24 / 255, 4 / 255, 5, restarts=4), model, images, labels)
    assert not (one.fooled & ~four.fooled).any()


def test_a_box_between_two_grey_levels_is_kept_inside(model, right):
    attacked = run(BIM(0.05, 0.02), model, *right)  # 12.75 grey levels
    assert attacked.distance().max() <= 12 / 255 + 1e-6


def test_noise_of_the_same_size_has_the_size(model, right):
    attacked = run(BIM(32 / 255, 8 / 255), model, right[0] * 0 + 0.5, model(right[0] * 0 + 0.5).argmax(1))
    control = noise_of_the_same_size(attacked, torch.Generator().manual_seed(0))
    distance = (control - attacked.clean).flatten(1).norm(dim=1).double()
    torch.testing.assert_close(distance, attacked.distance("l2"), rtol=0.05, atol=0.02)


def test_a_network_that_views_its_features_is_attacked_too(colour):
    """Images go through convolutions channels last, which is faster; ``view`` fails there, as it does in many networks."""

    class Views(nn.Module):
        def __init__(self, layers):
            super().__init__()
            self.layers = layers

        def forward(self, images):
            return self.layers(images).view(len(images), -1)[:, :10]

    _, images, labels = colour
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 10, 8, stride=8)
    views, reshapes = Views(layers), nn.Sequential(layers, nn.Flatten())
    with pytest.raises(RuntimeError, match="view"):
        views(images.contiguous(memory_format=torch.channels_last))
    labels = views(images).argmax(1)
    attack = BIM(32 / 255, 8 / 255, steps=4)
    attacked = attack(views, images, labels)
    assert attacked.images.is_contiguous() and attacked.success_rate > 0
    other = attack(nn.Sequential(reshapes, First(10)), images, labels)
    assert (other.images - attacked.images).abs().lt(
        1e-6
    ).float().mean() > 0.999  # a gradient of 0 may round either way


class First(nn.Module):
    """The first of its inputs' numbers."""

    def __init__(self, count):
        super().__init__()
        self.count = count

    def forward(self, values):
        return values[:, : self.count]


# --- against torchattacks -------------------------------------------------------------------------------------------


@pytest.fixture(params=["digits", "colour"])
def case(request, model, right, colour):
    return (model, *right) if request.param == "digits" else colour


def test_fgsm_equals_torchattacks(case):
    torchattacks = pytest.importorskip("torchattacks")
    network, images, labels = case
    theirs = torchattacks.FGSM(network, eps=8 / 255)(images, labels)
    ours = FGSM(8 / 255, eight_bit=False)(network, images, labels)
    torch.testing.assert_close(ours.images, theirs, rtol=0, atol=1e-6)


def test_bim_equals_torchattacks(case):
    torchattacks = pytest.importorskip("torchattacks")
    network, images, labels = case
    theirs = torchattacks.BIM(network, eps=24 / 255, alpha=4 / 255, steps=7)(images, labels)
    ours = BIM(24 / 255, 4 / 255, steps=7, eight_bit=False)(network, images, labels)
    torch.testing.assert_close(ours.images, theirs, rtol=0, atol=1e-5)


def test_pgd_does_at_least_what_torchattacks_does(case):
    """They return the last iterate and we the worst: ours equals theirs in the step, and is never weaker."""
    torchattacks = pytest.importorskip("torchattacks")
    network, images, labels = case
    attack = torchattacks.PGD(network, eps=24 / 255, alpha=4 / 255, steps=7, random_start=False)
    theirs = attack(images, labels)
    ours = PGD(24 / 255, 4 / 255, steps=7, random_start=False, eight_bit=False)(network, images, labels)
    with torch.no_grad():
        gain = margin(network(ours.images), labels) - margin(network(theirs), labels)
    assert gain.min() >= -1e-4
    last = gain.abs() < 1e-6  # where the last iterate is the worst, it is the same image
    assert last.float().mean() > 0.3
    torch.testing.assert_close(ours.images[last], theirs[last], rtol=0, atol=1e-5)


def test_iterll_equals_torchattacks_where_its_target_is_ours(case):
    """Their least likely class is sought among the wrong ones; for images that are right, that is the same."""
    torchattacks = pytest.importorskip("torchattacks")
    network, images, labels = case
    attack = torchattacks.BIM(network, eps=24 / 255, alpha=4 / 255, steps=7)
    attack.set_mode_targeted_least_likely()
    ours = IterLL(24 / 255, 4 / 255, steps=7, eight_bit=False)(network, images, labels)
    torch.testing.assert_close(ours.images, attack(images, labels), rtol=0, atol=1e-5)


def test_carlini_wagner_needs_less_than_torchattacks_at_equal_success(model, right):
    torchattacks = pytest.importorskip("torchattacks")
    images, labels = right
    theirs = torchattacks.CW(model, c=1, steps=100, lr=0.01)(images, labels)
    with torch.no_grad():
        fooled = model(theirs).argmax(1) != labels
    ours = CarliniWagner(searches=3, steps=60)(model, images, labels)
    assert ours.fooled[fooled].all()
    their_distance = (theirs - images).flatten(1).norm(dim=1).double()
    assert ours.distance("l2")[fooled].mean() < their_distance[fooled].mean()


# --- what people get wrong ------------------------------------------------------------------------------------------


def test_images_in_255ths_are_refused(model, right):
    with pytest.raises(ValueError, match="divide by 255 or pass uint8"):
        FGSM()(model, right[0] * 255, right[1])


def test_a_label_that_is_no_class(model, right):
    labels = right[1].clone()
    labels[0] = 8
    with pytest.raises(ValueError, match="labels run up to 8, but the model has 8 classes"):
        FGSM()(model, right[0], labels)
    labels[0] = -1
    with pytest.raises(ValueError, match="classes from 0 on, got -1"):
        FGSM()(model, right[0], labels)
    with pytest.raises(TypeError, match="int64 tensor"):
        FGSM()(model, right[0], labels.float())
    with pytest.raises(ValueError, match="40 images, but labels of shape"):
        FGSM()(model, right[0], labels[:3])


def test_a_model_that_cannot_be_differentiated(model, right):
    class Detached(nn.Module):
        def forward(self, images):
            return model(images).detach()

    for attack in (FGSM(), PGD(), CarliniWagner(), IterLL()):
        with pytest.raises(ValueError, match="cannot be differentiated"):
            run(attack, Detached(), *right)


def test_a_model_that_gives_no_logits(right):
    with pytest.raises(ValueError, match=r"logits of shape \(N, K\)"):
        FGSM()(nn.Identity(), *right)
    with pytest.raises(TypeError, match=r"torch\.nn\.Module"):
        FGSM()(lambda images: images, *right)


def test_randomness_is_an_argument(model, right):
    with pytest.raises(ValueError, match="PGD draws random numbers; pass generator="):
        PGD()(model, *right)
    with pytest.raises(TypeError, match=r"torch\.Generator, got 0"):
        PGD()(model, *right, 0)


@pytest.mark.parametrize("epsilon", [0, -0.1, 8, float("nan")])
def test_epsilon_is_in_pixels_from_0_to_1(epsilon):
    with pytest.raises(ValueError, match="epsilon must lie in"):
        PGD(epsilon)
    if epsilon == 8:
        with pytest.raises(ValueError, match="write 8/255"):
            FGSM(epsilon)


def test_settings_that_make_no_sense():
    with pytest.raises(ValueError, match="less than one grey level"):
        BIM(8 / 255, 0.001)
    with pytest.raises(ValueError, match="steps must be a whole number"):
        BIM(steps=0)
    with pytest.raises(ValueError, match="restarts must be at least 1"):
        PGD(restarts=2, random_start=False)
    with pytest.raises(ValueError, match="kappa must not be negative"):
        CarliniWagner(kappa=-1)
    with pytest.raises(ValueError, match="learning_rate must be positive"):
        CarliniWagner(learning_rate=0)


def test_success_of_nothing(model, right):
    attacked = FGSM()(model, right[0], (right[1] + 1) % 8)
    with pytest.raises(ValueError, match="there was nothing to attack"):
        attacked.success_rate  # noqa: B018
    with pytest.raises(ValueError, match="norm must be"):
        attacked.distance("l1")
