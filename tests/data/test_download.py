"""Downloads that break, resume, start again, or bring the wrong thing: a server on this machine plays all parts."""

import hashlib
import http.server
import io
import os
import signal
import subprocess
import sys
import tarfile
import textwrap
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from tutorial_lib.commands import data as command
from tutorial_lib.data import DATASETS, DataDamaged, DataUnavailable, load_images
from tutorial_lib.data.catalogue import _archive
from tutorial_lib.data.download import fetch
from tutorial_lib.data.files import DataFile
from tutorial_lib.data.registry import load_part
from tutorial_lib.studies import load_study

CONTENT = np.random.default_rng(0).bytes(300_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves ``files`` by name; ``breaks`` holds, for each answer to come, after how many bytes it breaks off."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.breaks, self.asked = {}, [], []
        self.ranges, self.block, self.pause = True, 1 << 16, 0.0

    def address(self, name):
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        server.asked.append(wanted)
        content = server.files.get(self.path.strip("/"))
        if content is None:
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and server.ranges else 0
        if start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        stop = start + server.breaks.pop(0) if server.breaks else len(content)
        try:
            for at in range(start, min(stop, len(content)), server.block):
                self.wfile.write(content[at : min(at + server.block, stop)])
                time.sleep(server.pause)
        except OSError:
            pass  # the other side is gone
        self.close_connection = True


@pytest.fixture
def server():
    with Server() as running:
        running.files["file.bin"] = CONTENT
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def get(server, path, **settings):
    return fetch(server.address("file.bin"), path, MD5, **{"pause": 0.01, **settings})


def test_a_whole_file_comes_at_once_and_is_not_asked_for_again(server, tmp_path):
    path = tmp_path / "folder" / "file.bin"
    assert get(server, path) == path and path.read_bytes() == CONTENT
    assert server.asked == [None]
    get(server, path)
    assert server.asked == [None]
    assert {file.name for file in path.parent.iterdir()} <= {"file.bin", "file.bin.lock"}


def test_a_broken_connection_is_continued_where_it_broke(server, tmp_path):
    server.breaks = [100_000, 70_000]
    path = get(server, tmp_path / "file.bin")
    assert path.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=100000-", "bytes=170000-"]


def test_what_a_failed_call_has_left_is_continued_by_the_next(server, tmp_path):
    server.breaks = [100_000, 0, 0, 0]
    with pytest.raises(OSError, match=r"100,000 bytes are kept in .*file\.bin\.part, the same command goes on"):
        get(server, tmp_path / "file.bin", attempts=3)
    assert not (tmp_path / "file.bin").exists()
    server.asked, server.breaks = [], []
    assert get(server, tmp_path / "file.bin").read_bytes() == CONTENT
    assert server.asked == ["bytes=100000-"]


def test_a_server_without_ranges_starts_again(server, tmp_path):
    server.ranges, server.breaks = False, [100_000]
    assert get(server, tmp_path / "file.bin").read_bytes() == CONTENT
    assert server.asked == [None, "bytes=100000-"]


@pytest.mark.parametrize("left", [CONTENT, CONTENT + b"more"])
def test_a_part_that_is_whole_or_too_long(server, tmp_path, left):
    (tmp_path / "file.bin.part").write_bytes(left)
    assert get(server, tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_wrong_checksum_is_an_error_and_leaves_nothing(server, tmp_path):
    server.files["file.bin"] = b"<html>please log in</html>"
    with pytest.raises(DataDamaged, match=f"published is {MD5}; it has been deleted"):
        get(server, tmp_path / "file.bin")
    assert not list(tmp_path.glob("file.bin*.part")) and not (tmp_path / "file.bin").exists()


def test_a_part_of_something_else_is_found_out(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(b"x" * 1000)
    with pytest.raises(DataDamaged, match="MD5"):
        get(server, tmp_path / "file.bin")
    assert get(server, tmp_path / "file.bin").read_bytes() == CONTENT  # the next call starts afresh


def test_a_damaged_file_on_disk_is_fetched_again(server, tmp_path):
    (tmp_path / "file.bin").write_bytes(CONTENT[:-1] + b"?")
    assert get(server, tmp_path / "file.bin").read_bytes() == CONTENT


def test_no_such_file_is_not_asked_for_twice(server, tmp_path):
    with pytest.raises(OSError, match="404"):
        fetch(server.address("gone.bin"), tmp_path / "gone.bin", MD5)
    assert server.asked == [None]


def test_no_server(tmp_path):
    with pytest.raises(OSError, match=r"127\.0\.0\.1:9"):
        fetch("http://127.0.0.1:9/file.bin", tmp_path / "file.bin", MD5, attempts=2, pause=0.01)


def test_a_killed_download_goes_on(server, tmp_path):
    server.block, server.pause = 5_000, 0.02
    path = tmp_path / "file.bin"
    program = textwrap.dedent(f"""
        from tutorial_lib.data.download import fetch
        fetch({server.address("file.bin")!r}, {str(path)!r}, {MD5!r})
    """)
    process = subprocess.Popen([sys.executable, "-c", program], env=os.environ)
    part = tmp_path / "file.bin.part"
    deadline = time.monotonic() + 60
    while (not part.exists() or part.stat().st_size == 0) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = part.stat().st_size
    assert 0 < left < len(CONTENT) and not path.exists()
    server.pause = 0
    assert get(server, path).read_bytes() == CONTENT
    assert server.asked[-1] == f"bytes={left}-"


# --- the sets that come this way --------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TUTORIAL_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def scenes(count, size=32):
    """An archive like the published one: a folder in a folder of the same name, one image file a scene."""
    pictures = np.random.default_rng(1).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for number in reversed(range(count)):
            image = io.BytesIO()
            Image.fromarray(pictures[number]).save(image, "PNG")
            entry = tarfile.TarInfo(f"LSUN_resize/LSUN_resize/{number:05d}.png")
            entry.size = image.tell()
            archive.addfile(entry, io.BytesIO(image.getvalue()))
        archive.addfile(tarfile.TarInfo("LSUN_resize/LSUN_resize/.DS_Store"))
    return packed.getvalue(), pictures


def small_lsun(content, count, address=""):
    """The data set with an archive of ``count`` images in place of the published one."""
    md5 = hashlib.md5(content).hexdigest()
    [part] = DATASETS["lsun"].parts
    part = replace(part, count=count, files=(DataFile(part.files[0].path, {md5: ""}),))
    return replace(DATASETS["lsun"], parts=(part,), download=_archive(address, md5, part.files[0].path))


def test_lsun_arrives_over_a_connection_that_breaks_and_is_read(server, folder):
    content, pictures = scenes(7)
    server.files["LSUN_resize.tar.gz"], server.breaks = content, [len(content) // 2]
    data_set = small_lsun(content, 7, server.address("LSUN_resize.tar.gz"))
    command.download(data_set)
    assert len(server.asked) == 2
    loaded = load_part(data_set)
    np.testing.assert_array_equal(loaded.images.permute(0, 2, 3, 1).numpy(), pictures)
    assert loaded.class_names == ("scene",) and "without antialiasing" in loaded.note


def test_lsun_with_another_content_is_never_opened(folder):
    content, _ = scenes(3)
    folder.mkdir()
    (folder / "LSUN_resize.tar.gz").write_bytes(content)
    with pytest.raises(DataDamaged, match="expected 278b7b31c8cb7e804a1465a8ce03a2dc"):
        load_images("lsun")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda content: content[: len(content) // 2], "not a whole tar archive"),
        (lambda content: b"<html>" + content, "not a whole tar archive"),
        (lambda content: content[:500] + b"????????" + content[508:], "not a whole tar archive|not a readable image"),
    ],
)
def test_a_damaged_archive_without_a_published_sum(folder, spoil, says):
    content, _ = scenes(5)
    folder.mkdir()
    (folder / "LSUN_resize.tar.gz").write_bytes(spoil(content))
    data_set = small_lsun(content, 5)
    [part] = data_set.parts
    part = replace(part, files=(DataFile(part.files[0].path),))
    with pytest.raises(DataDamaged, match=says):
        load_part(replace(data_set, parts=(part,)))


def test_too_few_scenes(folder):
    content, _ = scenes(5)
    folder.mkdir()
    (folder / "LSUN_resize.tar.gz").write_bytes(content)
    with pytest.raises(DataDamaged, match="hold 5 images, not 6"):
        load_part(small_lsun(content, 6))


def test_lsun_is_a_shift_of_the_colour_studies():
    for name in ("cifar10", "svhn"):
        assert load_study(name).shifts["lsun"].data_set == "lsun"


def test_pytorch_ood_has_the_same_address_and_sum():
    theirs = pytest.importorskip("pytorch_ood.dataset.img").LSUNResize
    [part] = DATASETS["lsun"].parts
    assert part.files[0].path == theirs.filename and set(part.files[0].sums) == {theirs.tgz_md5}


def test_svhn_arrives_from_the_addresses_of_torchvision(server, folder, monkeypatch):
    torchvision = pytest.importorskip("torchvision")
    table = {}
    for split in ("train", "test"):
        packed = io.BytesIO()
        images = np.random.default_rng(2).integers(0, 256, (32, 32, 3, 4), dtype=np.uint8)
        savemat(packed, {"X": images, "y": np.array([[1], [10], [3], [9]])})
        _, name, _ = torchvision.datasets.SVHN.split_list[split]
        server.files[name] = packed.getvalue()
        table[split] = [server.address(name), name, hashlib.md5(packed.getvalue()).hexdigest()]
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", table)
    server.breaks = [1000]
    command.download(DATASETS["svhn"])
    for split, (_, name, md5) in table.items():
        part = next(part for part in DATASETS["svhn"].parts if part.split == split and part.complete)
        assert part.files[0].path == f"svhn/{name}"
        part = replace(part, count=4, files=(DataFile(part.files[0].path, {md5: ""}),))
        assert load_part(replace(DATASETS["svhn"], parts=(part,)), split).labels.tolist() == [1, 0, 3, 9]
    table["test"][2] = "0" * 32
    (folder / "svhn" / table["test"][1]).unlink()
    with pytest.raises(DataUnavailable, match="could not download svhn"):
        command.download(DATASETS["svhn"])
