"""The same request, the same number: what a cached result belongs to, seeds, and threads.

A cache must forget what other code made, and must not forget for a typo in a docstring: `source_hash`. A network
belongs to its seed, whatever random numbers were drawn before it (`seeded`) and however many threads the processor has
to share a sum among (`one_thread`).
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["one_thread", "seeded", "source_hash"]

_LIBRARY = Path(__file__).resolve().parent


def source_hash(*parts: str, without: tuple[str, ...] = ()) -> str:
    """SHA-256 of what a part of the library does: its source without comments, docstrings and layout.

    Args:
        parts: modules and folders relative to ``tutorial_lib``, ``"models"`` or ``"training/classifier.py"``.
        without: modules in those folders that decide nothing about the result.

    Raises:
        FileNotFoundError: there is no such part; a hash of nothing would never change.

    >>> len(source_hash("storage.py")), source_hash("storage.py") == source_hash("metrics.py")
    (64, False)
    """
    return _source_hash(_LIBRARY, parts, without)


@functools.cache
def _source_hash(library: Path, parts: tuple[str, ...], without: tuple[str, ...]) -> str:
    content = hashlib.sha256()
    for part in parts:
        files = sorted((library / part).rglob("*.py")) if (library / part).is_dir() else [library / part]
        for file in files:
            name = file.relative_to(library).as_posix()
            if name not in without:
                content.update(f"{name}: {_meaning(file.read_text(encoding='utf-8'))}\n".encode())
    return content.hexdigest()


def _meaning(source: str) -> str:
    """The syntax tree as text, without docstrings.

    >>> _meaning("def f():\\n    'One.'\\n    return 1") == _meaning("def f(): return 1  # one")
    True
    """
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if ast.get_docstring(node) is not None:
                node.body = node.body[1:]
    return ast.dump(tree)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from PyTorch's global random numbers as if ``seed`` had just been set; afterwards they go on as before.

    The CPU's numbers alone: initial weights are drawn there, whatever device they go to.

    >>> import torch
    >>> with seeded(0):
    ...     one = torch.rand(1)
    >>> with seeded(0):
    ...     one == torch.rand(1)
    tensor([True])
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)  # `torch.manual_seed` would set CUDA's, too
        yield


@contextmanager
def one_thread(alone: bool = True) -> Iterator[None]:
    """Compute on one thread of the CPU, so that a sum has one order; afterwards as many as before.

    Several threads share a sum and add up its parts: another number of threads, another last digit, and after some
    hundred steps of training another network. For small networks they gain nothing besides, and on a busy machine they
    wait for each other longer than they work.

    Args:
        alone: False does nothing, for work that is large enough to be shared.
    """
    import torch

    before = torch.get_num_threads()
    try:
        if alone:
            torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(before)
