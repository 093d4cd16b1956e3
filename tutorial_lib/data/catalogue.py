"""The data sets of the course: files, checksums, classes, terms.

MD5 sums of the originals are those that torchvision or the authors publish (for MNIST and Fashion-MNIST, of the
unpacked files); those of the smaller copies are of the files that come with this course. The MD5 of a 31 MB
file takes about 60 ms, so every file is checked before it is opened.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tutorial_lib.data.download import fetch, unzip
from tutorial_lib.data.embedded import PHOTOGRAPHS, digits, photographs
from tutorial_lib.data.files import DataFile
from tutorial_lib.data.formats import (
    centre_square,
    read_cifar,
    read_idx,
    read_image_files,
    read_mat,
    read_npz,
    read_tarred_images,
    read_zipped_images,
)
from tutorial_lib.data.registry import Content, DataSet, Part

if TYPE_CHECKING:
    from tutorial_lib.data.images import ImageSet

__all__ = ["DATASETS"]


def _one(path: str, md5: str, note: str = "") -> DataFile:
    return DataFile(path, {md5: note})


def _command(name: str) -> str:
    return f"python -m tutorial_lib data --download {name}"


# ----------------------------------------------------------------------------------------------------------------------
# Downloads: torchvision fetches, checks and unpacks. It is imported only here, because its import takes its time.


def _torchvision(class_name: str, folder: str = "", **arguments: tuple[Any, ...]) -> Callable[[Path], None]:
    """Every combination needed of one torchvision class: ``_torchvision("CIFAR10", train=(True, False))``."""

    def download(root: Path) -> None:
        import torchvision.datasets

        [(key, values)] = arguments.items()
        for value in values:
            getattr(torchvision.datasets, class_name)(root / folder, download=True, **{key: value})

    return download


def _archive(url: str, md5: str, filename: str) -> Callable[[Path], None]:
    """One file; a zip archive is unpacked beside itself."""

    def download(root: Path) -> None:
        path = fetch(url, root / filename, md5)
        if path.suffix == ".zip":
            unzip(path, root)

    return download


def _svhn_files(root: Path) -> None:
    """Addresses and sums are torchvision's; a connection that breaks in 180 MB is resumed here, and not there."""
    from torchvision.datasets import SVHN

    for split in ("train", "test"):
        url, filename, md5 = SVHN.split_list[split]
        fetch(url, root / "svhn" / filename, md5)


# ----------------------------------------------------------------------------------------------------------------------
# What comes with scikit-learn


def _embedded(make: Callable[[], ImageSet], paths: list[Path]) -> Content:
    images = make()
    pixels = images.images.permute(0, 2, 3, 1).squeeze(3).numpy()
    return Content(pixels, images.labels.numpy(), images.source.numpy())


DIGITS = DataSet(
    "digits",
    "handwritten digits, 8x8 grey",
    tuple("0123456789"),
    (Part("all", (), partial(_embedded, digits), 1_797),),
    terms="CC BY 4.0 (UCI, Alpaydin and Kaynak 1998)",
)

PHOTOGRAPH_PATCHES = DataSet(
    "photographs",
    "patches of two photographs, 32x32 RGB",
    PHOTOGRAPHS,
    (Part("all", (), partial(_embedded, partial(photographs, size=32, channels=3)), 520),),
    terms="CC BY (china.jpg by danielbuechele, flower.jpg by dany13)",
)

# ----------------------------------------------------------------------------------------------------------------------
# The MNIST family: four files in the IDX format, as torchvision unpacks them


def _idx_pair(paths: list[Path]) -> Content:
    return Content(read_idx(paths[0]), read_idx(paths[1]).astype(np.int64))


MNIST = DataSet(
    "mnist",
    "handwritten digits, 28x28 grey",
    tuple("0123456789"),
    (
        Part(
            "train",
            (
                DataFile(
                    "MNIST/raw/train-images-idx3-ubyte",
                    {
                        "6bbc9ace898e44ae57da46a324031adb": "",
                        "ce6591778dae9b79a1e475311951ee2e": "in images from number 17,435 on, pixels of value 1 are 0",
                    },
                ),
                _one("MNIST/raw/train-labels-idx1-ubyte", "a25bea736e30d166cdddb491f175f624"),
            ),
            _idx_pair,
            60_000,
        ),
        Part(
            "test",
            (
                _one("MNIST/raw/t10k-images-idx3-ubyte", "2646ac647ad5339dbf082846283269ea"),
                _one("MNIST/raw/t10k-labels-idx1-ubyte", "27ae3e4e09519cfbb04c329615203637"),
            ),
            _idx_pair,
            10_000,
            first=60_000,
        ),
    ),
    how_to_get=_command("mnist"),
    terms="CC BY-SA 3.0 as usually stated (LeCun, Cortes, Burges 1998)",
    download=_torchvision("MNIST", train=(True, False)),
    neighbours=50,  # by writer: the most similar image is one of the 50 before or after 11 times as often as by chance
)

