"""Data sets by name: the right files, checked; clear errors; never another data set."""

import hashlib
import io
import pickle
import struct
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from tutorial_lib.data import DATASETS, DataDamaged, DataUnavailable, load_images
from tutorial_lib.data.files import DataFile, data_folder, md5_of
from tutorial_lib.data.registry import load_part

RANDOM = np.random.default_rng(1)
ON_DISK = [name for name, data_set in DATASETS.items() if not data_set.embedded]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TUTORIAL_DATA", str(tmp_path))
    return tmp_path


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def encoded(pixels, form="PNG"):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form)
    return stream.getvalue()


def pixels(*shape):
    return RANDOM.integers(0, 256, shape, dtype=np.uint8)


def small(name, split, count, complete=True):
    """The data set with only the (in)complete forms of ``split``, expecting ``count`` images and no checksum."""
    parts = [part for part in DATASETS[name].parts if part.split == split and part.complete == complete]
    assert parts
    parts = [replace(p, count=count, files=tuple(DataFile(f.path) for f in p.files)) for p in parts]
    return replace(DATASETS[name], parts=tuple(parts))


# --- each data set from a few images in the published layout ----------------------------------------------------------


@pytest.mark.parametrize(("name", "directory"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_mnist_family_is_read_as_torchvision_reads_it(folder, name, directory):
    written = {}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        written[split] = pixels(5, 28, 28), RANDOM.integers(0, 10, 5).astype(np.uint8)
        write(folder / directory / "raw" / f"{prefix}-images-idx3-ubyte", idx(written[split][0]))
        write(folder / directory / "raw" / f"{prefix}-labels-idx1-ubyte", idx(written[split][1]))
    for split, (images, labels) in written.items():
        loaded = load_part(small(name, split, 5), split)
        np.testing.assert_array_equal(loaded.images[:, 0].numpy(), images)
        assert loaded.labels.tolist() == labels.tolist()
        assert loaded.note == ""
        theirs = getattr(torchvision.datasets, directory)(folder, train=split == "train")
        assert torch.equal(theirs.data, loaded.images[:, 0])
        assert torch.equal(theirs.targets, loaded.labels)
        assert tuple(text.split(" - ")[0] for text in theirs.classes) == loaded.class_names


def test_cifar10(folder):
    data = pixels(10, 3072)
    for number in range(5):
        content = {"data": data[2 * number : 2 * number + 2], "labels": [number, 9 - number]}
        write(folder / "cifar-10-batches-py" / f"data_batch_{number + 1}", pickle.dumps(content, protocol=2))
    loaded = load_part(small("cifar10", "train", 10), "train")
    np.testing.assert_array_equal(loaded.images.reshape(10, -1).numpy(), data)
    assert loaded.labels.tolist() == [0, 9, 1, 8, 2, 7, 3, 6, 4, 5]


@pytest.mark.parametrize("where", ["svhn", "."])
@pytest.mark.parametrize("split", ["train", "test"])
def test_svhn_in_its_own_folder_and_where_torchvision_puts_it(folder, where, split):
    from scipy.io import savemat

    images = pixels(3, 32, 32, 3)
    (folder / where).mkdir(exist_ok=True)
    savemat(folder / where / f"{split}_32x32.mat", {"X": images.transpose(1, 2, 3, 0), "y": np.array([[10], [5], [1]])})
    loaded = load_part(small("svhn", split, 3), split)
    np.testing.assert_array_equal(loaded.images.permute(0, 2, 3, 1).numpy(), images)
    assert loaded.labels.tolist() == [0, 5, 1]


def test_not_mnist_leaves_out_the_two_broken_files(folder):
    images = pixels(4, 28, 28)
    for image, path in zip(images, ("A/b.png", "A/a.png", "J/x.png", "C/y.png"), strict=True):
        write(folder / "notMNIST_small" / path, encoded(image))
    for broken in ("A/RGVtb2NyYXRpY2FCb2xkT2xkc3R5bGUgQm9sZC50dGY=.png", "F/Q3Jvc3NvdmVyIEJvbGRPYmxpcXVlLnR0Zg==.png"):
        write(folder / "notMNIST_small" / broken, b"")
    loaded = load_part(small("notmnist", "all", 4), "all")
    np.testing.assert_array_equal(loaded.images[:, 0].numpy(), images[[1, 0, 3, 2]])
    assert loaded.labels.tolist() == [0, 0, 2, 9]


def tiny_imagenet(folder):
    root = folder / "tiny-imagenet-200"
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250)]
    for number, colour in enumerate(colours):
        write(root / "val/images" / f"val_{number}.JPEG", encoded(np.full((64, 64, 3), colour, dtype=np.uint8), "JPEG"))
    annotations = "val_0.JPEG\tn02\t0\t0\t62\t62\nval_1.JPEG\tn01\t1\t2\t3\t4\nval_2.JPEG\tn02\t0\t0\t1\t1\n"
    write(root / "val/val_annotations.txt", annotations.encode())
    write(root / "wnids.txt", b"n02\nn01\n")
    write(root / "words.txt", b"n00\tentity\nn01\tgoldfish, Carassius auratus\nn02\tbullfrog\n")
    return small("tiny_imagenet", "validation", 3)


