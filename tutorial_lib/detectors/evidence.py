"""What a network says of an image, and looking at it once for many detectors.

A detector does not look at images but at quantities: logits, penultimate features, norms. It says which
(`Detector.needs`); `observe` goes through the network once and brings all of them, for one detector or for many:

>>> from tutorial_lib.detectors import MSP, Energy
>>> from tutorial_lib.models import build
>>> model, images = build("lenet", num_classes=3, image_shape=(1, 8, 8)), torch.rand(5, 1, 8, 8)
>>> detectors = [Energy(model), MSP(model)]
>>> seen = observe(model, images, *detectors)
>>> [detector.predict_from(seen).shape for detector in detectors]
[(5,), (5,)]

Whoever has the numbers already needs neither model nor images:

>>> Energy().predict_from(logits=torch.zeros(2, 2)).round(3)
array([-0.693, -0.693])
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from tutorial_lib.data.images import as_float, check_images
from tutorial_lib.detectors.forward import Wanted, one_pass
from tutorial_lib.gradients import squared_norms
from tutorial_lib.gradients.losses import Loss
from tutorial_lib.gradients.targets import Label
from tutorial_lib.models.inputs import Batch, Images, batches, dtype_of, logits_of
from tutorial_lib.models.predict import channels_of, device_of, penultimate, preserved

__all__ = [
    "FEATURES",
    "IMAGES",
    "LOGITS",
    "ActivationNorms",
    "BackpropNorms",
    "Evidence",
    "GradientNorms",
    "Quantity",
    "Stage",
    "SteppedLogits",
    "log_squared_norms",
    "observe",
    "step_down",
]

TINY = 1e-60
"""Squared norms of exactly 0 count as this. float64 holds 1e-300, but one dead column should not look like 700
others."""


@dataclass(frozen=True)
class Quantity:
    """One number or row of numbers for each image. Equal quantities are looked at once."""

    @property
    def name(self) -> str:
        """What errors and keyword arguments call it."""
        return type(self).__name__

    @property
    def costly(self) -> bool:
        """Does it take more than a forward pass, so that keeping it is worth while?"""
        return False

    def of(self, model: nn.Module, images: Tensor) -> Tensor:
        """(N, ...) for images as the model takes them; the model is guarded and gradients are off."""
        raise NotImplementedError


@dataclass(frozen=True)
class _Plain(Quantity):
    kind: str

    @property
    def name(self) -> str:
        return self.kind

    def of(self, model: nn.Module, images: Tensor) -> Tensor:
        if self == LOGITS:
            return logits_of(model(images), len(images), model)
        return penultimate(model, images) if self == FEATURES else images


IMAGES = _Plain("images")
"""The images themselves (N, C, H, W), for what nothing less will do."""

LOGITS = _Plain("logits")
"""(N, K), K at least 2."""

FEATURES = _Plain("features")
"""Penultimate features (N, D): what the last layer gets."""


@dataclass(frozen=True)
class Stage(Quantity):
    """Output (N, D) of the submodule ``layer``, averaged over positions where it is a map (N, D, H, W)."""

    layer: str

    @property
    def name(self) -> str:
        return f"stage {self.layer}"


@dataclass(frozen=True)
class ActivationNorms(Quantity):
    """Natural log of the squared L2 norm of every parametric layer's output, float64 (N, L). One forward pass."""

    @property
    def name(self) -> str:
        return "activation_norms"


@dataclass(frozen=True)
class BackpropNorms(Quantity):
    r"""Natural log of the squared norm of the signal :math:`\delta` that arrives at every convolution's and linear
    layer's output, float64 (N, L): the backpropagated gradient of the loss, not yet multiplied by the layer's input.

    For a linear layer the gradient norm is :math:`\lVert \delta \rVert^2 \lVert a \rVert^2`; here is its first factor.
    """

    label: Label = "uniform"
    loss: Loss = "ce"

    @property
    def name(self) -> str:
        return "backprop_norms"

    @property
    def costly(self) -> bool:
        return True


