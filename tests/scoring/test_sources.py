"""Images are found in one order, read in any number of threads, and never all at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tutorial_lib.scoring import Preprocessing, open_source, read_batches, write_images

AS_THEY_ARE = Preprocessing((6, 5), 3)


@pytest.fixture
def folder(tmp_path):
    generator = np.random.default_rng(0)
    for name in ("b/2.png", "b/10.PNG", "a/1.bmp", ".hidden/3.png", "a/.4.png", "a/words.txt"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("txt"):
            path.write_text("words")
        else:
            Image.fromarray(generator.integers(0, 256, (6, 5, 3), dtype=np.uint8)).save(path)
    return tmp_path / "images"


def test_a_folder_is_walked_in_order_without_what_is_hidden(folder):
    source = open_source(folder)
    assert source.names == ["a/1.bmp", "b/10.PNG", "b/2.png"] and source.folders() == ["a", "b", "b"]
    assert open_source(folder / "b").folders() is None
    assert open_source(f"{folder}/*/[12].*").names == ["a/1.bmp", "b/2.png"]
    (folder.parent / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no image"):
        open_source(folder.parent / "empty")


def test_the_digest_knows_the_files(folder):
    before = open_source(folder).digest()
    assert open_source(folder).digest() == before
    Image.new("RGB", (5, 6)).save(folder / "b" / "2.png")
    assert open_source(folder).digest() != before


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("size", [1, 2, 7])
def test_batches_hold_every_image_once(folder, workers, size):
    (folder / "b" / "15.png").write_bytes(b"broken")
    source = open_source(folder)
    order = [3, 0, 2, 1]
    batches = list(read_batches(source, AS_THEY_ARE, order, size, workers))
    assert sorted(i for b in batches for i in [*b.indices, *b.errors]) == [0, 1, 2, 3]
    broken = source.names.index("b/15.png")
    assert [list(batch.errors) for batch in batches if batch.errors] == [[broken]]
    for batch in batches:
        for index, pixels in zip(batch.indices, batch.images, strict=True):
            expected = np.array(Image.open(folder / source.names[index]).convert("RGB"))
            assert (pixels.permute(1, 2, 0).numpy() == expected).all()


@pytest.mark.parametrize("shape", [(4, 6, 5), (4, 6, 5, 1), (4, 6, 5, 3), (4, 1, 6, 5), (4, 3, 6, 5)])
def test_arrays_in_every_order_of_axes(tmp_path, shape):
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.save(tmp_path / "x.npy", array)
    source = open_source(tmp_path / "x.npy")
    assert source.names == ["0", "1", "2", "3"] and source.folders() is None
    channels = 3 if 3 in shape else 1
    batch = next(read_batches(source, Preprocessing((6, 5), channels), range(4), 4))
    expected = array if array.ndim == 4 else array[..., None]
    expected = expected if expected.shape[1] == channels else expected.transpose(0, 3, 1, 2)
    assert (batch.images.numpy() == expected).all()


def test_arrays_in_fortrans_order_and_a_file_that_shrinks(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)
    np.save(tmp_path / "f.npy", np.asfortranarray(array))
    source = open_source(tmp_path / "f.npy")
    assert (np.stack([np.array(source.image(i)) for i in range(4)]) == array).all()
    np.save(tmp_path / "c.npy", array)
    source = open_source(tmp_path / "c.npy")
    with (tmp_path / "c.npy").open("r+b") as stream:
        stream.truncate(128 + 2 * 90)
    batch = next(read_batches(source, Preprocessing((6, 5), 3), range(4), 4))
    assert batch.indices == [0, 1] and set(batch.errors) == {2, 3}
    assert (batch.images.permute(0, 2, 3, 1).numpy() == array[:2]).all()


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="counts memory as Linux does")
def test_a_large_array_is_not_the_memory_of_the_process(tmp_path):
    def megabytes():
        return int(Path("/proc/self/status").read_text().partition("VmRSS:")[2].split()[0]) / 1024

    array = np.lib.format.open_memmap(tmp_path / "x.npy", mode="w+", dtype=np.uint8, shape=(60, 1000, 1000))
    del array
    source = open_source(tmp_path / "x.npy")
    source.image(0)
    before = megabytes()
    for index in range(60):
        source.image(index)
    assert megabytes() - before < 30


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 6, 5), dtype=np.float32),
        np.zeros((4, 6), dtype=np.uint8),
        np.zeros((0, 6, 5), dtype=np.uint8),
        np.zeros((4, 7, 6, 5), dtype=np.uint8),
        np.array([{"a": 1}], dtype=object),
    ],
)
def test_other_arrays_are_refused(tmp_path, array):
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    with pytest.raises(ValueError, match="x.npy"):
        open_source(tmp_path / "x.npy")


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_written_is_read_again(tmp_path, channels):
    images = torch.randint(0, 256, (12, channels, 6, 5), dtype=torch.uint8)
    write_images(tmp_path, images, ["b", "a"] * 6)
    source = open_source(tmp_path)
    assert source.folders() == ["a"] * 6 + ["b"] * 6
    batch = next(read_batches(source, Preprocessing((6, 5), channels), range(12), 12))
    assert torch.equal(batch.images, torch.cat([images[1::2], images[::2]]))
    assert torch.equal(source.pixels(6), images[0])
    with pytest.raises(TypeError, match="uint8"):
        write_images(tmp_path, images / 255, ["a"] * 12)
