"""Every chapter as Colab runs it: an empty folder, Colab's kind of packages, the library installed by the first cell.

The environment is a new virtual environment into which Colab's kind of packages are linked from this one, so that
nothing else can be imported: no Jupyter Book, no ``tutorial_lib``. A stand-in ``google.colab`` makes the set-up cell
act, and git is told to take the repository's address for this very checkout, so that the last commit gets installed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from notebook_cells import SETUP_TAG, repository_address
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))

#: What Colab has of all that the course could want. Their own requirements come with them.
COLAB = (
    *("torch", "torchvision", "numpy", "scipy", "scikit-learn", "matplotlib", "pillow", "tqdm", "joblib"),
    *("ipywidgets", "ipykernel", "pip", "setuptools"),
)


#: What ``%pip`` says whenever it has installed anything.
PIP_NOTE = "Note: you may need to restart the kernel to use updated packages."


def closure(names: Sequence[str]) -> dict[str, object]:
    """Distributions by name: those asked for, and everything that they require on this machine."""
    found: dict[str, object] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            continue  # required on other platforms
        for text in distribution(name).requires or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    return found


@pytest.fixture(scope="module")
def colab(tmp_path_factory):
    """Folder of the environment, and the variables under which its kernels run."""
    inside = subprocess.run(["git", "-C", ROOT, "rev-parse", "--verify", "-q", "HEAD"], capture_output=True)
    if inside.returncode != 0:
        pytest.skip("this is not a git checkout, and Colab installs the library from git")
    folder = tmp_path_factory.mktemp("colab")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "environment"], check=True)
    packages = next((folder / "environment").glob("lib/python*/site-packages"))
    for found in closure(COLAB).values():
        for top in {file.parts[0] for file in found.files or [] if file.parts[0] not in ("..", "__pycache__")}:
            source = Path(str(found.locate_file(top)))
            if source.exists() and not (packages / top).exists():
                (packages / top).symlink_to(source)
    (packages / "google" / "colab").mkdir(parents=True)
    (packages / "google" / "colab" / "__init__.py").write_text('"""A stand-in: only its being there counts."""\n')
    python = folder / "environment" / "bin" / "python"
    kernel = folder / "jupyter" / "kernels" / "colab"
    kernel.mkdir(parents=True)
    launch = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernel / "kernel.json").write_text(json.dumps({"argv": launch, "display_name": "Colab", "language": "python"}))
    (folder / "home").mkdir()
    unwanted = ("TUTORIAL_", "PYTHON", "VIRTUAL_ENV", "JUPYTER")
    variables = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    variables |= {
        "HOME": str(folder / "home"),
        "JUPYTER_PATH": str(folder / "jupyter"),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{ROOT.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": repository_address(),
    }
    return folder, variables


def installed(folder: Path) -> set[str]:
    """Names of the distributions in the environment, with their versions."""
    return {path.name for path in folder.glob("environment/lib/python*/site-packages/*.dist-info")}


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_chapter_runs_as_in_colab(chapter, colab, tmp_path, monkeypatch):
    folder, variables = colab
    for name in [name for name in os.environ if name not in variables]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(chapter, as_version=4)
    before = installed(folder) - {name for name in installed(folder) if name.startswith("tutorial_lib")}
    client = NotebookClient(notebook, timeout=300, kernel_name="colab", resources={"metadata": {"path": str(tmp_path)}})
    seconds = {}
    with client.setup_kernel():
        for index, cell in enumerate(notebook.cells):
            start = time.monotonic()
            client.execute_cell(cell, index)
            seconds[index] = time.monotonic() - start
    setup = [index for index, cell in enumerate(notebook.cells) if SETUP_TAG in cell.metadata.get("tags", [])]
    assert len(setup) == 1
    assert seconds[setup[0]] < 60, f"the first cell took {seconds[setup[0]]:.0f} s"
    printed = "".join(output.get("text", "") for output in notebook.cells[setup[0]].get("outputs", []))
    printed = printed.replace(PIP_NOTE, "")
    assert "restart" not in printed.lower(), f"Colab's reader is asked to restart: {printed}"
    added = installed(folder) - before
    assert {name.split("-")[0] for name in added} == {"tutorial_lib"}, f"the first cell installed {sorted(added)}"
