"""One forward pass, and what can be heard on the way: features, stages, norms of activations and of what comes back.

Hooks listen to their own thread alone and are gone after the pass, also after an exception.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from tutorial_lib.gradients.losses import Loss, logit_gradient
from tutorial_lib.gradients.targets import Label, target
from tutorial_lib.models.inputs import logits_of
from tutorial_lib.models.predict import penultimate

SILENT = 1e-30
"""Squared norms of activations below this count as this."""

_LAYERS: WeakKeyDictionary[nn.Module, dict[tuple[int, ...], list[str]]] = WeakKeyDictionary()


@dataclass
class Wanted:
    """What to listen for; the logits come anyway."""

    features: bool = False
    stages: Sequence[str] = ()
    activations: bool = False
    backprops: Sequence[tuple[Label, Loss]] = ()


@dataclass
class Heard:
    """The answers of N images."""

    logits: Tensor
    features: Tensor
    stages: dict[str, Tensor] = field(default_factory=dict)
    activations: Tensor = field(default_factory=lambda: torch.empty(0))
    backprops: dict[tuple[Label, Loss], Tensor] = field(default_factory=dict)


@contextmanager
def listening(modules: dict[str, nn.Module], hear: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Calls ``hear(name, output)`` whenever a module returns, in this thread, inside the block."""
    thread = threading.get_ident()

    def hook_for(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
            if threading.get_ident() == thread:
                hear(name, output[0] if isinstance(output, tuple) else output)

        return hook

    handles = [module.register_forward_hook(hook_for(name)) for name, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def submodules(model: nn.Module, names: Sequence[str]) -> dict[str, nn.Module]:
    """Submodules by name, or an error that names the missing one."""
    modules = dict(model.named_modules())
    for name in names:
        if name not in modules:
            raise ValueError(f"{type(model).__name__} has no submodule {name!r}; see model.named_modules()")
    return {name: modules[name] for name in names}


def one_pass(model: nn.Module, images: Tensor, wanted: Wanted) -> Heard:
    """One forward pass of images as the model takes them, and one backward pass for each entry of ``backprops``."""
    stages: dict[str, Tensor] = {}
    norms: dict[str, Tensor] = {}
    edges: dict[str, list[GradientEdge]] = {}
    head_inputs: list[Tensor] = []

    def hear_stage(name: str, output: Tensor) -> None:
        stages[name] = positions_averaged(output)

    def hear_layer(name: str, output: Tensor) -> None:
        norms[name] = norms.get(name, 0) + squared_norm(output.detach(), len(images))
        if name in weighty and output.requires_grad:  # now, since an in-place ReLU may follow
            edges.setdefault(name, []).append(get_gradient_edge(output))

    head = getattr(model, "head", None)
    listen_to_head = wanted.features and isinstance(head, nn.Module) and callable(getattr(model, "features", None))
    layers = parametric_layers(model, images) if wanted.activations or wanted.backprops else []
    weighty = {name for name in layers if wanted.backprops and _has_weights(model.get_submodule(name))}
    with ExitStack() as stack:
        stack.enter_context(listening(submodules(model, wanted.stages), hear_stage))
        stack.enter_context(listening(submodules(model, layers), hear_layer))
        if listen_to_head:
            thread = threading.get_ident()

            def hear_input(module: nn.Module, arguments: tuple[Any, ...]) -> None:
                if threading.get_ident() == thread:
                    head_inputs.append(arguments[0])

            stack.callback(head.register_forward_pre_hook(hear_input).remove)  # type: ignore[union-attr]
        if wanted.backprops:
            stack.enter_context(torch.enable_grad())
            images = images.detach().requires_grad_()  # so that gradients flow whatever is frozen
        logits = logits_of(model(images), len(images), model)

    missing = [name for name in wanted.stages if name not in stages]
    if missing:
        raise ValueError(f"the forward pass of {type(model).__name__} does not run {', '.join(missing)}")
    backprops = {(label, loss): _backprop_norms(logits, edges, label, loss) for label, loss in wanted.backprops}
    if len(head_inputs) == 1 and head_inputs[0].ndim == 2:
        features = head_inputs[0].detach()
    else:
        features = penultimate(model, images.detach()) if wanted.features else torch.empty(0)
    activations = torch.empty(0)
    if wanted.activations:
        activations = torch.stack([norms[name] for name in layers], dim=1).clamp(min=SILENT).log()
    return Heard(logits.detach(), features, stages, activations, backprops)


def _backprop_norms(logits: Tensor, edges: dict[str, list[GradientEdge]], label: Label, loss: Loss) -> Tensor:
    """Log squared norms (N, L) of the loss's gradient at the recorded outputs.

    The backward pass starts from a gradient of largest entry 1; its true size is put back in float64, so that a confident
    answer's does not drown.
    """
    if not isinstance(loss, str):
        raise TypeError(f"loss must be a name, 'ce' or 'bce', got {type(loss).__name__}")
    z = logits.detach().double()
    start = logit_gradient(z, target(label, z, z, slice(0, len(z))), loss)
    size = start.abs().amax(dim=1, keepdim=True).clamp(min=1e-300)
    every = [edge for layer in edges.values() for edge in layer]
    gradients = iter(
        torch.autograd.grad(
            logits, every, (start / size).to(logits.dtype), retain_graph=True, allow_unused=True, materialize_grads=True
        )
    )
    columns = []
    for layer in edges.values():
        columns.append(sum(squared_norm(next(gradients), len(z)) for _ in layer))
    return torch.stack(columns, dim=1).clamp(min=1e-60).log() + 2 * size.log()  # type: ignore[arg-type]


def parametric_layers(model: nn.Module, images: Tensor) -> list[str]:
    """Names of the layers that have parameters of their own, run, and return one part for each image.

    Which they are is found out once for each model and shape, with two images and with three: an output whose first axis
    grows in step counts images there. What counts something else (the queries of a decoder) has no norm of one image.
    """
    key = tuple(images.shape[1:])
    known = _LAYERS.setdefault(model, {})
    if key not in known:
        names = [name for name, module in model.named_modules() if any(True for _ in module.parameters(recurse=False))]
        lengths: list[dict[str, set[int]]] = []
        for count in (2, 3):
            met: dict[str, set[int]] = {}

            def hear(name: str, output: Any, met: dict[str, set[int]] = met, count: int = count) -> None:
                whole = isinstance(output, Tensor) and output.ndim > 0 and len(output) % count == 0
                met.setdefault(name, set()).add(len(output) // count if whole else -count)

            with torch.no_grad(), listening(submodules(model, names), hear):
                model(images[:1].detach().expand(count, *key).clone())
            lengths.append(met)
        known[key] = [name for name in names if name in lengths[0] and lengths[0][name] == lengths[1].get(name)]
        if not known[key]:
            raise ValueError(f"{type(model).__name__} runs no layer with parameters that returns a part for each image")
    return known[key]


def _has_weights(layer: nn.Module) -> bool:
    """Is it a convolution or a linear layer, and not a normalisation?"""
    return any(parameter.dim() > 1 for parameter in layer.parameters(recurse=False))


def squared_norm(output: Tensor, count: int) -> Tensor:
    """Squared L2 norm of each of ``count`` images' part of an output, float64 (N,)."""
    return output.double().reshape(count, -1).square().sum(dim=1)


def positions_averaged(output: Tensor) -> Tensor:
    """Maps (N, D, H, W) to their means (N, D); vectors (N, D) to a copy."""
    return output.flatten(2).mean(dim=2) if output.ndim > 2 else output.clone()
