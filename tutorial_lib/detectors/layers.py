"""Outputs of a network's stages, recorded on the way.

Lee et al., "A simple unified framework for detecting out-of-distribution samples and adversarial attacks", NeurIPS
2018, read a network at its stem and at the end of each of its stages, each map averaged over its positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from tutorial_lib.detectors.forward import listening, positions_averaged, submodules
from tutorial_lib.models import Classifier

POOLING = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)


@contextmanager
def recorded(
    model: nn.Module, names: Sequence[str], keep: Callable[[Tensor], Tensor] = torch.clone
) -> Iterator[dict[str, Tensor]]:
    """A dictionary that every forward pass inside the block fills with the outputs of the named submodules.

    Gradients flow through what is kept. The hooks are gone after the block, also after an exception.

    Args:
        model: any network.
        names: of submodules, as in ``model.named_modules()``.
        keep: what to keep of an output, at the moment when the submodule returns it: an in-place ReLU that follows may
            overwrite it. By default a copy.

    Raises:
        ValueError: a name that is no submodule.

    >>> model = nn.Sequential(nn.Flatten(), nn.ReLU())
    >>> with recorded(model, ["1"]) as outputs:
    ...     _ = model(torch.tensor([[[-1.0, 2.0]]]))
    >>> outputs["1"]
    tensor([[0., 2.]])
    """
    outputs: dict[str, Tensor] = {}

    def hear(name: str, output: Tensor) -> None:
        outputs[name] = keep(output)

    with listening(submodules(model, names), hear):
        yield outputs


def stage_features(model: nn.Module, images: Tensor, names: Sequence[str]) -> list[Tensor]:
    """One tensor (N, D) a named submodule: its output, averaged over positions where it is a map (N, D, H, W)."""
    with recorded(model, names, positions_averaged) as outputs:
        model(images)
        missing = [name for name in names if name not in outputs]
        if missing:
            raise ValueError(f"the forward pass of {type(model).__name__} does not run {', '.join(missing)}")
        return [outputs[name] for name in names]


def stage_names(model: nn.Module, image: Tensor) -> list[str]:
    """Where to read a `Classifier`: its stem, the end of each stage, the hidden layers after them.

    A stage is a run of layers that work at one resolution; it ends before the pooling or the block that changes the
    resolution. This gives Lee et al.'s places: five for a ResNet-18 (stem and four stages), four for a DenseNet of
    three blocks, and the two convolutions and two hidden layers of a LeNet.

    Args:
        model: a `Classifier` whose backbone is a ``nn.Sequential``, as `tutorial_lib.models.build` makes them.
        image: one image (1, C, H, W), to see the resolutions.

    Returns:
        names for `recorded`, first to last.

    >>> from tutorial_lib.models import build
    >>> stage_names(build("resnet18", 10, (3, 32, 32)), torch.zeros(1, 3, 32, 32))
    ['backbone.2', 'backbone.4', 'backbone.6', 'backbone.8', 'backbone.10']
    """
    if not isinstance(model, Classifier) or not isinstance(model.backbone, nn.Sequential):
        raise TypeError(
            f"the stages of a {type(model).__name__} are not known; name the submodules to read with layers=[...], "
            "see model.named_modules()"
        )
    children = list(model.backbone.named_children())
    with recorded(model.backbone, [name for name, _ in children]) as outputs:
        model(image)
    blocks = [i for i, (_, child) in enumerate(children) if any(True for _ in child.children())]
    chosen = {blocks[0] - 1} if blocks and blocks[0] else set()
    last_at: dict[tuple[int, ...], int] = {}
    for i, (name, child) in enumerate(children):
        if outputs[name].ndim > 2 and not isinstance(child, POOLING):
            last_at[tuple(outputs[name].shape[2:])] = i
        elif outputs[name].ndim == 2 and isinstance(child, nn.ReLU):
            chosen.add(i)
    return [f"backbone.{children[i][0]}" for i in sorted(chosen | set(last_at.values()))]
