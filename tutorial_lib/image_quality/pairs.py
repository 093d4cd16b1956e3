"""A reference and what became of it: the one door for every measure of this package.

Full-reference quality has one direction here: **larger = better quality**, 1 (or infinity, for PSNR) for a perfect copy.
As "larger is stranger" is this course's rule for scores of images, mind the sign when both stand in one table.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutorial_lib.data.images import as_float, check_images

__all__ = ["Quality", "checked_pair"]

Quality = Callable[[Tensor, Tensor], NDArray[np.float64]]
"""(references, distorted), both (N, C, H, W), to quality (N,), larger = better."""


def checked_pair(reference: Tensor, distorted: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both as float64 in [0, 1] on the CPU, (N, C, H, W).

    Raises:
        TypeError, ValueError: not images (see `tutorial_lib.data.images.check_images`), or of different shapes. An image
            that was resized or cropped has no full-reference quality: bring both to one size first.
    """
    for images in (reference, distorted):
        check_images(images)
    if reference.shape != distorted.shape:
        raise ValueError(
            f"references and distorted images must have one shape, got {tuple(reference.shape)} and "
            f"{tuple(distorted.shape)}; repeat a reference for each of its copies"
        )
    first, second = (as_float(images.detach(), torch.float64).cpu().numpy() for images in (reference, distorted))
    return first, second