FASHION_MNIST = DataSet(
    "fashion_mnist",
    "clothes, 28x28 grey",
    ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    (
        Part(
            "train",
            (
                _one("FashionMNIST/raw/train-images-idx3-ubyte", "f4a8712d7a061bf5bd6d2ca38dc4d50a"),
                _one("FashionMNIST/raw/train-labels-idx1-ubyte", "9018921c3c673c538a1fc5bad174d6f9"),
            ),
            _idx_pair,
            60_000,
        ),
        Part(
            "test",
            (
                _one("FashionMNIST/raw/t10k-images-idx3-ubyte", "8181f5470baa50b63fa0f6fddb340f0a"),
                _one("FashionMNIST/raw/t10k-labels-idx1-ubyte", "15d484375f8d13e6eb1aabb0c3f46965"),
            ),
            _idx_pair,
            10_000,
            first=60_000,
        ),
        Part(
            "train",
            (_one("subsets/fashion_mnist_train_first3615.npz", "8a51c71558d4b2a27ed3d1c6c9eb9a40"),),
            lambda paths: Content(*read_npz(paths[0])),
            3_615,
            complete=False,
            note="the first 3,615 of 60,000 training images",
        ),
    ),
    how_to_get=_command("fashion_mnist"),
    terms="MIT (Xiao, Rasul, Vollgraf 2017)",
    download=_torchvision("FashionMNIST", train=(True, False)),
)


def _not_mnist_folder(paths: list[Path]) -> Content:
    """Ten folders A to J of 28x28 PNGs, without the two files of the published archive that are empty or cut off."""
    files = sorted(path for path in paths[0].glob("[A-J]/*.png") if path.name not in NOT_MNIST_UNREADABLE)
    return Content(*read_image_files(files, ["ABCDEFGHIJ".index(path.parent.name) for path in files], mode="L"))


NOT_MNIST_UNREADABLE = ("RGVtb2NyYXRpY2FCb2xkT2xkc3R5bGUgQm9sZC50dGY=.png", "Q3Jvc3NvdmVyIEJvbGRPYmxpcXVlLnR0Zg==.png")

NOT_MNIST = DataSet(
    "notmnist",
    "letters A to J in many typefaces, 28x28 grey",
    tuple("ABCDEFGHIJ"),
    (
        Part("all", (DataFile("notMNIST_small"),), _not_mnist_folder, 18_724),
        Part(
            "all",
            (_one("subsets/notmnist_10000.npz", "96a5fa8030cb0896d07979e30a0fa1c2"),),
            lambda paths: Content(*read_npz(paths[0])),
            10_000,
            complete=False,
            note="a random sample of 1,000 images a letter",
        ),
    ),
    how_to_get="unpack http://yaroslavvb.com/upload/notMNIST/notMNIST_small.tar.gz into the data folder",
    terms="no licence stated (Bulatov 2011)",
)

# ----------------------------------------------------------------------------------------------------------------------
# 32x32 colour

CIFAR10 = DataSet(
    "cifar10",
    "ten kinds of animals and vehicles, 32x32 RGB",
    ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    (
        Part(
            "train",
            (
                _one("cifar-10-batches-py/data_batch_1", "c99cafc152244af753f735de768cd75f"),
                _one("cifar-10-batches-py/data_batch_2", "d4bba439e000b95fd0a9bffe97cbabec"),
                _one("cifar-10-batches-py/data_batch_3", "54ebc095f3ab1f0389bbae665268c751"),
                _one("cifar-10-batches-py/data_batch_4", "634d18415352ddfa80567beed471001a"),
                _one("cifar-10-batches-py/data_batch_5", "482c414d41f54cd18b22e5b47cb7c3cb"),
            ),
            lambda paths: Content(*read_cifar(paths)),
            50_000,
        ),
        Part(
            "test",
            (_one("cifar-10-batches-py/test_batch", "40351d587109b95175f43aff81a1287e"),),
            lambda paths: Content(*read_cifar(paths)),
            10_000,
            first=50_000,
        ),
    ),
    how_to_get=_command("cifar10"),
    terms="no licence stated; cite Krizhevsky 2009",
    download=_torchvision("CIFAR10", train=(True, False)),
)


def _svhn_subset(paths: list[Path]) -> Content:
    from scipy.io import loadmat

    return Content(*read_mat(paths[0]), loadmat(paths[0])["index_in_train"].ravel())


def _svhn(paths: list[Path]) -> Content:
    return Content(*read_mat(paths[0]))


