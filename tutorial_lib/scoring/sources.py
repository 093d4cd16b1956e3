"""Images that lie somewhere: a folder, a pattern of files, an array on disk; read as one goes, never all at once."""

from __future__ import annotations

import glob
import hashlib
import math
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tutorial_lib.data.images import check_images
from tutorial_lib.scoring.preprocessing import Preprocessing, in_colours

__all__ = ["ImageSource", "ReadBatch", "being_read", "open_source", "read_batches", "write_images"]

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


class ImageSource:
    """Files by their paths below a folder, in sorted order.

    Attributes:
        where: as it was asked for.
        names: one for each image: its path below the folder, or its place in the array. What is no UTF-8 in a name is
            written as ``\\udcXX``, so that a table can hold it. A folder that cannot be listed is one too, with ``/`` at
            its end, so that what it holds is not missed in silence.
        unlisted: of these folders, why not.
    """

    def __init__(
        self, where: str, root: Path, names: Sequence[str], unlisted: Mapping[str, OSError] | None = None
    ) -> None:
        self.where, self.root, self._files, self.unlisted = where, root, names, dict(unlisted or {})
        self.names = [name.encode(errors="backslashreplace").decode() for name in names]

    def __len__(self) -> int:
        return len(self.names)

    def image(self, index: int) -> Image.Image:
        """One image as it lies there, decoded whole; raises what the decoder raises."""
        if self._files[index] in self.unlisted:
            raise self.unlisted[self._files[index]]
        with Image.open(self.root / self._files[index]) as image:
            image.load()
            return image

    def pixels(self, index: int) -> Tensor:
        """One image as it lies there, ``uint8`` (C, H, W): C = 1 if it is grey, else 3."""
        image = in_colours(self.image(index))
        values = torch.from_numpy(np.array(image))
        return values[None] if image.mode == "L" else values.permute(2, 0, 1)

    def folders(self) -> list[str] | None:
        """The folder of each image, if every image lies in a folder of its class; else None."""
        parts = [name.split("/") for name in self.names]
        return [part[0] for part in parts] if all(len(part) > 1 for part in parts) else None

    def identities(self) -> set[tuple[int, int]]:
        """Device and number of the files, by which one that is reached on two ways, or by a link, is known."""
        found = set()
        for file in self._files:
            with suppress(OSError):
                status = os.stat(self.root / file)
                found.add((status.st_dev, status.st_ino))
        return found

    def digest(self) -> str:
        """A hash of names, sizes and times of change: the same as long as nobody has touched the images."""
        found = hashlib.sha256()
        for name, file in zip(self.names, self._files, strict=True):
            try:
                status = os.stat(self.root / file)
                touched = f"{status.st_size}\0{status.st_mtime_ns}"
            except OSError:  # a link to nowhere; it becomes a row with a reason when its turn comes
                touched = "gone"
            found.update(f"{name}\0{touched}\n".encode())
        return found.hexdigest()


class ArraySource(ImageSource):
    """An array (N, H, W), (N, H, W, C) or (N, C, H, W) of ``uint8`` in a ``.npy`` file, which stays on disk."""

    def __init__(self, path: Path) -> None:
        try:
            self.array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ValueError(f"{path} is no array of images: {error}") from error
        shape = self.array.shape
        if self.array.dtype != np.uint8 or len(shape) not in (3, 4) or 0 in shape:
            hint = (
                "; from floats x in [0, 1]: (255 * x).round().astype('uint8')" if self.array.dtype.kind == "f" else ""
            )
            raise ValueError(
                f"{path} must hold uint8 images (N, H, W), (N, H, W, C) or (N, C, H, W), got {self._said}{hint}"
            )
        self.first = len(shape) == 4 and shape[3] not in (1, 3)
        if self.first and shape[1] not in (1, 3):
            raise ValueError(f"{path} must hold images of 1 or 3 channels, got {self._said}")
        digits = len(str(len(self.array) - 1))
        super().__init__(str(path), path, [f"{number:0{digits}d}" for number in range(len(self.array))])

    @property
    def _said(self) -> str:
        return f"{self.array.dtype} {self.array.shape}"

    def image(self, index: int) -> Image.Image:
        pixels = self._read(index)
        if self.first:
            pixels = pixels.transpose(1, 2, 0)
        return Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels)

    def _read(self, index: int) -> NDArray[np.uint8]:
        """One image, read and not mapped: pages of a mapped file count as the process's memory, up to all of them."""
        shape = self.array.shape[1:]
        if not self.array.flags.c_contiguous:
            return np.array(self.array[index])
        size = math.prod(shape)
        place = self.array.offset + index * size
        return np.fromfile(self.root, dtype=np.uint8, count=size, offset=place).reshape(shape)

    def folders(self) -> None:
        return None

    def identities(self) -> set[tuple[int, int]]:
        status = self.root.stat()
        return {(status.st_dev, status.st_ino)}

    def digest(self) -> str:
        status = self.root.stat()
        return hashlib.sha256(f"{self.array.shape}\0{status.st_size}\0{status.st_mtime_ns}".encode()).hexdigest()


