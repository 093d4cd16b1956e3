"""Is the attack any good? Tests that every evaluation with attacks should pass, as one table.

After Carlini, Athalye, Papernot et al., "On evaluating adversarial robustness", 2019, section 4, and the warnings of
AutoAttack. A detector that withstands a broken attack has withstood nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from tutorial_lib.attacks.base import Attack, Attacked, checked_logits, input_gradient, noise_of_the_same_size
from tutorial_lib.attacks.gradient_sign import FGSM, cross_entropy
from tutorial_lib.data.images import as_float
from tutorial_lib.models.predict import device_of, preserved

__all__ = ["Check", "check_attack", "fallen"]

SLACK = 0.02
"""How much more success doubled steps or further restarts may bring before the attack counts as unfinished."""


@dataclass(frozen=True)
class Check:
    """One line of the table.

    Attributes:
        name: what must be true, as a sentence.
        found: the numbers that it was judged by.
        passed: whether it is.
    """

    name: str
    found: str
    passed: bool


def check_attack(
    attack: Attack,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    generator: torch.Generator | None = None,
    other_model: nn.Module | None = None,
) -> list[Check]:
    """Put an attack through the checks that apply to it.

    Which ones do is seen from its settings: ``epsilon``, ``steps`` and ``restarts`` are varied where the attack has them.

    Args:
        attack: a dataclass, as all attacks of this library are.
        model, images, labels: as for the attack; some dozens of images are enough.
        generator: where one is needed; every run starts from its state, so that runs differ in one setting only.
        other_model: another model of the same classes, for the transfer check: attacks made on it must do less.

    Returns:
        one `Check` for each test, in the order of the table.
    """
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    state = generator.get_state()

    def run(**changes: Any) -> Attacked:
        generator.set_state(state)
        varied = replace(cast(Any, attack), **changes) if changes else attack
        return cast(Attacked, varied(model, images, labels, generator if attack.random else None))

    base = run()
    share = base.success_rate
    checks = [_deterministic(model, images), _not_probabilities(model, images), _gradients_there(model, images, labels)]
    if hasattr(attack, "epsilon"):
        checks += _by_epsilon(attack, run, base, model, images, labels)
    if hasattr(attack, "steps"):
        doubled = run(steps=2 * attack.steps).success_rate
        checks.append(_no_gain("Twice the steps change nothing", share, doubled))
    if hasattr(attack, "restarts") and getattr(attack, "random_start", True):
        more = run(restarts=attack.restarts + 2).success_rate
        checks.append(_no_gain("More restarts change nothing", share, more))
    control = noise_of_the_same_size(base, torch.Generator().manual_seed(0))
    by_chance = _flipped(model, control, base)
    checks.append(Check("Noise of the same size does less", f"{by_chance:.0%} < {share:.0%}", by_chance < share))
    if other_model is not None:
        generator.set_state(state)
        elsewhere = attack(other_model, images, labels, generator if attack.random else None)
        transferred = _flipped(model, elsewhere.images, base)
        title = "An attack on another network does less"
        checks.append(Check(title, f"{transferred:.0%} < {share:.0%}", transferred < share))
    return checks


def fallen(attacks: Sequence[Attacked]) -> Tensor:
    """bool (N,): images that at least one of several attacks fooled the model about: success counted by image.

    The average over attacks flatters: a defence holds for an image only if it holds against every attack on it.
    """
    if not attacks:
        raise ValueError("fallen needs at least one attack")
    return torch.stack([attacked.fooled for attacked in attacks]).any(dim=0)


def _by_epsilon(
    attack: Attack, run: Callable[..., Attacked], base: Attacked, model: nn.Module, images: Tensor, labels: Tensor
) -> list[Check]:
    epsilon = cast(Any, attack).epsilon
    checks = []
    if hasattr(attack, "steps"):
        one_step = FGSM(epsilon, attack.eight_bit)(model, images, labels).success_rate
        found = f"{base.success_rate:.0%} >= {one_step:.0%}"
        checks.append(Check("Many steps do at least what one does", found, base.success_rate >= one_step))
    wider = [min(1.0, factor * epsilon) for factor in (1, 2, 4)]
    rates = [run(epsilon=e).success_rate for e in wider]
    grows = all(b >= a for a, b in zip(rates, rates[1:], strict=False))
    checks.append(Check("A larger epsilon never does less", ", ".join(f"{r:.0%}" for r in rates), grows))
    if hasattr(attack, "steps"):
        # without a bound the steps must be able to cross the whole range
        changes = {"epsilon": 1.0} | ({"step": 0.05, "steps": max(40, attack.steps)} if _has_step(attack) else {})
        unbounded = run(**changes).success_rate
        checks.append(Check("Without a bound it reaches 100 %", f"{unbounded:.0%}", unbounded == 1))
    return checks


def _has_step(attack: Attack) -> bool:
    return "step" in getattr(attack, "__dataclass_fields__", {})


def _no_gain(name: str, before: float, after: float) -> Check:
    return Check(name, f"{before:.0%}, then {after:.0%}", after <= before + SLACK)


def _flipped(model: nn.Module, images: Tensor, base: Attacked) -> float:
    """Share of the attackable images that the model gets wrong as they are shown here."""
    with preserved(model):
        answers = torch.cat([checked_logits(model, part.to(device_of(model))) for part in images.split(256)]).argmax(1)
    wrong = answers.to(base.labels.device) != base.labels
    return float(wrong[base.attackable].double().mean())


def _deterministic(model: nn.Module, images: Tensor) -> Check:
    with preserved(model):
        batch = as_float(images[:64]).to(device_of(model))
        same = torch.equal(checked_logits(model, batch), checked_logits(model, batch))
    return Check("The model answers twice the same", "yes" if same else "no", same)


def _not_probabilities(model: nn.Module, images: Tensor) -> Check:
    """A softmax at the end of the model flattens the gradient of the cross-entropy."""
    with preserved(model):
        outputs = checked_logits(model, as_float(images[:64]).to(device_of(model)))
    sums = outputs.sum(dim=1)
    probabilities = bool((outputs >= 0).all()) and bool(((sums - 1).abs() < 1e-3).all())
    return Check("The model gives logits, not probabilities", "no" if probabilities else "yes", not probabilities)


def _gradients_there(model: nn.Module, images: Tensor, labels: Tensor) -> Check:
    """A gradient of exactly 0 gives no direction: the loss is saturated, or the defence hides its gradient."""
    with torch.inference_mode(False), preserved(model):
        batch = as_float(images[:64]).clone().to(device_of(model))
        gradient, _, _ = input_gradient(cross_entropy(model, labels[:64].to(batch.device)), batch)
    dead = float((gradient.flatten(1).abs().amax(dim=1) == 0).double().mean())
    return Check("No image starts with a gradient of 0", f"{dead:.0%} do", dead == 0)