def _svhn_parts(folder: str) -> tuple[Part, Part]:
    return (
        Part("train", (_one(f"{folder}train_32x32.mat", "e26dedcc434d2e4c54c9b2d4a06d8373"),), _svhn, 73_257),
        Part(
            "test", (_one(f"{folder}test_32x32.mat", "eb5a983be6a315427106f1b164d9cef3"),), _svhn, 26_032, first=73_257
        ),
    )


SVHN = DataSet(
    "svhn",
    "digits of house numbers, 32x32 RGB",
    tuple("0123456789"),
    (
        *_svhn_parts("svhn/"),
        *_svhn_parts(""),  # torchvision puts them wherever its root is
        Part(
            "train",
            (_one("svhn/train_32x32_subset.mat", "bcf5f8b05294ca9b3d2219f732dda062"),),
            _svhn_subset,
            1_004,
            complete=False,
            note="1,004 of the first 1,083 of 73,257 training images",
        ),
    ),
    how_to_get=_command("svhn"),
    terms="non-commercial use only (Netzer et al. 2011)",
    download=_svhn_files,
    neighbours=6,  # by house, and no number has more digits; every crop shows a piece of the digits beside it
)

# ----------------------------------------------------------------------------------------------------------------------
# Larger natural images


def _first_names(lines: list[str]) -> dict[str, str]:
    """WordNet identifier to the first of its names, from lines ``n01443537<tab>goldfish, Carassius auratus``."""
    return {wnid: names.split(",")[0].strip() for wnid, names in (line.split("\t", 1) for line in lines if line)}


def _by_identifier(images: Any, wnids: list[str], names: dict[str, str], known: list[str]) -> Content:
    """Labels are positions in the sorted identifiers, as an image folder would give them."""
    order = sorted(known)
    labels = np.array([order.index(wnid) for wnid in wnids], dtype=np.int64)
    return Content(images, labels, class_names=tuple(names[wnid] for wnid in order))


def _tiny_imagenet_folder(paths: list[Path]) -> Content:
    annotations = [line.split("\t")[:2] for line in paths[0].read_text().splitlines() if line]
    images, _ = read_image_files([paths[1] / name for name, _ in annotations], [0] * len(annotations))
    names = _first_names(paths[3].read_text(encoding="utf-8").splitlines())
    return _by_identifier(images, [wnid for _, wnid in annotations], names, paths[2].read_text().split())


def _tiny_imagenet_zip(paths: list[Path]) -> Content:
    images, wnids = read_zipped_images(paths[0])
    with zipfile.ZipFile(paths[0]) as archive:
        names = _first_names(archive.read("wnids_words.txt").decode().splitlines())
    return _by_identifier(images, wnids, names, list(names))


def _npz_with_classes(paths: list[Path]) -> Content:
    with np.load(paths[0], allow_pickle=False) as archive:
        return Content(*read_npz(paths[0]), class_names=tuple(str(name) for name in archive["classes"]))


TINY_IMAGENET = DataSet(
    "tiny_imagenet",
    "200 kinds of things, 64x64 RGB",
    (),
    (
        Part(
            "validation",
            (
                DataFile("tiny-imagenet-200/val/val_annotations.txt"),
                DataFile("tiny-imagenet-200/val/images"),
                DataFile("tiny-imagenet-200/wnids.txt"),
                DataFile("tiny-imagenet-200/words.txt"),
            ),
            _tiny_imagenet_folder,
            10_000,
        ),
        Part(
            "validation",
            (_one("subsets/tiny_imagenet_val_2000.zip", "602b707f83053d31f26942aa8f138cb9"),),
            _tiny_imagenet_zip,
            2_000,
            complete=False,
            note="10 of 50 validation images of each class",
        ),
        Part(
            "validation",
            (_one("subsets/tiny_imagenet_val_1000_32.npz", "d5ec2e922c3fe2f31981a89a3ca7c773"),),
            _npz_with_classes,
            1_000,
            complete=False,
            note="5 of 50 validation images of each class, already resized to 32x32 (bicubic)",
        ),
    ),
    how_to_get=_command("tiny_imagenet"),
    terms="ImageNet terms: non-commercial research and education",
    download=_archive(
        "http://cs231n.stanford.edu/tiny-imagenet-200.zip", "90528d7ca1a48142e341f4ef8d21d0de", "tiny-imagenet-200.zip"
    ),
)


def _textures_folder(wanted: tuple[str, ...], paths: list[Path]) -> Content:
    """Lists of the three splits (partition 1), then the folder of images; centre squares, so that all have one size."""
    *lists, folder = paths
    split_of = {name: path.name for path in lists for name in path.read_text().split()}
    everything = sorted(split_of)
    classes = sorted({name.split("/")[0] for name in everything})
    source = [index for index, name in enumerate(everything) if split_of[name] in wanted]
    names = [everything[index] for index in source]
    labels = [classes.index(name.split("/")[0]) for name in names]
    images = read_image_files([folder / name for name in names], labels, prepare=partial(centre_square, size=32))
    return Content(*images, source=np.array(source), class_names=tuple(classes))