def open_source(where: str | Path) -> ImageSource:
    """The images of a folder (with all folders below it), of a pattern such as ``"photos/*.png"``, of one file, or of a
    ``.npy`` file.

    Hidden files and files with another suffix than an image's are passed over, links to folders are followed; a file that
    cannot be read, or a folder that cannot be listed, is found out when its turn comes.

    Raises:
        FileNotFoundError: there is nothing of the kind.
        ValueError: nothing is named, a ``.npy`` file of something else, or one file that is no image.
    """
    if not str(where).strip():
        raise ValueError("the images have no name; a folder, a pattern or a .npy file is needed (. is this folder)")
    path = Path(where).expanduser()
    if path.suffix == ".npy" and path.is_file():
        return ArraySource(path)
    if path.is_dir():
        unlisted: dict[str, OSError] = {}
        found = [file for file in _below(path, unlisted) if os.path.splitext(file)[1].lower() in SUFFIXES]
        if not found and unlisted:
            raise next(iter(unlisted.values()))
        if not found:
            raise FileNotFoundError(f"{path} holds no image ({', '.join(SUFFIXES)})")
        return ImageSource(str(where), path, sorted([*found, *unlisted]), unlisted)
    if path.is_file():  # also if its name would do as a pattern: a[1].png
        if path.suffix.lower() not in SUFFIXES:
            raise ValueError(f"{path} is neither an image ({', '.join(SUFFIXES)}) nor an array of images (.npy)")
        return ImageSource(str(where), path.absolute().parent, [path.name])
    files = sorted(name for name in glob.glob(str(path), recursive=True) if os.path.isfile(name))
    if not files:
        raise FileNotFoundError(f"there is no folder, pattern with files or .npy file {where}")
    root = Path(os.path.commonpath([os.path.dirname(os.path.abspath(name)) for name in files]))
    return ImageSource(str(where), root, [Path(os.path.abspath(n)).relative_to(root).as_posix() for n in files])


def _below(folder: Path, unlisted: dict[str, OSError]) -> Iterator[str]:
    """Paths of all files that are not hidden, with ``/`` between the parts; each folder once, whatever links lead to it.

    Folders that cannot be listed are put into ``unlisted``, with ``/`` at the end.
    """

    def missed(error: OSError) -> None:
        unlisted[Path(error.filename).relative_to(folder).as_posix() + "/"] = error

    top = os.path.join(os.path.realpath(folder), "")
    met: set[str] = set()
    for here, folders, files in os.walk(folder, onerror=missed, followlinks=True):
        real = os.path.realpath(here)
        if real in met or (
            top.startswith(os.path.join(real, "")) and met
        ):  # been there, or a link to what holds all this
            folders.clear()
            continue
        met.add(real)
        folders[:] = sorted(name for name in folders if name[0] != ".")
        yield from (Path(here, name).relative_to(folder).as_posix() for name in files if name[0] != ".")


_reading = threading.local()


def being_read() -> str | None:
    """Name of the image that this thread is reading, for whoever hears a warning of its decoder."""
    return getattr(_reading, "name", None)


@dataclass
class ReadBatch:
    """Some images of a source: those that could be read, and why the others could not."""

    indices: list[int]
    images: Tensor
    errors: dict[int, str] = field(default_factory=dict)


def read_batches(
    source: ImageSource, preprocessing: Preprocessing, indices: Sequence[int], size: int, workers: int = 2
) -> Iterator[ReadBatch]:
    """The images at ``indices``, ``size`` at a time, ``uint8`` (N, C, H, W); the next ones are read meanwhile.

    Args:
        source: where they lie.
        preprocessing: what is done to each.
        indices: which, in this order.
        size: images in a batch, at least 1.
        workers: threads that read and decode.
    """
    if size < 1:
        raise ValueError(f"a batch holds at least 1 image, got {size}")

    def read(index: int) -> Tensor | str:
        _reading.name = source.names[index]
        try:
            return preprocessing.prepare(source.image(index))
        except Exception as error:  # whatever a decoder raises becomes the row's reason
            return " ".join(f"{type(error).__name__}: {error}".split())
        finally:
            _reading.name = None

    parts = [list(indices[start : start + size]) for start in range(0, len(indices), size)]
    with ThreadPoolExecutor(max(1, workers)) as pool:
        ahead = [pool.submit(read, index) for index in parts[0]] if parts else []
        for number, part in enumerate(parts):
            waiting = ahead
            ahead = [pool.submit(read, index) for index in parts[number + 1]] if number + 1 < len(parts) else []
            answers = dict(zip(part, (future.result() for future in waiting), strict=True))
            errors = {index: answer for index, answer in answers.items() if isinstance(answer, str)}
            images = {index: answer for index, answer in answers.items() if isinstance(answer, Tensor)}
            stacked = torch.stack(list(images.values())) if images else torch.empty(0)
            yield ReadBatch(list(images), stacked, errors)


def write_images(folder: Path | str, images: Tensor, within: Sequence[str]) -> None:
    """Images as PNG files ``FOLDER/WITHIN/NUMBER.png``, for whoever has arrays and wants a folder.

    Args:
        folder: made if need be.
        images: ``uint8`` (N, C, H, W), C = 1 or 3.
        within: for each image the folder that it goes to, such as its class.
    """
    check_images(images)
    if images.dtype != torch.uint8:
        raise TypeError(f"files hold uint8 images, got {images.dtype}; multiply by 255 and round first")
    for number, (image, name) in enumerate(zip(images, within, strict=True)):
        path = Path(folder) / name / f"{number:0{len(str(len(images)))}d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = image.permute(1, 2, 0).cpu().numpy()
        Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(path)