def test_tiny_imagenet(folder):
    loaded = load_part(tiny_imagenet(folder), "validation")
    assert loaded.class_names == ("goldfish", "bullfrog")
    assert loaded.labels.tolist() == [1, 0, 1]
    assert loaded.images.float().mean((2, 3)).argmax(1).tolist() == [0, 1, 2]


def test_tiny_imagenet_in_parts(folder):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("val/n02/val_7.JPEG", encoded(pixels(64, 64, 3), "JPEG"))
        archive.writestr("val/n01/val_9.JPEG", encoded(pixels(64, 64, 3), "JPEG"))
        archive.writestr("wnids_words.txt", "n01\tgoldfish, Carassius auratus\nn02\tbullfrog\n")
    write(folder / "subsets/tiny_imagenet_val_2000.zip", stream.getvalue())
    loaded = load_part(small("tiny_imagenet", "validation", 2, complete=False), "validation")
    assert loaded.labels.tolist() == [0, 1]
    assert loaded.class_names == ("goldfish", "bullfrog")
    assert loaded.note == "10 of 50 validation images of each class"


def test_textures_are_read_as_torchvision_reads_them(folder):
    root = folder / "dtd/dtd"
    names = {"train": ["dotted/d1.jpg"], "val": ["banded/b2.jpg"], "test": ["dotted/d0.jpg", "banded/b1.jpg"]}
    for split, files in names.items():
        write(root / f"labels/{split}1.txt", "\n".join(files).encode())
        for number, name in enumerate(files):
            write(root / "images" / name, encoded(np.full((50, 80, 3), 60 * number + 40, dtype=np.uint8), "JPEG"))
    loaded = load_part(small("textures", "test", 2), "test")
    theirs = torchvision.datasets.DTD(folder, split="test")
    assert len(theirs) == len(loaded)
    assert loaded.class_names == tuple(theirs.classes) == ("banded", "dotted")
    assert loaded.labels.tolist() == [0, 1]
    assert loaded.image_shape == (3, 32, 32)
    assert loaded.images.float().mean((1, 2, 3)).tolist() == pytest.approx([100, 40], abs=2)
    everything = load_part(small("textures", "all", 4), "all")
    assert everything.source.tolist() == [0, 1, 2, 3]
    assert everything.subset(loaded.source).labels.tolist() == loaded.labels.tolist()


def test_pneumonia_mnist(folder):
    content = {f"{split}_{kind}": value for split in ("train", "val", "test") for kind, value in
               (("images", pixels(2, 28, 28)), ("labels", np.array([[0], [1]])))}  # fmt: skip
    np.savez(folder / "pneumoniamnist.npz", **content)
    for split, key in (("train", "train"), ("validation", "val"), ("test", "test")):
        loaded = load_part(small("pneumonia_mnist", split, 2), split)
        np.testing.assert_array_equal(loaded.images[:, 0].numpy(), content[f"{key}_images"])
        assert loaded.labels.tolist() == [0, 1]


