"""Write ``requirements.txt``: the newest packages that fit the ranges of ``pyproject.toml``, pinned exactly.

``make requirements`` runs it. It asks pip what it would install into an empty environment and writes that down, so
that everybody builds the book with the same packages. Run ``make book`` and ``make test`` with the new pins before
committing them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = ("book", "dev", "distributed")

#: torch and torchvision are released in pairs; a pair that does not belong together fails at import.
TORCH_PAIR = ("torch==2.14.0", "torchvision==0.29.0")
#: Wheels that PyTorch brings along for Linux on x86-64 and for no other machine.
LINUX_ONLY = ("nvidia-", "cuda-", "triton")
LINUX = '; sys_platform == "linux" and platform_machine == "x86_64"'

HEAD = """\
# The exact environment in which the book was built and tested.
# Made by `make requirements` (tools/pin_requirements.py) with Python {python}; the ranges are in pyproject.toml.
# torch and torchvision are a pair; the CUDA wheels come with torch on Linux and are named for Linux only.
"""


def wanted() -> list[str]:
    """What the environment has to hold: what the library and the extras depend on, and what builds the library."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        settings = tomllib.load(file)
    project = settings["project"]
    groups = [project["dependencies"], *(project["optional-dependencies"][extra] for extra in EXTRAS)]
    groups.append(settings["build-system"]["requires"])
    return [need for group in groups for need in group if not need.startswith(project["name"])]


def resolved(needs: list[str]) -> dict[str, str]:
    """Name and version of every package that pip would install for some needs into an empty environment."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        subprocess.run([*command, "--report", str(report), *needs], check=True)
        installed = json.loads(report.read_text(encoding="utf-8"))["install"]
    return {entry["metadata"]["name"]: entry["metadata"]["version"] for entry in installed}


def requirements(packages: dict[str, str]) -> str:
    """Text of ``requirements.txt`` for the packages and versions of an environment."""
    lines = []
    for name in sorted(packages, key=str.lower):
        marker = LINUX if name.lower().startswith(LINUX_ONLY) else ""
        lines.append(f"{name}=={packages[name]}{marker}")
    python = ".".join(map(str, sys.version_info[:3]))
    return HEAD.format(python=python) + "\n".join(lines) + "\n"


def main() -> int:
    path = ROOT / "requirements.txt"
    path.write_text(requirements(resolved([*wanted(), *TORCH_PAIR])), encoding="utf-8")
    print(f"{path.name} written: try it with make book and make test")
    return 0


if __name__ == "__main__":
    sys.exit(main())
