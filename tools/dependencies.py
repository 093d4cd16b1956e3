"""What a notebook needs of the library: the modules that it imports, directly or not, and the data files they read.

The build executes a notebook again when one of these has changed, and only then. Imports are read from the source, without
running it, wherever they stand. A module that imports others by name is followed as far as the source says which:

* ``importlib.import_module("tutorial_lib.x")``: that module;
* ``importlib.import_module(f"tutorial_lib.x.{name}")``: every module of ``tutorial_lib.x``, as for the registry of the
  experiments;
* names of modules in a table (``"tutorial_lib.x"`` as a string): those modules;
* anything else: the whole library.

A data file counts when its package is imported; one of an experiment, ``experiments/results/calibration_cifar10.npz``, when
``tutorial_lib.experiments.calibration`` is imported or a source speaks of ``calibration`` in a string, for results are read
by the experiment's name.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import nbformat

LIBRARY = "tutorial_lib"
EXPERIMENTS = f"{LIBRARY}.experiments"
_BY_NAME = {"import_module", "__import__", "iter_modules", "walk_packages"}


def of_notebook(notebook: Path, root: Path) -> list[Path]:
    """Files of the library that a notebook depends on, sorted.

    Args:
        notebook: the file.
        root: of the repository, in which ``tutorial_lib`` lies.
    """
    everything = [
        path
        for path in (root / LIBRARY).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    ]
    code = _code(notebook)
    modules = _reached(code, root)
    if modules is None:
        return sorted(everything)
    sources = [code, *(path.read_text(encoding="utf-8") for path in modules.values())]
    strings = set().union(*map(_strings, sources))
    data = {path for path in everything if path.suffix != ".py" and _is_read(path, root, set(modules), strings)}
    return sorted({*modules.values(), *data})


@cache
def _parsed(source: str) -> ast.Module:
    return ast.parse(source)


def content(path: Path) -> bytes:
    """What counts of a file: all of it, but for comments and layout of a Python module."""
    if path.suffix != ".py":
        return path.read_bytes()
    return _dumped(path.read_text(encoding="utf-8"))


@cache
def _dumped(source: str) -> bytes:
    return ast.dump(_parsed(source)).encode()


def _code(notebook: Path) -> str:
    cells = nbformat.read(notebook, as_version=4).cells
    return "\n".join(
        "\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in cell.source.splitlines())
        for cell in cells
        if cell.cell_type == "code" and "colab-setup" not in cell.metadata.get("tags", [])
    )


def _reached(code: str, root: Path) -> dict[str, Path] | None:
    """Modules of the library that a source imports, directly or not, with their files; None: it could be any."""
    found: dict[str, Path] = {}
    waiting = _imports(code, "", root)
    while waiting:
        name = waiting.pop()
        if name == "*":
            return None
        path = _file_of(name, root)
        if name in found or path is None:
            continue
        found[name] = path
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        waiting |= _imports(path.read_text(encoding="utf-8"), package, root)
    return found


def _imports(source: str, package: str, root: Path) -> set[str]:
    """Names of the modules of the library that a source imports, and of their packages; ``*`` stands for all."""
    names: set[str] = set()
    by_unknown_name = in_table = False
    for node in ast.walk(_parsed(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            start = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
            base = ".".join(part for part in (start, node.module) if part)
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith(f"{LIBRARY}."):
            names.add(node.value.rstrip("."))
            in_table |= _file_of(node.value, root) is not None
        elif isinstance(node, ast.Call) and _name_called(node) in _BY_NAME:
            modules = _modules_named(node, root)
            by_unknown_name |= modules is None
            names |= modules or set()
    packages = {".".join(name.split(".")[:depth]) for name in names for depth in range(1, name.count(".") + 2)}
    own = {name for name in packages if name == LIBRARY or name.startswith(f"{LIBRARY}.")}
    return own | ({"*"} if by_unknown_name and not in_table else set())


def _name_called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _modules_named(call: ast.Call, root: Path) -> set[str] | None:
    """Modules that an import by name can mean; None when its argument does not say."""
    argument = call.args[0] if call.args else None
    if isinstance(argument, ast.Constant) and isinstance(argument.value, str) and not argument.value.startswith("."):
        return {argument.value}
    if isinstance(argument, ast.JoinedStr) and isinstance(argument.values[0], ast.Constant):
        start, dot, _ = str(argument.values[0].value).rpartition(".")
        if dot:
            folder = root.joinpath(*start.split("."))
            return {start} | {f"{start}.{path.stem}" for path in folder.glob("*.py") if path.stem != "__init__"}
    return None


def _file_of(module: str, root: Path) -> Path | None:
    base = root.joinpath(*module.split("."))
    for path in (base / "__init__.py", base.with_suffix(".py")):
        if path.is_file():
            return path
    return None


@cache
def _strings(source: str) -> frozenset[str]:
    """The strings of a source, docstrings left out."""
    tree = _parsed(source)
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return frozenset(
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose
    )


def _is_read(path: Path, root: Path, modules: set[str], strings: set[str]) -> bool:
    package = next(folder for folder in path.parents if (folder / "__init__.py").is_file() or folder == root)
    name = ".".join(package.relative_to(root).parts)
    if name != EXPERIMENTS:
        return name in modules or package == root
    experiments = [file.stem for file in package.glob("*.py") if path.stem.startswith(file.stem)]
    if not experiments:
        return True
    experiment = max(experiments, key=len)
    return f"{EXPERIMENTS}.{experiment}" in modules or any(_speaks_of(text, experiment) for text in strings)


def _speaks_of(text: str, experiment: str) -> bool:
    """Whether a string holds an experiment's name, or can be the first part of it, as in ``f"gradcon_{kind}"``."""
    return experiment in text or (text.endswith("_") and experiment.startswith(text))
