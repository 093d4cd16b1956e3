"""``python -m tutorial_lib data``: what it prints, its exit status, and downloads from a server on this machine."""

import functools
import hashlib
import http.server
import inspect
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
import torchvision.datasets

from tutorial_lib.__main__ import main
from tutorial_lib.commands import data as command
from tutorial_lib.data import DATASETS, DataUnavailable
from tutorial_lib.data.catalogue import _archive, _torchvision


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TUTORIAL_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def test_the_command_as_a_reader_types_it(folder):
    run = subprocess.run([sys.executable, "-m", "tutorial_lib", "data"], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    lines = run.stdout.splitlines()
    assert lines[0] == f"Data folder: {folder} (TUTORIAL_DATA)"
    found = {line.split()[0]: line.split()[1] for line in lines[2:] if not line.startswith(" ")}
    assert list(found) == list(DATASETS)
    assert {name for name, state in found.items() if state == "embedded"} == {"digits", "photographs"}
    assert {state for name, state in found.items() if name not in ("digits", "photographs")} == {"missing"}
    assert all(len(line) <= 100 for line in lines[1:])
    for name in DATASETS:
        if DATASETS[name].download is not None:
            assert any(line.strip().endswith(f"python -m tutorial_lib data --download {name}") for line in lines)


def test_a_damaged_file_is_named_and_fails_the_command(folder, capsys):
    for part in DATASETS["cifar10"].parts:
        for file in part.files:
            write(folder / file.path, b"x")
    assert main(["data"]) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "cifar10 damaged" in out
    assert "data_batch_1 is damaged: its MD5 is 9dd4e461268c8034f5c8564e155c67a6" in out


def test_states(folder, monkeypatch):
    data_set = DATASETS["svhn"]
    content = {"svhn/train_32x32.mat": b"train", "svhn/test_32x32.mat": b"test", "svhn/train_32x32_subset.mat": b"part"}
    parts = []
    for part in data_set.parts:
        [file] = part.files
        if file.path in content:
            sums = {hashlib.md5(content[file.path]).hexdigest(): ""}
            parts.append(replace(part, files=(replace(file, sums=sums),)))
    data_set = replace(data_set, parts=tuple(parts))
    assert command.state(data_set).word == "missing"
    write(folder / "svhn/train_32x32_subset.mat", b"part")
    part = command.state(data_set)
    assert part.word == "part"
    assert part.lines == (
        "train 1,004 in svhn/train_32x32_subset.mat: 1,004 of the first 1,083 of 73,257 training images",
        "to get train and test as published: python -m tutorial_lib data --download svhn",
    )
    write(folder / "svhn/train_32x32.mat", b"train")
    assert command.state(data_set).word == "part"
    assert command.state(data_set).lines[-1].startswith("to get test as published")
    write(folder / "svhn/test_32x32.mat", b"test")
    assert command.state(data_set) == (
        "ready",
        ("train 73,257 in svhn/train_32x32.mat", "test 26,032 in svhn/test_32x32.mat"),
    )
    write(folder / "svhn/test_32x32.mat", b"tost")
    assert command.state(data_set).word == "damaged"


def test_naming_a_missing_data_set_is_a_failure(folder, capsys):
    assert main(["data", "cifar10"]) == 1
    assert main(["data", "digits"]) == 0
    out = capsys.readouterr().out
    assert "terms: no licence stated; cite Krizhevsky 2009" in out


def test_a_wrong_name_is_guessed(folder, capsys):
    for arguments in (["data", "cifr10"], ["data", "--download", "cifr10"]):
        with pytest.raises(SystemExit) as exit_:
            main(arguments)
        assert exit_.value.code == 2
        assert "there is no data set 'cifr10'; did you mean 'cifar10'?\n" in capsys.readouterr().err


def test_unknown_command_and_no_command(capsys):
    for arguments in (["dta"], []):
        with pytest.raises(SystemExit) as exit_:
            main(arguments)
        assert exit_.value.code == 2


# --- downloads --------------------------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path):
    """The address of a folder served over HTTP on this machine."""
    served = tmp_path / "served"
    served.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    handler = functools.partial(Quiet, directory=str(served))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield served, f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


def test_download_fetches_checks_and_unpacks(folder, server):
    import zipfile

    served, address = server
    with zipfile.ZipFile(served / "pictures.zip", "w") as archive:
        archive.writestr("pictures/readme.txt", "hello")
    md5 = hashlib.md5((served / "pictures.zip").read_bytes()).hexdigest()
    data_set = replace(DATASETS["tiny_imagenet"], download=_archive(f"{address}/pictures.zip", md5, "pictures.zip"))
    command.download(data_set)
    assert (folder / "pictures/readme.txt").read_text() == "hello"


@pytest.mark.parametrize("fault", ["another sum", "no such file", "no server"])
def test_a_download_that_fails_says_why(folder, server, fault):
    served, address = server
    (served / "file.npz").write_bytes(b"content")
    md5 = hashlib.md5(b"content" if fault != "another sum" else b"other").hexdigest()
    url = {"no such file": f"{address}/gone.npz", "no server": "http://127.0.0.1:9/file.npz"}.get(
        fault, f"{address}/file.npz"
    )
    data_set = replace(DATASETS["pneumonia_mnist"], download=_archive(url, md5, "file.npz"))
    with pytest.raises(DataUnavailable, match=f"could not download pneumonia_mnist to {folder}: "):
        command.download(data_set)


def test_what_must_be_fetched_by_hand_says_how(folder):
    with pytest.raises(DataUnavailable, match=r"notmnist cannot be fetched by a command.*unpack http"):
        command.download(DATASETS["notmnist"])


def test_embedded_data_need_no_download(folder, capsys):
    assert main(["data", "--download", "digits"]) == 0
    assert "nothing to download" in capsys.readouterr().out


def test_torchvision_is_asked_for_every_split_in_the_right_folder(folder, monkeypatch):
    asked = []

    class Recorder:
        def __init__(self, root, **arguments):
            asked.append((root, arguments))

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", Recorder)
    DATASETS["cifar10"].download(folder)
    assert asked == [
        (folder, {"download": True, "train": True}),
        (folder, {"download": True, "train": False}),
    ]


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "textures"])
def test_torchvision_understands_what_it_is_asked(name, folder, monkeypatch):
    """Bind the arguments to the real constructors, without running them."""
    for class_name in ("MNIST", "FashionMNIST", "CIFAR10", "DTD"):
        signature = inspect.signature(getattr(torchvision.datasets, class_name).__init__)
        monkeypatch.setattr(
            getattr(torchvision.datasets, class_name),
            "__init__",
            lambda self, *args, _signature=signature, **kwargs: _signature.bind(self, *args, **kwargs) and None,
        )
    DATASETS[name].download(folder)


def test_a_download_of_several_values_calls_once_for_each(folder, monkeypatch):
    calls = []
    monkeypatch.setattr(torchvision.datasets, "MNIST", lambda root, **arguments: calls.append(arguments["train"]))
    _torchvision("MNIST", train=(True, False))(folder)
    assert calls == [True, False]