def test_splits_of_one_data_set_share_no_source():
    """Numbers of images that a split is said to have, laid end to end, never overlap."""
    for data_set in DATASETS.values():
        spans = {}
        for part in data_set.parts:
            if part.complete and part.split != "all":
                spans[part.split] = (part.first, part.first + part.count)
        if data_set.name == "textures":
            continue  # there the source is a place in the list of all images (see above)
        ordered = sorted(spans.values())
        assert all(a[1] <= b[0] for a, b in zip(ordered, ordered[1:], strict=False)), data_set.name


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ON_DISK)
def test_a_missing_data_set_says_what_where_and_how(folder, name):
    with pytest.raises(DataUnavailable) as error:
        load_images(name)
    says = str(error.value)
    assert f"{name} is not on this machine" in says
    assert f"{folder} (TUTORIAL_DATA)" in says
    assert "TUTORIAL_DATA to a folder that has it" in says
    assert f"data --download {name}" in says or "unpack http" in says
    for part in DATASETS[name].parts:
        assert all(file.path in says for file in part.files)
    assert isinstance(error.value, FileNotFoundError)


def test_without_the_variable_the_error_says_so(tmp_path, monkeypatch):
    monkeypatch.delenv("TUTORIAL_DATA", raising=False)
    monkeypatch.setenv("TUTORIAL_CACHE", str(tmp_path))
    assert data_folder() == tmp_path / "data"
    with pytest.raises(DataUnavailable, match=r"TUTORIAL_DATA is not set"):
        load_images("cifar10")


