"""Readers of the file formats that the public data sets come in.

Each returns ``(images, labels)`` as NumPy arrays: ``uint8`` (N, H, W) or (N, H, W, 3) and ``int64`` (N,). What
a file holds is checked here only as far as reading it needs; whether it is the published file is decided by
checksum, before it is opened (see ``files``).
"""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from tutorial_lib.data.errors import DataDamaged

__all__ = [
    "Arrays",
    "centre_square",
    "read_cifar",
    "read_idx",
    "read_image_files",
    "read_mat",
    "read_npz",
    "read_tarred_images",
    "read_zipped_images",
]

Arrays = tuple[NDArray[np.uint8], NDArray[np.int64]]


def read_idx(path: Path) -> NDArray[np.uint8]:
    """An array of unsigned bytes in the IDX format of MNIST, plain or gzipped (``.gz``), of any number of dimensions.

    Layout: two zero bytes, type code (8 for unsigned byte), number of dimensions, each dimension as a
        big-endian 32-bit integer, data.
    """
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise DataDamaged(f"{path} is not an IDX file of unsigned bytes")
    header = 4 + 4 * content[3]
    shape = tuple(int(n) for n in np.frombuffer(content, ">u4", count=content[3], offset=4))
    if len(content) - header != np.prod(shape, dtype=np.int64):
        raise DataDamaged(f"{path} promises {shape} bytes and holds {len(content) - header:,}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape).copy()


class _ArraysOnly(pickle.Unpickler):
    """The CIFAR files are pickles of dictionaries, lists, strings and one array; nothing else may come out of them."""

    allowed = {
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("_codecs", "encode"),  # how Python 3 pickles bytes under an old protocol
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.allowed:
            raise pickle.UnpicklingError(f"{module}.{name} has no place in a CIFAR file")
        return super().find_class(module, name)


def read_cifar(paths: Iterable[Path]) -> Arrays:
    """Batches of "CIFAR-10 python version": pickled dictionaries, ``data`` (N, 3072) channels first, and ``labels``."""
    images, labels = [], []
    for path in paths:
        try:
            with path.open("rb") as stream:
                batch = _ArraysOnly(stream, encoding="latin1").load()
            images.append(np.asarray(batch["data"], dtype=np.uint8).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
            labels.append(np.asarray(batch["labels"], dtype=np.int64))
        except (pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError) as error:
            raise DataDamaged(f"{path} is not a CIFAR batch: {error}") from error
    return np.concatenate(images), np.concatenate(labels)


def read_mat(path: Path) -> Arrays:
    """A cropped-digits file of SVHN: ``X`` (32, 32, 3, N) and ``y`` (N, 1), where label 10 is the digit 0."""
    from scipy.io import loadmat  # not needed by anything else here

    content = loadmat(path)
    images = np.ascontiguousarray(content["X"].transpose(3, 0, 1, 2), dtype=np.uint8)
    return images, content["y"].ravel().astype(np.int64) % 10


def read_npz(path: Path, images: str = "images", labels: str = "labels") -> Arrays:
    """Two arrays of a NumPy archive. Labels may be (N,) or (N, 1)."""
    with np.load(path, allow_pickle=False) as archive:
        return archive[images].astype(np.uint8, copy=False), archive[labels].ravel().astype(np.int64)


def centre_square(image: Image.Image, size: int) -> Image.Image:
    """The largest square in the middle of an image, Lanczos-resampled to ``size`` pixels (antialiased)."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))  # first, so that nothing outside shines in
    return square.resize((size, size), Image.Resampling.LANCZOS)


def _decode(stream: Any, name: object, mode: str) -> Image.Image:
    try:
        return Image.open(stream).convert(mode)
    except (UnidentifiedImageError, OSError) as error:
        raise DataDamaged(
            f"{name} is not a readable image; delete the folder or archive and get it again ({error})"
        ) from error


def read_image_files(
    paths: Sequence[Path],
    labels: Sequence[int],
    mode: str = "RGB",
    prepare: Callable[[Image.Image], Image.Image] | None = None,
) -> Arrays:
    """Image files of one size, or made so by ``prepare``, in the order given, in Pillow's mode ``"RGB"`` or ``"L"``."""
    images = []
    for path in paths:
        image = _decode(path, path, mode)
        images.append(np.asarray(prepare(image) if prepare else image))
    return np.stack(images), np.asarray(labels, dtype=np.int64)


def read_zipped_images(path: Path) -> tuple[NDArray[np.uint8], list[str]]:
    """Every JPEG of a zip archive, in the order of their names, and the name of the folder each lies in."""
    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".JPEG"))
        images = [np.asarray(_decode(io.BytesIO(archive.read(name)), f"{path}:{name}", "RGB")) for name in names]
    return np.stack(images), [name.split("/")[-2] for name in names]


def read_tarred_images(path: Path) -> NDArray[np.uint8]:
    """Every PNG or JPEG of a gzipped tar archive, in the order of their names; all must have one size."""
    try:
        with tarfile.open(path, "r:gz") as archive:
            content = {
                member.name: archive.extractfile(member).read()  # type: ignore[union-attr]
                for member in archive
                if member.isfile() and member.name.lower().endswith((".png", ".jpg", ".jpeg"))
            }
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise DataDamaged(f"{path} is not a whole tar archive: {error}; get it again") from error
    if not content:
        raise DataDamaged(f"{path} holds no images")
    images = [np.asarray(_decode(io.BytesIO(content[name]), f"{path}:{name}", "RGB")) for name in sorted(content)]
    shapes = {image.shape for image in images}
    if len(shapes) > 1:
        raise DataDamaged(f"{path} holds images of different sizes: {sorted(shapes)}")
    return np.stack(images)
