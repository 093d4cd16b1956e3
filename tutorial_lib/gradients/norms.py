"""Squared norms of every sample's gradient, one a parameter tensor, for one label or for all classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from tutorial_lib.gradients._engine import per_sample
from tutorial_lib.gradients._network import Network, checked_images
from tutorial_lib.gradients._start import Cotangent, Outputs
from tutorial_lib.gradients.losses import Loss, contrast_gradient, output_gradient
from tutorial_lib.gradients.rules import Materialized, PerSampleGradients
from tutorial_lib.gradients.targets import Label, check_length


def squared_norms(
    model: nn.Module,
    images: Tensor,
    label: Label | None = "ones",
    loss: Loss = "bce",
    *,
    parameters: Sequence[str] | None = None,
    memory_budget: int | None = None,
    outputs: Callable[[Outputs, slice], object] | None = None,
) -> tuple[Tensor, tuple[str, ...]]:
    r"""Squared L2 norm of each sample's loss gradient, for each parameter tensor: the gradient feature of the course.

    .. math:: S_{np} = \Big\| \frac{\partial\, \ell(f(x_n), y_n)}{\partial \theta_p} \Big\|_2^2

    Exact, from one batched forward and one batched backward pass (see `tutorial_lib.gradients`): the same numbers as from each image
    alone, whatever batch it comes in. Where the network does what no batched pass can follow, or lets the samples of a batch meet
    (``x - x.mean(0)``), each image does go through it alone, and a `FallbackWarning` says why. Two things are taken on trust: that the
    network does not compute with the number of images (``x / len(x)``), and that hooks on its tensors are linear in the gradient.

    Which way a feature points, whether a large one means a strange image, depends on the loss, the label and the network: chapter 4
    derives it.

    Args:
        model: any module, in evaluation mode if it has batch normalisation or dropout. Frozen parameters count too.
        images: (N, ...), N >= 1, for the networks of this library (N, C, H, W) in [0, 1]. Moved to the model's device and type.
        label: ``"ones"`` (every class), ``"zeros"``, ``"uniform"``, ``"predicted"``, a class, a tensor, a function of the outputs
            such as ``n_ones(3)``; ``"input"`` for an autoencoder. See `tutorial_lib.gradients.targets.target`.
        loss: ``"bce"`` (with logits), ``"ce"``, ``"mse"``, each *summed* over the K outputs (a mean has norms 1/K² of these), or a
            function (outputs, target) to losses (N,). See `tutorial_lib.gradients.losses`.
        parameters: names of the parameter tensors to look at; all of them if left out.
        memory_budget: bytes of activations to hold at once; larger batches are done in parts. 256 MiB on a CPU, 2 GiB on a GPU.
        outputs: told what the network returned on the way, its output tensors and the slice of the N samples that they are of, for
            whoever wants the answers, too, and not a second forward pass. Parts may come more than once.

    Returns:
        The norms, float64 (N, P) on the images' device, and the names of the P parameter tensors in the model's order.

    Raises:
        ValueError, TypeError: a model without parameters, on batch statistics or with active dropout; images that are empty, of the
            wrong shape or hold NaN; an unknown label or loss; a forward pass that draws random numbers or changes what it computes.

    Lee and AlRegib, "Open-set recognition with gradient-based representations", ICIP 2021; Lee et al., "Probing the purview of
    neural networks via gradient analysis", IEEE Access 2023.

    >>> import torch
    >>> model = nn.Linear(2, 1, bias=False)
    >>> _ = nn.init.zeros_(model.weight)  # logit 0, so dl/dz = s(0) − 1 = −1/2 and the gradient is −x/2
    >>> squared_norms(model, torch.tensor([[2.0, 0.0], [0.0, 6.0]]))
    (tensor([[1.],
            [9.]], dtype=torch.float64), ('weight',))
    """
    network = Network.inspect(model)
    names = network.names(parameters)
    images = checked_images(images, network)
    check_length(label, len(images))
    start = output_gradient(label, loss)

    def heard(found: Outputs, chunk: Tensor, samples: slice) -> Cotangent:
        if outputs is not None:
            outputs(tuple(output.detach() for output in found), samples)
        return start(found, chunk, samples)

    found = per_sample(network, images, names, _squared_norms, heard, memory_budget)
    return (found.values * found.scale.square()).squeeze(1).to(images.device), names


def contrast_squared_norms(
    model: nn.Module,
    images: Tensor,
    loss: Loss = "ce",
    *,
    parameters: Sequence[str] | None = None,
    memory_budget: int | None = None,
) -> Tensor:
    """`squared_norms` for every one-hot label: what would have to change for the image to be each of the C classes.

    One forward pass; then the C backward passes run as one, so that what depends on the input of a layer alone is done once.

    Args:
        model: images to logits (N, C).
        images, loss, parameters, memory_budget: as for `squared_norms`; the loss by name.

    Returns:
        float64 (N, C, P) on the images' device; P follows ``model.named_parameters()``, or ``parameters``.

    >>> import torch
    >>> model = nn.Linear(1, 2, bias=False)
    >>> _ = nn.init.zeros_(model.weight)  # p = (1/2, 1/2): each label's gradient is (±1/2, ∓1/2) x
    >>> contrast_squared_norms(model, torch.tensor([[2.0]])).round(decimals=3)
    tensor([[[2.],
             [2.]]], dtype=torch.float64)
    """
    network = Network.inspect(model)
    names = network.names(parameters)
    images = checked_images(images, network)
    start = contrast_gradient(loss)  # type: ignore[arg-type]  # what is no name is refused there
    found = per_sample(network, images, names, _squared_norms, start, memory_budget, many_labels=True)
    return (found.values * found.scale.square()).to(images.device)


def _squared_norms(name: str, gradients: PerSampleGradients) -> Tensor | Materialized:
    """The statistic of this module."""
    return gradients.condensed()