def test_a_relative_folder_is_named_in_full(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUTORIAL_DATA", "some/where")
    with pytest.raises(DataUnavailable, match=str(tmp_path / "some/where")):
        load_images("mnist")


def test_a_wrong_name_is_guessed():
    with pytest.raises(ValueError, match="did you mean 'cifar10'"):
        load_images("cifr10")
    with pytest.raises(ValueError, match="did you mean 'fashion_mnist'"):
        load_images("FashionMNIST")
    with pytest.raises(ValueError, match="there are digits, photographs, mnist"):
        load_images("coins")


def test_a_wrong_split_is_guessed():
    with pytest.raises(ValueError, match=r"mnist has no split 'tst'; did you mean 'test'"):
        load_images("mnist", "tst")
    with pytest.raises(ValueError, match=r"digits has no split 'test'; there is all"):
        load_images("digits", "test")


def test_one_file_of_several_missing(folder):
    write(folder / "MNIST/raw/t10k-images-idx3-ubyte", idx(pixels(5, 28, 28)))
    with pytest.raises(DataUnavailable) as error:
        load_images("mnist", "test")
    assert "t10k-labels-idx1-ubyte (original, test, 10,000 images)" in str(error.value)
    assert "t10k-images-idx3-ubyte" not in str(error.value)


def test_a_smaller_copy_is_never_taken_for_the_whole(folder):
    """The only SVHN here is a part of the training split: no test split comes of it, and no complete one."""
    subset = next(part for part in DATASETS["svhn"].parts if not part.complete)
    write(folder / subset.files[0].path, b"")
    for arguments in ({"split": "test"}, {"split": "train", "complete": True}):
        with pytest.raises(DataUnavailable) as error:
            load_images("svhn", **arguments)
        assert "There is svhn/train_32x32_subset.mat, but that is 1,004 of the first 1,083" in str(error.value)


def test_a_file_with_other_content_than_published_is_never_opened(folder):
    for number in range(1, 6):
        write(folder / "cifar-10-batches-py" / f"data_batch_{number}", b"would be a pickle")
    with pytest.raises(DataDamaged) as error:
        load_images("cifar10", "train")
    assert "data_batch_1 is damaged: its MD5 is" in str(error.value)
    assert "expected c99cafc152244af753f735de768cd75f" in str(error.value)
    assert "download or unpack it again" in str(error.value)


def test_damage_to_the_original_is_not_hidden_by_a_smaller_copy(folder):
    for part in DATASETS["fashion_mnist"].parts:
        for file in part.files:
            write(folder / file.path, b"damaged")
    with pytest.raises(DataDamaged, match="train-images-idx3-ubyte is damaged"):
        load_images("fashion_mnist", "train")


def test_a_file_that_changes_is_checked_again(tmp_path):
    path = tmp_path / "file"
    for content in (b"one", b"three"):
        path.write_bytes(content)
        for _ in range(2):
            assert md5_of(path) == hashlib.md5(content).hexdigest()


def test_a_folder_with_too_few_images(folder):
    data_set = tiny_imagenet(folder)
    data_set = replace(data_set, parts=tuple(replace(part, count=10_000) for part in data_set.parts))
    with pytest.raises(DataDamaged, match="hold 3 images, not 10,000; get tiny_imagenet again"):
        load_part(data_set, "validation")


def test_a_folder_with_an_image_that_is_gone(folder):
    data_set = tiny_imagenet(folder)
    (folder / "tiny-imagenet-200/val/images/val_1.JPEG").unlink()
    with pytest.raises(DataDamaged, match=r"val_1\.JPEG"):
        load_part(data_set, "validation")


# --- sums, against torchvision ----------------------------------------------------------------------------------------


def sums(name, complete=True):
    parts = [part for part in DATASETS[name].parts if part.complete == complete]
    return {file.path.split("/")[-1]: tuple(file.sums) for part in parts for file in part.files}


def test_cifar10_sums_are_torchvisions():
    theirs = dict(torchvision.datasets.CIFAR10.train_list + torchvision.datasets.CIFAR10.test_list)
    assert sums("cifar10") == {name: (md5,) for name, md5 in theirs.items()}


def test_svhn_sums_are_torchvisions():
    theirs = {file: md5 for _, file, md5 in torchvision.datasets.SVHN.split_list.values()}
    assert all(theirs[name] == md5 for name, (md5,) in sums("svhn").items())


# --- the real thing, where it is there --------------------------------------------------------------------------------


def need(name, split=None):
    data_set = DATASETS[name]
    if not (data_set.there() if split is None else data_set.found(split)):
        pytest.skip(f"{data_folder()} has no {name}{f' ({split})' if split else ''}; set TUTORIAL_DATA")


@pytest.mark.parametrize("name", list(DATASETS))
def test_every_split_that_is_there_loads_as_announced(name):
    need(name)
    for split in DATASETS[name].splits:
        part = DATASETS[name].found(split)
        if part is None:
            continue
        images = load_images(name, split)
        assert len(images) == part.count
        assert images.name == name
        assert part.complete or images.note, "a smaller copy must say which part it is"
        assert len(set(images.labels.tolist())) == len(images.class_names), "a class without an image"
        per_class = images.labels.bincount()
        assert per_class.min() > 0.4 * per_class.float().mean(), "classes are far from balanced"
        assert len(images.source.unique()) == (2 if name == "photographs" else len(images))
        assert images.images.float().std() > 10


def test_real_cifar10_is_torchvisions():
    need("cifar10", "test")
    ours, theirs = load_images("cifar10", "test"), torchvision.datasets.CIFAR10(data_folder(), train=False)
    np.testing.assert_array_equal(ours.images.permute(0, 2, 3, 1).numpy(), theirs.data)
    assert ours.labels.tolist() == theirs.targets
    assert list(ours.class_names) == theirs.classes
    assert ours.labels.bincount().tolist() == [1000] * 10


@pytest.mark.parametrize("train", [True, False])
def test_real_mnist_is_torchvisions(train):
    need("mnist", "train" if train else "test")
    ours = load_images("mnist", "train" if train else "test")
    theirs = torchvision.datasets.MNIST(data_folder(), train=train)
    assert torch.equal(ours.images[:, 0], theirs.data)
    assert torch.equal(ours.labels, theirs.targets)


def test_real_svhn_subset_knows_its_places():
    need("svhn", "train")
    images = load_images("svhn", "train")
    assert (images.source.diff() > 0).all()
    assert images.source.max() < 73_257


@pytest.mark.parametrize("name", ["fashion_mnist", "textures", "svhn", "cifar10"])
def test_one_flipped_bit_is_found(name, tmp_path, monkeypatch):
    need(name)
    part = next(part for part in reversed(DATASETS[name].parts) if part.there())
    for file in part.files:
        content = bytearray((data_folder() / file.path).read_bytes())
        if file == part.files[-1]:
            content[len(content) // 2] ^= 1
        write(tmp_path / file.path, content)
    monkeypatch.setenv("TUTORIAL_DATA", str(tmp_path))
    with pytest.raises(DataDamaged, match="is damaged: its MD5 is"):
        load_images(name, part.split)
