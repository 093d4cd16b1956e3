"""What detectors look at, looked at once for all cells that ask the same of the same images.

Most detectors of a comparison differ only in what they do with the same logits, features or norms. Those are kept in the
content-addressed cache of `tutorial_lib.runs.cache`, for one network, one set of images and one quantity. Images
themselves are not, nor is what only one detector computes.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import CodeType, FunctionType, MethodType

import numpy as np
import torch
from torch import nn

from tutorial_lib.data.images import ImageSet
from tutorial_lib.detectors import evidence, forward
from tutorial_lib.detectors.evidence import (
    FEATURES,
    LOGITS,
    ActivationNorms,
    BackpropNorms,
    Evidence,
    GradientNorms,
    Quantity,
    Stage,
    SteppedLogits,
    observed,
)
from tutorial_lib.introspection import Augment, View, views_of
from tutorial_lib.models.inputs import dtype_of
from tutorial_lib.runs.cache import cached_arrays

__all__ = ["cached_observation", "cached_views", "model_digest"]

BATCH = 256


def cached_observation(model: nn.Module, images: ImageSet | torch.Tensor, needs: Sequence[Quantity]) -> Evidence:
    """`tutorial_lib.detectors.observe`, with what can be kept from the cache.

    Args:
        model: a file of the cache belongs to its weights, modules and settings, not to its name.
        images: a file belongs to their pixels.
        needs: quantities. Images are handed through; those of a label or a loss that is not a name are measured anew.
    """
    kept = [quantity for quantity in needs if _can_be_kept(quantity)]
    seen = observed(model, images, [quantity for quantity in needs if quantity not in kept], BATCH)
    if not kept:
        return seen
    pixels = images.images if isinstance(images, ImageSet) else images
    belongs = {"images": _digest(pixels), "model": model_digest(model), "source": _source()}
    together = _Together(model, images, kept)
    for quantity in kept:
        kind = quantity.name.replace(" ", "_")
        found = cached_arrays(
            kind, {"quantity": repr(quantity), **belongs}, functools.partial(together.bring, quantity)
        )
        seen.values[quantity] = torch.from_numpy(found["values"])
    return seen


def cached_views(
    model: nn.Module, images: torch.Tensor, augment: Augment | None = None, count: int = 1, seed: int = 0
) -> list[View]:
    """`tutorial_lib.introspection.views_of`, from the cache: many second networks look at the same views."""

    def seen(images: torch.Tensor) -> View:
        found = cached_observation(model, images, (LOGITS, FEATURES))
        return View(found[LOGITS].float(), found[FEATURES].float())

    return views_of(model, images, augment, count, seed, shown=seen)


class _Together:
    """Quantities of the same images. The first that the cache lacks brings along all that a forward pass has."""

    def __init__(self, model: nn.Module, images: ImageSet | torch.Tensor, kept: Sequence[Quantity]) -> None:
        self.model, self.images = model, images
        self.forward = [quantity for quantity in kept if not _takes_a_backward_pass(quantity)]
        self.found: dict[Quantity, torch.Tensor] = {}

    def bring(self, quantity: Quantity) -> Mapping[str, np.ndarray]:
        if quantity not in self.found:
            self.found.update(
                _measured(self.model, self.images, self.forward if quantity in self.forward else [quantity])
            )
        return {"values": self.found[quantity].numpy()}


def _can_be_kept(quantity: Quantity) -> bool:
    if isinstance(quantity, GradientNorms | BackpropNorms):
        return isinstance(quantity.label, str) and isinstance(quantity.loss, str)
    return quantity in (LOGITS, FEATURES) or isinstance(quantity, Stage | ActivationNorms | SteppedLogits)


def _takes_a_backward_pass(quantity: Quantity) -> bool:
    return quantity.costly or isinstance(quantity, SteppedLogits)


def _measured(
    model: nn.Module, images: ImageSet | torch.Tensor, quantities: Sequence[Quantity]
) -> dict[Quantity, torch.Tensor]:
    return observed(model, images, quantities, BATCH).values


def _digest(images: torch.Tensor) -> str:
    content = hashlib.sha256(f"{images.dtype}{tuple(images.shape)}".encode())
    content.update(images.contiguous().cpu().numpy().data)
    return content.hexdigest()


def model_digest(model: nn.Module) -> str:
    """A hash of what a model answers by: weights and buffers, the kinds of its modules, and their settings.

    Weights alone would not do. The same network behind a denoiser, with another activation or at another temperature has
    the same ones.
    """
    content = hashlib.sha256(str(dtype_of(model)).encode())
    for name, value in model.state_dict().items():
        content.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    for name, module in model.named_modules():
        settings = {key: value for key, value in vars(module).items() if key not in _OF_EVERY_MODULE}
        hooks = [list(vars(module)[key].values()) for key in ("_forward_pre_hooks", "_forward_hooks")]
        content.update(f"{name}: {_kind(module)} {_said([type(module).forward, settings, hooks])}".encode())
    return content.hexdigest()


_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
"""What torch keeps in a module; parameters, buffers and submodules are looked at by themselves."""


def _kind(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _said(value: object, inside: tuple[int, ...] = ()) -> str:
    """A value in words that are the same in another process."""
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | torch.dtype | torch.device):
        return repr(value)
    if id(value) in inside:
        return "itself"
    inside = (*inside, id(value))
    if isinstance(value, torch.Tensor):
        return _digest(value.detach())
    if isinstance(value, np.ndarray):
        return hashlib.sha256(f"{value.dtype}{value.shape}".encode() + value.tobytes()).hexdigest()
    if isinstance(value, nn.Module):
        return _kind(value)  # its own turn comes
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_said(k, inside)}: {_said(v, inside)}' for k, v in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_said(v, inside) for v in value)}]"
    if isinstance(value, set | frozenset):
        return f"{{{', '.join(sorted(_said(v, inside) for v in value))}}}"
    if isinstance(value, functools.partial):
        return f"partial({_said([value.func, value.args, value.keywords], inside)})"
    if isinstance(value, MethodType):
        return f"{_said(value.__func__, inside)} of {_said(value.__self__, inside)}"
    if isinstance(value, FunctionType):  # two of one name, lambdas say, differ in code or in what they hold
        held = [cell.cell_contents for cell in value.__closure__ or ()]
        parts = [_code(value.__code__), held, value.__defaults__, value.__kwdefaults__]
        return f"{value.__module__}.{value.__qualname__} {_said(parts, inside)}"
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    return f"{_kind(value)} {_said(getattr(value, '__dict__', {}), inside)}"


def _code(code: CodeType) -> list[object]:
    """What a function's code does: its instructions, and the names and constants that they mean."""
    constants = [_code(constant) if isinstance(constant, CodeType) else constant for constant in code.co_consts]
    return [code.co_code, list(code.co_names), constants]


@functools.cache
def _source() -> str:
    """Hash of the modules that measure; the cache's own hash stops below them."""
    files = (Path(str(module.__file__)) for module in (evidence, forward))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
