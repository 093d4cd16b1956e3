"""Readers of file formats, on small files that the tests write."""

import gzip
import io
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
from PIL import Image

from tutorial_lib.data.errors import DataDamaged
from tutorial_lib.data.formats import (
    centre_square,
    read_cifar,
    read_idx,
    read_image_files,
    read_mat,
    read_npz,
    read_zipped_images,
)

RANDOM = np.random.default_rng(0)


def idx_bytes(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.mark.parametrize("shape", [(5,), (3, 4, 6), (0, 28, 28)])
@pytest.mark.parametrize("packed", [False, True])
def test_idx(tmp_path, shape, packed):
    array = RANDOM.integers(0, 256, shape, dtype=np.uint8)
    path = tmp_path / ("x-ubyte.gz" if packed else "x-ubyte")
    path.write_bytes(gzip.compress(idx_bytes(array)) if packed else idx_bytes(array))
    np.testing.assert_array_equal(read_idx(path), array)


@pytest.mark.parametrize("spoil", [lambda b: b[:-1], lambda b: b + b"\0", lambda b: b"\1" + b[1:], lambda b: b[:2]])
def test_idx_refuses_what_does_not_add_up(tmp_path, spoil):
    path = tmp_path / "x"
    path.write_bytes(spoil(idx_bytes(np.zeros((2, 3), dtype=np.uint8))))
    with pytest.raises(DataDamaged, match="x"):
        read_idx(path)


def test_cifar_batches_are_joined_in_order(tmp_path):
    images = RANDOM.integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)
    paths = []
    for number, part in enumerate((slice(0, 4), slice(4, 7))):
        data = images[part].transpose(0, 3, 1, 2).reshape(-1, 3072)
        paths.append(tmp_path / f"data_batch_{number}")
        labels = list(range(part.start, part.stop))
        paths[-1].write_bytes(pickle.dumps({"data": data, "labels": labels, "batch_label": "x"}, protocol=2))
    read, labels = read_cifar(paths)
    np.testing.assert_array_equal(read, images)
    assert labels.tolist() == list(range(7))
    assert labels.dtype == np.int64


class _RunsCode:
    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    path, marker = tmp_path / "data_batch_1", tmp_path / "ran"
    path.write_bytes(pickle.dumps({"data": _RunsCode(marker), "labels": []}, protocol=2))
    with pytest.raises(DataDamaged, match="no place in a CIFAR file"):
        read_cifar([path])
    assert not marker.exists()


@pytest.mark.parametrize("content", [b"", b"not a pickle", pickle.dumps({"labels": []}), pickle.dumps([1, 2])])
def test_a_file_that_is_no_cifar_batch(tmp_path, content):
    path = tmp_path / "data_batch_1"
    path.write_bytes(content)
    with pytest.raises(DataDamaged, match="data_batch_1 is not a CIFAR batch"):
        read_cifar([path])


def test_svhn_puts_the_digit_zero_where_label_ten_was(tmp_path):
    from scipy.io import savemat

    images = RANDOM.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    savemat(
        tmp_path / "x.mat", {"X": images.transpose(1, 2, 3, 0), "y": np.array([[10], [1], [9], [10]], dtype=np.uint8)}
    )
    read, labels = read_mat(tmp_path / "x.mat")
    np.testing.assert_array_equal(read, images)
    assert labels.tolist() == [0, 1, 9, 0]


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_npz_with_labels_in_a_row_or_a_column(tmp_path, shape):
    images = RANDOM.integers(0, 256, (3, 5, 5), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", val_images=images, val_labels=np.array([2, 0, 1]).reshape(shape))
    read, labels = read_npz(tmp_path / "x.npz", "val_images", "val_labels")
    np.testing.assert_array_equal(read, images)
    assert labels.tolist() == [2, 0, 1]


def test_npz_never_unpickles(tmp_path):
    marker = tmp_path / "ran"
    np.savez(tmp_path / "x.npz", images=np.array([_RunsCode(marker)], dtype=object), labels=np.zeros(1))
    with pytest.raises(ValueError, match="allow_pickle"):
        read_npz(tmp_path / "x.npz")
    assert not marker.exists()


def jpeg(colour, size=(64, 64)):
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, "JPEG", quality=95)
    return stream.getvalue()


def test_zipped_images_come_in_the_order_of_their_names(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("val/n2/b.JPEG", jpeg((0, 0, 250)))
        archive.writestr("val/n1/a.JPEG", jpeg((250, 0, 0)))
        archive.writestr("readme.txt", "not an image")
    images, folders = read_zipped_images(path)
    assert folders == ["n1", "n2"]
    assert images.shape == (2, 64, 64, 3)
    assert images[0, ..., 0].mean() > 240 > 10 > images[0, ..., 2].mean()


def test_an_unreadable_image_is_named(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("val/n1/cut.JPEG", jpeg((9, 9, 9))[:200])
    with pytest.raises(DataDamaged, match=r"cut\.JPEG is not a readable image"):
        read_zipped_images(path)


def test_centre_square_takes_the_middle(tmp_path):
    pixels = np.zeros((40, 100, 3), dtype=np.uint8)
    pixels[:, 30:70] = (200, 100, 50)  # the middle square
    Image.fromarray(pixels).save(tmp_path / "a.png")
    images, labels = read_image_files([tmp_path / "a.png"], [3], prepare=lambda image: centre_square(image, 8))
    assert images.shape == (1, 8, 8, 3)
    assert labels.tolist() == [3]
    np.testing.assert_array_equal(images[0], np.broadcast_to([200, 100, 50], (8, 8, 3)))
