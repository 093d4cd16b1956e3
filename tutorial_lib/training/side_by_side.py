"""Several classifiers of one architecture, trained at once on the same images: the members of an ensemble.

A step of a small network is mostly the calling of operations, not their computing; `torch.func.vmap` calls each once
for all members. Every member has its own initial weights, its own order of the images and its own augmentation, and no
number passes from one to another: each ends where `train_classifier` would have taken it alone.

The losses of the members are **summed**. Their mean, which many write, divides every member's gradient by M: with SGD a
learning rate M times too small (reported for a public library: torch-uncertainty, issue 59).

Lakshminarayanan et al., "Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles", NeurIPS 2017, is
the source of the optional adversarial step (section 2.3): each step minimises the loss at x and at
x + epsilon · range · sign(gradient), where range is that of the training data in each input dimension.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from tutorial_lib.data.images import ImageSet, as_float
from tutorial_lib.reproducible import one_thread
from tutorial_lib.training.classifier import (
    TrainingConfig,
    TrainingDiverged,
    TrainingHistory,
    augment,
    optimizer_for,
    scheduler_for,
)
from tutorial_lib.training.loop import is_long

__all__ = ["train_side_by_side"]


def train_side_by_side(
    members: Sequence[nn.Module],
    train: ImageSet,
    config: TrainingConfig | None = None,
    seeds: Sequence[int] | None = None,
    adversarial_step: float = 0.0,
) -> list[TrainingHistory]:
    """Train every member in place on all images, and leave it in evaluation mode.

    Member m goes through the steps of ``train_classifier`` with the seed ``seeds[m]``, in float32 (or in float64, if
    that is what its weights are), so that the result is the same but for rounding. Faster than one after another where
    networks and images are small; ``python -m tutorial_lib run single_pass_vs_ensembles`` measures how much.

    Args:
        members: M classifiers of one architecture, images (N, C, H, W) in [0, 1] to logits (N, K), on one device; no
            dropout (its masks would be one member's and not another's).
        train: training images and labels in 0..K-1.
        config: settings for all; its ``seed`` and ``precision`` are not used.
        seeds: one a member, of the order of the images and of the augmentation; 0 to M - 1 when left out. The initial
            weights are the caller's.
        adversarial_step: epsilon of the adversarial step, in units of the range of each pixel over the training images
            (the paper's is 0.01); 0 for none. Adversarial images are kept in [0, 1].

    Returns:
        a history for each member; ``seconds`` is the time that all took together.

    Raises:
        ValueError: no members, not one seed a member, a negative step, or settings that go from epoch to epoch or from
            layer to layer (alternating flips, lookahead, faster biases), which are for one network at a time.
        TrainingDiverged: a loss is not finite; says whose.
    """
    config = config or TrainingConfig()
    seeds = range(len(members)) if seeds is None else seeds
    if not members or len(seeds) != len(members):
        raise ValueError(f"give at least one member, and one seed for each; got {len(members)} and {len(seeds)}")
    if adversarial_step < 0:
        raise ValueError(f"adversarial_step must not be negative, got {adversarial_step}")
    if config.lookahead or config.flip == "alternating" or config.norm_bias_factor != 1 or config.whitening_epochs:
        raise ValueError(f"side by side is not for {config}; use train_classifier for one network after another")
    start = time.perf_counter()
    device = next(members[0].parameters()).device
    images, labels = train.images.to(device), train.labels.to(device)
    span = adversarial_step * (as_float(images.amax(0)) - as_float(images.amin(0))) if adversarial_step else None
    together = _Together(members, config, -(-len(train) // config.batch_size) * config.epochs, span)
    generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
    histories = [TrainingHistory() for _ in members]
    with one_thread(not is_long(config.epochs * len(members), images)):
        for epoch in range(config.epochs):
            orders = [torch.randperm(len(train), generator=g).split(config.batch_size) for g in generators]
            total = torch.zeros(len(members), device=device)
            for chosen in zip(*orders, strict=True):
                batches = [
                    augment(images, part, config.shift, config.flip, generator, config.border)
                    for part, generator in zip(chosen, generators, strict=True)
                ]
                answers = labels[torch.stack(chosen).to(device)]
                total += together.step(torch.stack(batches), answers) * answers.shape[1]
            means = (total / len(train)).tolist()
            for seed, history, mean in zip(seeds, histories, means, strict=True):
                if not abs(mean) < float("inf"):
                    raise TrainingDiverged(
                        f"the loss of the member with seed {seed} is {mean} in epoch {epoch + 1} of {config.epochs}; "
                        f"try a learning rate below {config.learning_rate:g}"
                    )
                history.loss.append(mean)
    together.give_back(members)
    for history in histories:
        history.seconds = time.perf_counter() - start
    return histories


class _Together:
    """The stacked weights of all members, and the step that moves them."""

    def __init__(self, members: Sequence[nn.Module], config: TrainingConfig, steps: int, span: Tensor | None) -> None:
        for member in members:
            member.train()
        self.parameters, self.buffers = stack_module_state(list(members))  # type: ignore[arg-type]
        self.span = span
        self.optimizer = optimizer_for(self.parameters.values(), config)
        self.scheduler = scheduler_for(self.optimizer, config, steps)
        skeleton = copy.deepcopy(members[0]).to("meta")  # only its forward pass is used

        def loss(parameters: dict[str, Tensor], buffers: dict[str, Tensor], images: Tensor, labels: Tensor) -> Tensor:
            logits = functional_call(skeleton, (parameters, buffers), (images,))
            return F.cross_entropy(logits, labels, label_smoothing=config.label_smoothing)

        self.losses = vmap(loss)

    def step(self, images: Tensor, labels: Tensor) -> Tensor:
        """One step of every member on its own batch: images (M, B, C, H, W), labels (M, B); losses (M,) before it."""
        images.requires_grad_(self.span is not None)
        losses = self.losses(self.parameters, self.buffers, images, labels)
        self.optimizer.zero_grad(set_to_none=True)
        if self.span is None:
            losses.sum().backward()
        else:
            (slope,) = torch.autograd.grad(losses.sum(), images, retain_graph=True)
            moved = (images + self.span * slope.sign()).clamp(0, 1).detach()
            (losses + self.losses(self.parameters, self.buffers, moved, labels)).sum().backward()
        self.optimizer.step()
        self.scheduler.step()
        return losses.detach()

    @torch.no_grad()
    def give_back(self, members: Sequence[nn.Module]) -> None:
        for m, member in enumerate(members):
            for name, value in [*member.named_parameters(), *member.named_buffers()]:
                value.copy_((self.parameters | self.buffers)[name][m])
            member.eval()
