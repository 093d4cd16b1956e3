"""The one form that images have in this library: a labelled set of ``uint8`` tensors, and the checks at its door.

Images are ``uint8`` in 0..255 or floating point in [0, 1], always N×C×H×W with C = 1 (grey) or 3 (RGB). Sets
are stored as ``uint8``, which is what the files hold; :func:`as_float` is the only conversion. Normalisation
(mean, standard deviation) is the model's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

__all__ = ["ImageSet", "as_float", "check_images"]


def as_float(images: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Images as floating point numbers in [0, 1].

    ``uint8`` is divided by 255; floating point is taken to be in [0, 1] already and only changes its type, so
    gradients flow through. The range of floating point input is not looked at here (see :func:`check_images`).

    Args:
        images: ``uint8`` or floating point tensor of any shape.
        dtype: floating point type of the result.

    Raises:
        TypeError: for any other type of number or a thing that is not a tensor.

    >>> as_float(torch.tensor([0, 51, 255], dtype=torch.uint8))
    tensor([0.0000, 0.2000, 1.0000])
    """
    if not isinstance(images, torch.Tensor):
        raise TypeError(f"images must be a torch.Tensor, got {type(images).__name__}; convert with torch.as_tensor")
    if images.dtype == torch.uint8:
        return images.to(dtype) / 255
    if images.is_floating_point():
        return images.to(dtype)
    raise TypeError(f"images must be uint8 in 0..255 or floating point in [0, 1], got {images.dtype}")


def check_images(
    images: torch.Tensor, channels: int | None = None, size: int | tuple[int, int] | None = None
) -> torch.Tensor:
    """Return ``images`` as they are if they are N×C×H×W, ``uint8`` or floating point in [0, 1]; else say what is wrong.

    Args:
        images: the tensor to look at.
        channels: how many channels they must have; ``None`` allows 1 and 3.
        size: how large they must be, one number for a square or (height, width); ``None`` allows any.

    Raises:
        TypeError: not a tensor, or a type of number that is neither ``uint8`` nor floating point.
        ValueError: wrong number of dimensions, no image at all, wrong channels or size, NaN or infinity, values
            outside [0, 1].

    >>> check_images(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 1, 8, 8])
    >>> check_images(torch.full((2, 3, 8, 8), 2.0))
    Traceback (most recent call last):
        ...
    ValueError: floating point images must lie in [0, 1], got values from 2 to 2; do not normalise them, the model does
    """
    if not isinstance(images, torch.Tensor):
        raise TypeError(f"images must be a torch.Tensor, got {type(images).__name__}; convert with torch.as_tensor")
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise TypeError(f"images must be uint8 in 0..255 or floating point in [0, 1], got {images.dtype}")
    shape = tuple(images.shape)
    if images.ndim != 4:
        hint = "; add the batch dimension with images.unsqueeze(0)" if images.ndim == 3 else ""
        raise ValueError(f"images must have the shape (N, C, H, W), got {shape}{hint}")
    if images.numel() == 0:
        raise ValueError(f"images are empty: their shape is {shape}")
    allowed = (1, 3) if channels is None else (channels,)
    if shape[1] not in allowed:
        hint = "; channels come second, use images.permute(0, 3, 1, 2)" if shape[3] in allowed else ""
        raise ValueError(
            f"images must have {' or '.join(map(str, allowed))} channels, got {shape[1]} (shape {shape}){hint}"
        )
    if size is not None:
        wanted = (size, size) if isinstance(size, int) else tuple(size)
        if shape[2:] != wanted:
            raise ValueError(f"images must be {wanted[0]}x{wanted[1]} pixels, got {shape[2]}x{shape[3]}")
    if images.is_floating_point():
        low, high = (value.item() for value in images.detach().aminmax())  # NaN comes through aminmax
        if not (torch.isfinite(torch.tensor([low, high])).all()):
            raise ValueError("images hold NaN or infinite values")
        if low < 0 or high > 1:
            hint = "divide by 255 or pass uint8" if low >= 0 and high > 3 else "do not normalise them, the model does"
            raise ValueError(f"floating point images must lie in [0, 1], got values from {low:g} to {high:g}; {hint}")
    return images


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images of one data set or one part of it.

    Attributes:
        name: which set, for instance ``"cifar10"``.
        images: ``uint8`` tensor (N, C, H, W), 0..255.
        labels: ``int64`` tensor (N,), index into ``class_names``.
        class_names: one name for each class of the data set that the images come from.
        source: ``int64`` tensor (N,), the photograph or original image that each image was made from, as an
            index into the data set. Patches of one photograph share it, a rotated image keeps it. Splits never
            cut through a source.
        note: what a reader must know about this copy, for instance which part of the original it is; empty if
            there is nothing.
        neighbours: sources whose numbers differ by at most this may belong together: digits of one house number, digits
            of one writer. 0 where the order says nothing.

    >>> pixels = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    >>> images = ImageSet("two", pixels, torch.tensor([0, 1]), ("a", "b"), source=torch.arange(2))
    >>> images
    ImageSet('two': 2 images of 1x4x4, 2 classes)
    >>> images.subset([1]).labels
    tensor([1])
    """

    name: str
    images: torch.Tensor
    labels: torch.Tensor
    class_names: tuple[str, ...]
    source: torch.Tensor
    note: str = ""
    neighbours: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.images, torch.Tensor) or self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise TypeError(f"{self.name}: images must be a uint8 tensor (N, C, H, W)")
        for field in ("labels", "source"):
            value = getattr(self, field)
            right = isinstance(value, torch.Tensor) and value.dtype == torch.int64
            if not right or value.shape != self.images.shape[:1]:
                raise TypeError(f"{self.name}: {field} must be an int64 tensor with one entry for each image")
        if len(self.labels) and not (0 <= int(self.labels.min()) and int(self.labels.max()) < len(self.class_names)):
            raise ValueError(
                f"{self.name}: labels run from {int(self.labels.min())} to {int(self.labels.max())}, "
                f"but there are {len(self.class_names)} class names"
            )

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        shape = "x".join(str(n) for n in self.images.shape[1:])
        note = f"; {self.note}" if self.note else ""
        return f"ImageSet({self.name!r}: {len(self):,} images of {shape}, {len(self.class_names)} classes{note})"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def subset(self, indices: torch.Tensor | Sequence[int]) -> ImageSet:
        """The images at ``indices`` (integers in any order, or a boolean mask), as a set of its own."""
        index = torch.as_tensor(indices)
        if index.ndim != 1:
            raise ValueError(f"indices must be a list of places or a mask, got {indices!r}")
        if index.dtype != torch.bool:
            index = index.long()
        return replace(self, images=self.images[index], labels=self.labels[index], source=self.source[index])

    def sample(self, n: int, seed: int = 0) -> ImageSet:
        """``n`` images drawn without replacement; the same ``seed`` draws the same ones.

        Raises:
            ValueError: if the set holds fewer than ``n``, or ``n`` is not positive.
        """
        if not 1 <= n <= len(self):
            raise ValueError(f"cannot draw {n} images from {self.name}, which holds {len(self):,}")
        return self.subset(torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))[:n])

    def at_most(self, n: int, seed: int = 0) -> ImageSet:
        """This set if it holds no more than ``n`` images, else :meth:`sample`: a limit on what an experiment looks at."""
        return self if len(self) <= n else self.sample(n, seed)

    def float(self) -> torch.Tensor:
        """The images as float32 in [0, 1], shape (N, C, H, W)."""
        return as_float(self.images)