@dataclass(frozen=True)
class GradientNorms(Quantity):
    """Natural log of the squared gradient norm for every parameter tensor, float64 (N, P): `log_squared_norms`."""

    label: Label = "ones"
    loss: Loss = "bce"

    @property
    def name(self) -> str:
        return "gradient_norms"

    @property
    def costly(self) -> bool:
        return True

    def of(self, model: nn.Module, images: Tensor) -> Tensor:
        return log_squared_norms(model, images, self.label, self.loss)

    def with_logits(self, model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """The same, and the logits of the same forward pass; None where the network returns something else besides."""
        parts: list[tuple[slice, Tensor]] = []
        alone = True

        def heard(outputs: tuple[Tensor, ...], samples: slice) -> None:
            nonlocal alone
            alone = alone and len(outputs) == 1
            parts.append((samples, outputs[0]))

        norms, _ = squared_norms(model, images, self.label, self.loss, outputs=heard)
        logits = None
        if alone:
            first = parts[0][1]
            logits = first.new_empty(len(images), *first.shape[1:])
            for samples, part in parts:
                logits[samples] = part
            logits = logits_of(logits, len(images), model)
        return _log(norms), logits


@dataclass(frozen=True)
class SteppedLogits(Quantity):
    """Logits (N, K) after a step of the input towards confidence, as in `ODIN`."""

    temperature: float
    epsilon: float

    @property
    def name(self) -> str:
        return "stepped_logits"

    def of(self, model: nn.Module, images: Tensor) -> Tensor:
        def cross_entropy(images: Tensor) -> Tensor:
            logits = logits_of(model(images), len(images), model) / self.temperature
            return torch.nn.functional.cross_entropy(logits, logits.argmax(dim=1), reduction="none")

        stepped = step_down(cross_entropy, images, self.epsilon)
        return logits_of(model(stepped), len(images), model)


@dataclass(frozen=True, eq=False)
class Computed(Quantity):
    """What a detector computes from images itself, once it has learned enough to do so; equal to itself only."""

    function: Callable[[Tensor], Tensor]

    @property
    def name(self) -> str:
        return f"columns of a {type(getattr(self.function, '__self__', self)).__name__}"

    def of(self, model: nn.Module, images: Tensor) -> Tensor:
        return self.function(images)


def log_squared_norms(model: nn.Module, images: Tensor, label: Label = "ones", loss: Loss = "bce") -> Tensor:
    """Natural log of each image's squared gradient norm for each parameter tensor, float64 (N, P).

    The features of Lee & AlRegib, "Open-set recognition with gradient-based representations", ICIP 2021, and of Lee et
    al., "Probing the purview of neural networks via gradient analysis", IEEE Access 2023; see `squared_norms`.
    """
    return _log(squared_norms(model, images, label, loss)[0])


def _log(squares: Tensor) -> Tensor:
    return squares.clamp(min=TINY).log()


def step_down(loss: Callable[[Tensor], Tensor], images: Tensor, epsilon: float) -> Tensor:
    """Images a step of ``epsilon`` against the sign of their loss's gradient; ``loss`` maps images to one number each.

    The model's parameters get no gradient. Pixels may leave [0, 1] by ``epsilon``, as in the papers. A step of 0 costs
    nothing.
    """
    if not epsilon:
        return images
    with torch.enable_grad():
        images = images.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(images).sum(), images)
    return images.detach() - epsilon * gradient.sign()


@dataclass(frozen=True, eq=False)
class Evidence:
    """Quantities of the same N images, with their labels and where they come from if that is known."""

    values: dict[Quantity, Tensor]
    labels: Tensor | None = None
    names: tuple[str, ...] = ()
    shape: tuple[int, ...] | None = None
    """(C, H, W) of the images, None where there were none."""
    count: int = field(default=0)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, quantity: Quantity) -> Tensor:
        return self.values[quantity]

    def __contains__(self, quantity: Quantity) -> bool:
        return quantity in self.values

    def subset(self, index: Tensor | slice) -> Self:
        """The chosen images: indices, or one boolean for each."""
        values = {quantity: value[index] for quantity, value in self.values.items()}
        labels = None if self.labels is None else self.labels[index]
        count = len(torch.arange(self.count)[index])
        return type(self)(values, labels, self.names, self.shape, count)

    def known(self) -> Self:
        """Without what has a label below 0, pytorch-ood's mark of unknown images."""
        if self.labels is None or not bool((self.labels < 0).any()):
            return self
        return self.subset(self.labels >= 0)

    def parts(self, size: int) -> Iterator[Self]:
        for start in range(0, self.count, size):
            yield self.subset(slice(start, start + size))

    @classmethod
    def together(cls, parts: Iterable[Evidence]) -> Self:
        """Evidence of several sets of images, one after the other."""
        all_parts = list(parts)
        if not all_parts:
            raise ValueError("there is nothing to put together")
        shapes = {part.shape for part in all_parts}
        if len(shapes) > 1:
            raise ValueError(f"images of one set must have one size, got {' and '.join(sorted(map(str, shapes)))}")
        values = {}
        for quantity in all_parts[0].values:
            pieces = [part.values[quantity] for part in all_parts]
            if len({piece.dtype for piece in pieces}) > 1:  # cat would read uint8's 255 as 255.0
                pieces = [as_float(piece) for piece in pieces]
            values[quantity] = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
        labels = [part.labels for part in all_parts if part.labels is not None]
        names = tuple(dict.fromkeys(name for part in all_parts for name in part.names))
        count = sum(part.count for part in all_parts)
        return cls(
            values, torch.cat(labels) if len(labels) == len(all_parts) else None, names, all_parts[0].shape, count
        )


