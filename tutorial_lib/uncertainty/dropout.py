"""Monte-Carlo dropout: keep dropping units at test time, and see how much the answer moves.

Gal & Ghahramani, "Dropout as a Bayesian Approximation: Representing Model Uncertainty in Deep Learning", ICML 2016.
Each pass is one network with some units removed; T passes are an ensemble of T networks that share their weights.

A pass here draws one mask for all images: one thinned network answers all of them, like a member of an ensemble. So the
answer for an image does not depend on the images beside it, and, for one seed, not on the batch size. For one image the
distribution over passes is the same as with a mask of its own. A layer that a forward pass uses twice gets two masks,
as in training.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.overrides import TorchFunctionMode

from tutorial_lib.data.images import as_float, check_images
from tutorial_lib.models.base import Classifier
from tutorial_lib.models.predict import channels_of, device_of, logits_in_batches, predict_features, preserved

_PLAIN = ("dropout", "dropout_")
_CHANNELS = ("dropout1d", "dropout2d", "dropout3d", "feature_dropout")
_UNKNOWN = ("alpha_dropout", "feature_alpha_dropout", "alpha_dropout_", "feature_alpha_dropout_")
_ATTENTION = "multi_head_attention_forward"
_INSIDE_A_KERNEL = "scaled_dot_product_attention"


class DropoutBeforeHead(nn.Module):
    """A classifier with dropout between its penultimate features and its last layer.

    The weights are shared with the classifier, not copied. Train it, or use it on a network that was trained without
    dropout; the second is cheap and has no Bayesian reading, so say so when you report it.

    Args:
        model: has ``features`` (images to (N, D)) and ``head`` (a linear layer), see
            ``tutorial_lib.models.Classifier``.
        p: share of the features dropped, in (0, 1).
    """

    def __init__(self, model: Classifier, p: float = 0.3) -> None:
        super().__init__()
        if not (hasattr(model, "features") and hasattr(model, "head")):
            raise TypeError(f"{type(model).__name__} has no features and head; use a tutorial_lib.models.Classifier")
        if not 0 < p < 1:
            raise ValueError(f"p must be between 0 and 1, got {p}")
        self.model = model
        self.dropout = nn.Dropout(p)
        self.training = self.dropout.training = model.training  # and its parts as they are

    def features(self, images: Tensor) -> Tensor:
        """Penultimate features (N, D), dropout applied in training mode."""
        return self.dropout(self.model.features(images))

    def forward(self, images: Tensor) -> Tensor:
        return self.model.head(self.features(images))


def mc_dropout_probabilities(
    model: nn.Module, images: Tensor, passes: int = 50, seed: int = 0, batch_size: int = 512
) -> Tensor:
    """Softmax outputs of ``passes`` thinned networks.

    Only dropout is active: the layers `torch.nn.Dropout` and its channel-wise relatives, ``F.dropout`` called in a
    forward pass, and the attention weights of `torch.nn.MultiheadAttention`. Batch normalisation keeps its running
    statistics, otherwise the answer for an image would depend on its batch. The model, its mode and torch's random
    state are left as they were found.

    Args:
        model: classifier, images (N, C, H, W) in [0, 1] to logits (N, K), with dropout somewhere.
        images: (N, C, H, W), ``uint8`` or float in [0, 1].
        passes: T >= 2.
        seed: of the masks; the same masks on every device.
        batch_size: images in one forward pass; does not change the result.

    Returns:
        Probabilities (T, N, K), float64 on the CPU, ready for ``decompose_classification``.

    Raises:
        ValueError: no dropout, or p = 0 everywhere, or fewer than two passes.
        TypeError: a kind of dropout that this function cannot sample: alpha dropout, dropout between the layers of a
            recurrent network, or inside a fused attention kernel.
    """
    if passes < 2:
        raise ValueError(f"passes must be 2 or more to disagree, got {passes}")
    if len(images) == 0:
        raise ValueError("there are no images")
    check_images(images, channels_of(model))
    if isinstance(model, DropoutBeforeHead) and _certainly_without_dropout(model.model):
        # what lies before the only dropout is the same in every pass
        images = predict_features(model.model, images, batch_size)
        model = nn.Sequential(model.dropout, model.model.head)
    _check_kinds(model)
    with preserved(model):
        uses = _uses(model, images) if _asks_its_mode(model) else None
        try:
            answers = _passes(model, images, passes, seed, batch_size, uses)
        except _Unclear:
            answers = _passes(model, images, passes, seed, batch_size, _uses(model, images))
    return torch.stack(answers).double().softmax(-1)


def _passes(
    model: nn.Module, images: Tensor, passes: int, seed: int, batch_size: int, uses: list[_Use] | None
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    answers = []
    for _ in range(passes):
        with _thinned(model, uses, generator) as masks:
            answers.append(logits_in_batches(model, images.split(batch_size)))
        if not masks.masks:
            raise ValueError(
                "the model has no dropout to sample from; wrap it in DropoutBeforeHead, or train one with nn.Dropout"
            )
    return answers


class _Unclear(Exception):
    """A forward pass alone does not say which axis counts images, or what happens in training mode."""


@dataclass
class _Use:
    """One call of dropout in a forward pass.

    Attributes:
        p: share dropped.
        active: does it drop in training mode?
        shape: of what it was given in a forward pass of `_PROBES`[0] images.
        axis: which axis counts images; None if none does.
        rows: entries of that axis for one image, more than one where images are folded together with something else.
    """

    p: float
    active: bool
    shape: tuple[int, ...]
    axis: int | None = None
    rows: int = 1

    def find_axis(self, other: _Use) -> None:
        """Compare with the same use in a forward pass of `_PROBES`[1] images."""
        few, many = _PROBES
        differ = [i for i, (a, b) in enumerate(zip(self.shape, other.shape, strict=True)) if a != b]
        if len(differ) > 1 or any(self.shape[i] * many != other.shape[i] * few or self.shape[i] % few for i in differ):
            raise ValueError(
                f"dropout is given {self.shape} for {few} images and {other.shape} for {many}: "
                "which axis counts the images cannot be told, so they cannot share a mask"
            )
        if differ:
            self.axis, self.rows = differ[0], self.shape[differ[0]] // few


_PROBES = (2, 3)


class _Observer(TorchFunctionMode):
    """Sees every call of dropout inside its block; a subclass may change what it does."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in _UNKNOWN and _dropout_arguments(*args, **kwargs)[1] > 0:
            raise TypeError(f"{name} (AlphaDropout) is not supported; use nn.Dropout or nn.Dropout2d")
        if name in _PLAIN or name in _CHANNELS:
            inputs, p, training, inplace = _dropout_arguments(*args, **kwargs)
            dropped = self.drop(inputs, p, training, inplace or name.endswith("_"), name in _CHANNELS)
            if dropped is not None:
                return dropped
        elif name == _ATTENTION and _attention_dropout(args, kwargs) > 0:
            return self.attend(func, args, kwargs)
        elif name == _INSIDE_A_KERNEL:
            self.fused_attention(args[4] if len(args) > 4 else kwargs.get("dropout_p", 0.0))
        return func(*args, **kwargs)

    def drop(self, inputs: Tensor, p: float, training: bool, inplace: bool, channels: bool) -> Tensor | None:
        """What dropout returns; None for what PyTorch would."""
        raise NotImplementedError

    def fused_attention(self, p: float) -> None:
        """Refuse dropout where no mask can reach it."""
        if p > 0:
            raise TypeError(
                f"{_INSIDE_A_KERNEL} drops attention weights (p = {p}) where no mask can reach them; "
                "use nn.MultiheadAttention, or nn.Dropout on the weights"
            )

    def attend(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Attention whose weights go through `drop`: the path of PyTorch's own function that has them at hand."""
        heads, training, wanted = args[4], kwargs.get("training", True), kwargs.get("need_weights", True)

        def dropout(weights: Tensor, p: float) -> Tensor:  # (N * heads, T, S), image by image
            dropped = self.drop(weights.unflatten(0, (-1, heads)), p, training, inplace=False, channels=False)
            return weights if dropped is None else dropped.flatten(0, 1)

        masked = types.FunctionType(
            func.__code__, func.__globals__ | {"dropout": dropout}, func.__name__, func.__defaults__, func.__closure__
        )
        masked.__kwdefaults__ = func.__kwdefaults__
        # Weights are asked for, or PyTorch would choose the fused kernel; what is causal stands in the attention mask.
        output, weights = masked(*args, **{**kwargs, "training": True, "need_weights": True, "is_causal": False})
        return output, weights if wanted else None


class _Counter(_Observer):
    """Lists the uses of dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.uses: list[_Use] = []

    def drop(self, inputs: Tensor, p: float, training: bool, inplace: bool, channels: bool) -> Tensor | None:
        if p > 0:
            self.uses.append(_Use(p, training, tuple(inputs.shape)))
        return inputs


class _Masks(_Observer):
    """One thinned network: the k-th use of dropout in a forward pass multiplies by the k-th mask.

    Args:
        uses: what `_uses` found; None where axis 0 counts images and every dropout is active, which is checked.
        generator: of the masks.
    """

    def __init__(self, uses: list[_Use] | None, generator: torch.Generator) -> None:
        super().__init__()
        self.uses, self.generator = uses, generator
        self.masks: dict[int, Tensor] = {}
        self.position = self.images = 0

    def restart(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """A forward pass of the whole model begins."""
        self.position, self.images = 0, len(inputs[0])

    def fused_attention(self, p: float) -> None:
        if self.uses is None:
            raise _Unclear  # p is 0 here, in evaluation mode; it may not be in training mode
        super().fused_attention(p)

    def drop(self, inputs: Tensor, p: float, training: bool, inplace: bool, channels: bool) -> Tensor | None:
        if p == 0:
            return inputs
        use, position = self._use(inputs, p), self.position
        self.position += 1
        if not use.active:
            return inputs
        shape = list(inputs.shape)
        if channels:
            shape[2:] = [1] * (len(shape) - 2)
        if use.axis is not None:
            shape[use.axis] = use.rows
        if position not in self.masks:
            kept = torch.rand(shape, generator=self.generator) >= p
            self.masks[position] = kept / (1 - p) if p < 1 else kept.float()  # the mean stays what it was
        mask = self.masks[position].to(inputs)
        if list(mask.shape) != shape:
            raise ValueError(f"dropout was given {tuple(mask.shape)} and then {tuple(shape)}: they cannot share a mask")
        if use.axis is not None and use.rows > 1:
            mask = mask.repeat([self.images if axis == use.axis else 1 for axis in range(mask.dim())])
        return inputs.mul_(mask) if inplace else inputs * mask

    def _use(self, inputs: Tensor, p: float) -> _Use:
        shape = tuple(inputs.shape)
        if self.uses is None:
            if shape.count(self.images) != 1 or shape[0] != self.images:
                raise _Unclear
            return _Use(p, active=True, shape=shape, axis=0)
        if self.position >= len(self.uses):
            raise ValueError("the model drops more often for some images than for others; they cannot share masks")
        return self.uses[self.position]


def _uses(model: nn.Module, images: Tensor) -> list[_Use]:
    """Every use of dropout in a forward pass, from three passes of a few images; the model is left as it was found."""

    def seen(count: int, training: bool) -> list[_Use]:
        one = as_float(images[:1]).to(device_of(model))
        with preserved(model), torch.no_grad(), _Counter() as counter:  # a training pass moves batch norm's statistics
            model.train(training)
            model(one.expand(count, *one.shape[1:]).clone())
        return counter.uses

    few, many = (seen(count, training=False) for count in _PROBES)
    trained = seen(_PROBES[0], training=True)
    if len(few) != len(many):
        raise ValueError("how often the model drops depends on the number of images; they cannot share masks")
    for use, other in zip(few, many, strict=True):
        use.find_axis(other)
    if len(trained) > len(few):
        raise TypeError(
            f"the model uses dropout {len(trained)} times in training mode and {len(few)} times in evaluation mode; "
            "call F.dropout(x, p, self.training), not only `if self.training`, so that the others can be sampled"
        )
    if len(trained) == len(few):  # in evaluation mode all are idle; the training pass tells which are always so
        for use, told in zip(few, trained, strict=True):
            use.active = told.active
    return few


def _asks_its_mode(model: nn.Module) -> bool:
    """May a forward pass in training mode do what one in evaluation mode does not show?

    It may where a module that is not PyTorch's own reads ``self.training``.
    """
    classes = {c for module in model.modules() for c in type(module).__mro__ if issubclass(c, nn.Module)}
    return any(
        "training" in value.__code__.co_names
        for c in classes
        if not c.__module__.startswith("torch.nn.")
        for value in vars(c).values()
        if isinstance(value, types.FunctionType)
    )


def _certainly_without_dropout(model: nn.Module) -> bool:
    known = (nn.MultiheadAttention, nn.RNNBase, nn.AlphaDropout, nn.FeatureAlphaDropout, _DropoutNd)
    return not any(isinstance(m, known) for m in model.modules()) and not _asks_its_mode(model)


def _check_kinds(model: nn.Module) -> None:
    recurrent = [m for m in model.modules() if isinstance(m, nn.RNNBase) and m.dropout > 0]
    if recurrent:
        raise TypeError(f"dropout inside {type(recurrent[0]).__name__} is not supported; use nn.Dropout between layers")


@contextmanager
def _thinned(model: nn.Module, uses: list[_Use] | None, generator: torch.Generator) -> Iterator[_Masks]:
    """One draw of masks, kept for the block."""
    masks = _Masks(uses, generator)
    handle = model.register_forward_pre_hook(masks.restart)
    try:
        with masks:
            yield masks
    finally:
        handle.remove()


def _dropout_arguments(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, *, train: bool | None = None
) -> tuple[Tensor, float, bool, bool]:
    """``F.dropout`` and ``torch.dropout`` alike (the second calls its third argument ``train``)."""
    return input, p, training if train is None else train, inplace


def _attention_dropout(args: Any, kwargs: Any) -> float:
    """The argument ``dropout_p`` of ``F.multi_head_attention_forward``."""
    return float(args[10] if len(args) > 10 else kwargs["dropout_p"])
