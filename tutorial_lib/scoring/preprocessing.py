"""From an image file to the pixels that a network was trained on.

A network answers well only if its images come as they came in training: size, crop, interpolation, mean and deviation. timm
and torchvision keep these with the network; here they are read from there, said, stored with the scores, and kept in two
halves: geometry (`Preprocessing.prepare`, ``uint8`` out), and normalisation, which is the network's first layer
(`tutorial_lib.models.Normalize`), so that every detector sees images in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

__all__ = ["Preprocessing", "from_config", "from_torchvision", "in_colours"]

_INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


LARGEST = 10_000
"""Pixels of a side that a network may ask for; more is a mistake, and would fill the memory."""


@dataclass(frozen=True)
class Preprocessing:
    """What happens to an image before the network sees it.

    Attributes:
        size: (H, W) of what the network gets.
        channels: 1 (grey) or 3 (RGB).
        resize: what comes before the crop: a number, to which the shorter side is brought; (H, W), to which the image is
            stretched; None, for images that have `size` already.
        interpolation: nearest, bilinear, bicubic or lanczos; Pillow's, which are antialiased.
        mean, std: of the channels in the units of [0, 1] images; None where the network normalises by itself.
        source: who says so.

    >>> to_eight = Preprocessing((8, 8), 1, 8, "bilinear", source="an example")
    >>> to_eight.prepare(Image.new("RGB", (20, 16), (255, 0, 0))).shape
    torch.Size([1, 8, 8])
    """

    size: tuple[int, int]
    channels: int = 3
    resize: int | tuple[int, int] | None = None
    interpolation: str = "bilinear"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    source: str = ""

    def __post_init__(self) -> None:
        for what, value in (("size", self.size), ("resize", self.resize)):
            sides = [value] if isinstance(value, int) else list(value or [])
            if not all(1 <= side <= LARGEST for side in sides):
                raise ValueError(f"the {what} of images must lie between 1 and {LARGEST:,} pixels, got {value}")
        if self.channels not in (1, 3):
            raise ValueError(f"images have 1 or 3 channels, got {self.channels}")
        if not isinstance(self.interpolation, str) or self.interpolation not in _INTERPOLATIONS:
            raise ValueError(f"interpolation is one of {', '.join(_INTERPOLATIONS)}, got {self.interpolation!r}")
        if (self.mean is None) != (self.std is None):
            raise ValueError("give mean and std, or neither")
        if self.mean is not None and not all(0 <= value <= 1 for value in self.mean):
            raise ValueError(f"mean is in the units of images in [0, 1], got {self.mean}; divide mean and std by 255?")
        if self.std is not None and not all(0 < value < math.inf for value in self.std):
            raise ValueError(f"std must be positive and finite, got {self.std}")
        if self.mean is not None and self.std is not None and {len(self.mean), len(self.std)} != {self.channels}:
            raise ValueError(f"mean and std need {self.channels} number(s) each, got {self.mean} and {self.std}")

    def prepare(self, image: Image.Image) -> Tensor:
        """One image as ``uint8`` (C, H, W); see `in_colours` for what becomes of transparency."""
        image = in_colours(image, self.channels)
        how = _INTERPOLATIONS[self.interpolation]
        if isinstance(self.resize, int):
            short = min(image.size)
            if short != self.resize:  # the longer side rounded down, as torchvision and timm do
                scaled = [self.resize if side == short else int(self.resize * side / short) for side in image.size]
                image = image.resize((scaled[0], scaled[1]), how)
        elif self.resize is not None and image.size != self.resize[::-1]:
            image = image.resize(self.resize[::-1], how)
        if image.size != self.size[::-1]:
            if self.resize is None:
                raise ValueError(f"the image is {image.height}x{image.width}, the network takes {self._by(self.size)}")
            image = _centre(image, *self.size)
        pixels = torch.from_numpy(np.array(image, dtype=np.uint8))
        return pixels[None] if self.channels == 1 else pixels.permute(2, 0, 1).contiguous()

    def __str__(self) -> str:
        if self.resize is None:
            geometry = f"{self._by(self.size)}, as they are"
        elif isinstance(self.resize, int):
            geometry = f"shorter side to {self.resize} ({self.interpolation}), middle {self._by(self.size)}"
        else:
            geometry = f"stretched to {self._by(self.resize)} ({self.interpolation}), middle {self._by(self.size)}"
        colour = "grey" if self.channels == 1 else "RGB"
        normal = "the network normalises by itself" if self.mean is None else f"mean {self.mean}, std {self.std}"
        return f"{geometry}, {colour}, {normal} [{self.source}]"

    def record(self) -> dict[str, Any]:
        """For a JSON file."""
        return asdict(self)

    @staticmethod
    def _by(size: tuple[int, int]) -> str:
        return f"{size[0]}x{size[1]}"


def in_colours(image: Image.Image, channels: int | None = None) -> Image.Image:
    """An image of 8 bits, grey (mode L) or RGB.

    Transparency is dropped, not composited: the colours that the file has beneath it are taken, as torchvision's and timm's
    loaders do, so that a network sees what it saw in training. 16-bit grey is scaled.

    Args:
        image: as it was decoded.
        channels: 1 or 3; left out, 1 if it is grey.

    Raises:
        ValueError: pixels of 32 bits, whose range is unknown.
    """
    image = _eight_bits(image)
    grey = channels == 1 if channels else image.mode in ("1", "L", "LA")
    return image.convert("L" if grey else "RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey to 8 bits; Pillow's own conversion clips."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image).astype(np.float64) / 257).round().astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"its pixels are 32-bit numbers (mode {image.mode}) without a known range")
    return image


def _centre(image: Image.Image, height: int, width: int) -> Image.Image:
    """The middle; what an image lacks is filled with black, as torchvision does."""

    def start(there: int, wanted: int) -> int:
        return round((there - wanted) / 2.0) if there >= wanted else -((wanted - there) // 2)

    left, top = start(image.width, width), start(image.height, height)
    return image.crop((left, top, left + width, top + height))


def from_config(config: Mapping[str, Any], source: str) -> Preprocessing:
    """From the keys that timm writes: ``input_size``, ``mean``, ``std``, ``interpolation``, ``crop_pct``, ``crop_mode``.

    Without ``crop_pct`` the images must have ``input_size`` already, and without ``mean`` and ``std`` the network normalises
    by itself.

    >>> print(from_config({"input_size": [3, 224, 224], "crop_pct": 0.875, "interpolation": "bicubic"}, "config.json"))
    shorter side to 256 (bicubic), middle 224x224, RGB, the network normalises by itself [config.json]
    """
    if "input_size" not in config:
        raise ValueError(f"{source} does not say the input_size (C, H, W) of the network")
    shape = _numbers(config, "input_size", "[channels, height, width], such as [3, 224, 224]", source)
    if shape is None or len(shape) != 3 or any(n != int(n) or n < 1 for n in shape):
        raise _wrong(config, "input_size", "[channels, height, width], such as [3, 224, 224]", source)
    channels, height, width = (int(n) for n in shape)
    share, mode = config.get("crop_pct"), config.get("crop_mode") or "center"
    resize: int | tuple[int, int] | None = None
    if share is not None:
        if not _is_number(share) or share <= 0:
            raise _wrong(config, "crop_pct", "a number above 0, such as 0.875", source)
        scaled = (math.floor(height / share), math.floor(width / share))
        if mode != "squash" and (mode != "center" or height != width):
            raise ValueError(f"{source}: crop_mode {mode!r} at {height}x{width} is not known here; make the images so")
        resize = scaled if mode == "squash" else scaled[0]
    mean, std = (_numbers(config, key, "a list with a number for each channel", source) for key in ("mean", "std"))
    try:
        return Preprocessing(
            (height, width), channels, resize, config.get("interpolation") or "bilinear", mean, std, source
        )
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def _numbers(config: Mapping[str, Any], key: str, wanted: str, source: str) -> tuple[float, ...] | None:
    """A list of finite numbers; None where there is none."""
    value = config.get(key)
    if value is None or value == []:
        return None
    if not isinstance(value, list | tuple) or not all(_is_number(number) for number in value):
        raise _wrong(config, key, wanted, source)
    return tuple(float(number) for number in value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _wrong(config: Mapping[str, Any], key: str, wanted: str, source: str) -> ValueError:
    return ValueError(f"{source}: {key} is {config[key]!r}; it must be {wanted}")


def from_torchvision(transforms: Any, source: str) -> Preprocessing:
    """From a torchvision ``ImageClassification``, which is what ``weights.transforms()`` gives."""
    crop, resize = transforms.crop_size, transforms.resize_size
    return Preprocessing(
        (crop[0], crop[-1]),
        len(transforms.mean),
        resize[0] if len(resize) == 1 else (resize[0], resize[1]),
        transforms.interpolation.value,
        tuple(transforms.mean),
        tuple(transforms.std),
        source,
    )