class Needy(Protocol):
    """Whatever says what it looks at; every detector does."""

    def needs(self) -> tuple[Quantity, ...]: ...


def observe(model: nn.Module, images: Images, *what: Quantity | Needy, batch_size: int = 256) -> Evidence:
    """Everything that the given detectors look at, or the given quantities, in one go through the images.

    One forward pass brings logits, features, stages and activation norms together; each label of a backward pass costs
    one more. Images come as `Images` describes them, a loader is read once and its images are not kept.

    Args:
        model: that the detectors look at.
        images: N images, ``uint8`` or float in [0, 1].
        what: detectors, for what their ``predict_from`` needs, or quantities such as `LOGITS`.
        batch_size: images in one pass; does not change the result.

    Returns:
        `Evidence` on the CPU.
    """
    needs = tuple(dict.fromkeys(q for one in what for q in ((one,) if isinstance(one, Quantity) else one.needs())))
    return observed(model, images, needs, batch_size)


def observed(
    model: nn.Module, images: Images, needs: Sequence[Quantity], batch_size: int, name: str = "images"
) -> Evidence:
    """`observe` for quantities alone; ``name`` is what an error calls the images."""
    with guarded(model):
        return Evidence.together(
            on_cpu(look(model, batch, needs), batch) for batch in batches(images, name, batch_size)
        )


class guarded:
    """Evaluation mode and no gradients inside the block, even in a caller's inference mode; then all as before."""

    def __init__(self, model: nn.Module) -> None:
        self._contexts = (torch.inference_mode(False), preserved(model), torch.no_grad())

    def __enter__(self) -> None:
        for context in self._contexts:
            context.__enter__()

    def __exit__(self, *exception: Any) -> None:
        for context in reversed(self._contexts):
            context.__exit__(*exception)


def as_input(model: nn.Module, images: Tensor) -> Tensor:
    """Images as the model takes them: floating point, on its device, a copy (gradients need one in inference mode)."""
    return as_float(images, dtype_of(model)).to(device_of(model)).clone()


def look(model: nn.Module, batch: Batch, needs: Sequence[Quantity]) -> Evidence:
    """What is needed of one batch, on the model's device; `IMAGES` as the model takes them. Inside `guarded`."""
    check_images(batch.images, channels_of(model))
    images = as_input(model, batch.images)
    found: dict[Quantity, Tensor] = {}
    together: list[Quantity] = [
        q for q in needs if q in (LOGITS, FEATURES) or isinstance(q, Stage | ActivationNorms | BackpropNorms)
    ]
    gradient = next((q for q in needs if isinstance(q, GradientNorms)), None)
    if gradient is not None and together == [LOGITS]:  # its forward pass has them
        found[gradient], logits = gradient.with_logits(model, images)
        if logits is not None:
            found[LOGITS], together = logits, []
    if together and together != [FEATURES]:  # features alone need no head
        wanted = Wanted(
            features=FEATURES in together,
            stages=[q.layer for q in together if isinstance(q, Stage)],
            activations=any(isinstance(q, ActivationNorms) for q in together),
            backprops=[(q.label, q.loss) for q in together if isinstance(q, BackpropNorms)],
        )
        answer = one_pass(model, images, wanted)
        for q in together:
            if isinstance(q, Stage):
                found[q] = answer.stages[q.layer]
            elif isinstance(q, ActivationNorms):
                found[q] = answer.activations
            elif isinstance(q, BackpropNorms):
                found[q] = answer.backprops[q.label, q.loss]
            else:
                found[q] = answer.logits if q == LOGITS else answer.features
    for q in needs:
        if q not in found:
            found[q] = q.of(model, images)
    labels = None if batch.labels is None else batch.labels
    return Evidence(found, labels, (batch.name,), tuple(images.shape[1:]), len(images))


def on_cpu(seen: Evidence, batch: Batch) -> Evidence:
    """The same, to be kept: on the CPU, images as they came."""
    values = {q: (batch.images if q == IMAGES else value).detach().cpu() for q, value in seen.values.items()}
    return Evidence(values, seen.labels, seen.names, seen.shape, seen.count)
