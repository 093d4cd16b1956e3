"""Images of one data set in the shape of another, without leaving fingerprints.

A stranger must be strange because of what it shows, not because of how it was made smaller: several published
out-of-distribution sets were shrunk without a low-pass filter, and detectors learnt the aliasing. Here every
change of size is bicubic with antialiasing (when shrinking, the kernel widens by the factor of reduction, as in
Pillow), computed in float32, rounded once.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F

from tutorial_lib.data.images import ImageSet, check_images

__all__ = ["LUMA", "fit", "resize", "to_channels"]

#: Rec. 601 weights of red, green and blue in luma, which Pillow and most libraries use for "grey".
LUMA = (0.299, 0.587, 0.114)


def resize(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """``uint8`` images (N, C, H, W) at ``size`` (height, width): bicubic, antialiased, clipped, rounded to ``uint8``.

    >>> resize(torch.full((1, 1, 4, 4), 7, dtype=torch.uint8), (2, 2)).flatten().tolist()
    [7, 7, 7, 7]
    """
    check_images(images)
    if tuple(images.shape[2:]) == tuple(size):
        return images
    parts = []
    for part in images.split(1024):  # float32 copies of a whole data set would not fit a small machine
        larger = F.interpolate(part.float(), size=size, mode="bicubic", antialias=True, align_corners=False)
        parts.append(larger.clamp(0, 255).round().to(torch.uint8))
    return torch.cat(parts)


def to_channels(images: torch.Tensor, channels: int) -> torch.Tensor:
    """``uint8`` images (N, C, H, W) with 1 channel (Rec. 601 luma of RGB) or 3 (grey, three times)."""
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 or 3, got {channels}")
    check_images(images)
    if images.shape[1] == channels:
        return images
    if channels == 3:
        return images.repeat(1, 3, 1, 1)
    weights = torch.tensor(LUMA).view(1, 3, 1, 1)
    return torch.cat(
        [(part.float() * weights).sum(1, keepdim=True).round().to(torch.uint8) for part in images.split(1024)]
    )


def fit(image_set: ImageSet, shape: tuple[int, int, int]) -> ImageSet:
    """``image_set`` in the shape (C, H, W); what was done is added to its note.

    >>> from tutorial_lib.data.embedded import digits
    >>> fit(digits().subset([0, 1]), (3, 32, 32))
    ImageSet('digits': 2 images of 3x32x32, 10 classes; 8x8 grey resized to 32x32 RGB (bicubic, antialiased))
    """
    if image_set.image_shape == tuple(shape):
        return image_set
    channels, height, width = shape
    old_channels, old_height, old_width = image_set.image_shape
    images = resize(to_channels(image_set.images, min(channels, old_channels)), (height, width))
    colour = {1: "grey", 3: "RGB"}
    if (height, width) == (old_height, old_width):
        done = f"{colour[old_channels]} turned {colour[channels]}"
    else:
        old, new = f"{old_height}x{old_width} {colour[old_channels]}", f"{height}x{width} {colour[channels]}"
        done = f"{old} resized to {new} (bicubic, antialiased)"
    note = f"{image_set.note}; {done}" if image_set.note else done
    return replace(image_set, images=to_channels(images, channels), note=note)