_TEXTURES_LISTS = ("train1.txt", "val1.txt", "test1.txt")
_TEXTURES_FILES = (*(DataFile(f"dtd/dtd/labels/{name}") for name in _TEXTURES_LISTS), DataFile("dtd/dtd/images"))

TEXTURES = DataSet(
    "textures",
    "textures in the wild (DTD), centre squares, 32x32 RGB",
    (),
    (
        Part("test", _TEXTURES_FILES, partial(_textures_folder, ("test1.txt",)), 1_880),
        Part("all", _TEXTURES_FILES, partial(_textures_folder, _TEXTURES_LISTS), 5_640),
        Part(
            "all",
            (_one("subsets/dtd10_1200_32.npz", "0d50fbff8343079dd31b6c20cfd0c100"),),
            _npz_with_classes,
            1_200,
            complete=False,
            note="the first 10 of 47 textures, all 120 images of each",
        ),
    ),
    how_to_get=_command("textures"),
    terms="for research use (Cimpoi et al. 2014)",
    download=_torchvision("DTD", split=("test",)),
)


def _scenes(paths: list[Path]) -> Content:
    images = read_tarred_images(paths[0])
    return Content(images, np.zeros(len(images), dtype=np.int64))


LSUN = DataSet(
    "lsun",
    "rooms and buildings (LSUN), 32x32 RGB",
    ("scene",),
    (
        Part(
            "test",
            (_one("LSUN_resize.tar.gz", "278b7b31c8cb7e804a1465a8ce03a2dc"),),
            _scenes,
            10_000,
            # "fixed" versions of such archives are harder: Tack et al., "CSI", NeurIPS 2020, appendix
            note="the copy made for ODIN, resized without antialiasing; its traces make it easy to tell",
        ),
    ),
    how_to_get=_command("lsun"),
    terms="for research use (Yu et al. 2015; this copy by Liang, Li and Srikant 2018)",
    # Dropbox, as the authors of ODIN link it; the sum is the one that the library pytorch-ood publishes.
    download=_archive(
        "https://www.dropbox.com/s/raw/moqh2wh8696c3yl/LSUN_resize.tar.gz",
        "278b7b31c8cb7e804a1465a8ce03a2dc",
        "LSUN_resize.tar.gz",
    ),
)

# ----------------------------------------------------------------------------------------------------------------------
# Medical


def _pneumonia(split: str, paths: list[Path]) -> Content:
    return Content(*read_npz(paths[0], f"{split}_images", f"{split}_labels"))


_PNEUMONIA_FULL = _one("pneumoniamnist.npz", "28209eda62fecd6e6a2d98b1501bb15f")
_PNEUMONIA_SUBSET = _one("subsets/pneumoniamnist_subset.npz", "5bbdc53ab3779cd6dbd24221f0609321")

PNEUMONIA_MNIST = DataSet(
    "pneumonia_mnist",
    "chest X-rays of children, 28x28 grey",
    ("normal", "pneumonia"),
    (
        Part("train", (_PNEUMONIA_FULL,), partial(_pneumonia, "train"), 4_708),
        Part("validation", (_PNEUMONIA_FULL,), partial(_pneumonia, "val"), 524, first=4_708),
        Part("test", (_PNEUMONIA_FULL,), partial(_pneumonia, "test"), 624, first=5_232),
        Part(
            "train",
            (_PNEUMONIA_SUBSET,),
            partial(_pneumonia, "train"),
            776,
            complete=False,
            note="388 normal and 388 pneumonia of 4,708 training images",
        ),
        Part("validation", (_PNEUMONIA_SUBSET,), partial(_pneumonia, "val"), 524, first=4_708),
        Part("test", (_PNEUMONIA_SUBSET,), partial(_pneumonia, "test"), 624, first=5_232),
    ),
    how_to_get=_command("pneumonia_mnist"),
    terms="CC BY 4.0 (MedMNIST v2)",
    download=_archive(
        "https://zenodo.org/records/6496656/files/pneumoniamnist.npz",
        "28209eda62fecd6e6a2d98b1501bb15f",
        "pneumoniamnist.npz",
    ),
)

#: Every data set by name, in the order in which they are listed.
DATASETS: dict[str, DataSet] = {
    data_set.name: data_set
    for data_set in (
        DIGITS,
        PHOTOGRAPH_PATCHES,
        MNIST,
        FASHION_MNIST,
        NOT_MNIST,
        CIFAR10,
        SVHN,
        TINY_IMAGENET,
        TEXTURES,
        LSUN,
        PNEUMONIA_MNIST,
    )
}
