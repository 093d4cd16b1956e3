"""Trained weights on disk: written whole or not at all, and checked when they are read.

A checkpoint is two files. ``NAME.pt`` holds plain tensors and is read with ``weights_only=True``, so that opening one
can run no code. ``NAME.json`` beside it holds the SHA-256 of the first, what made it (command, settings, measured
accuracy), and the SHA-256 of all that.
"""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tutorial_lib.storage import Damaged, sealed, unsealed, write_atomically


class CheckpointError(Damaged):
    """A checkpoint is missing, damaged, or belongs to something else."""


def save_checkpoint(path: Path | str, state: dict[str, Any], record: dict[str, Any], half: bool = False) -> Path:
    """Store tensors and the record of what made them.

    Args:
        path: where to, ending in ``.pt``; the record goes beside it as ``.json``.
        state: tensors, and dictionaries, lists, numbers and strings of them (a ``state_dict``, say).
        record: what made it, as JSON; the checksums are added.
        half: store floating-point tensors in half precision (they come back as float32).

    Returns:
        ``path``.
    """
    path = Path(path)
    if path.suffix != ".pt":
        raise ValueError(f"a checkpoint's name ends in .pt, got {path.name!r}")
    stream = io.BytesIO()
    torch.save({"half": half, "state": _convert(state, torch.float16) if half else state}, stream)
    content = stream.getvalue()
    record = sealed(record | {"sha256": hashlib.sha256(content).hexdigest()})
    write_atomically(path, content)
    write_atomically(path.with_suffix(".json"), (json.dumps(record, indent=2) + "\n").encode())
    return path


def load_checkpoint(path: Path | str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read what `save_checkpoint` wrote: ``(state, record)``, tensors on the CPU.

    Raises:
        CheckpointError: a file is missing, or the content is not what its record says.
    """
    path = Path(path)
    for file in (path, path.with_suffix(".json")):
        if not file.exists():
            raise CheckpointError(f"no checkpoint file {file}; train it again, or restore the file")
    content = path.read_bytes()
    try:
        record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        expected = record["sha256"]
    except (ValueError, KeyError, TypeError):
        raise CheckpointError(f"{path.with_suffix('.json')} is damaged: no SHA-256 in it; restore it") from None
    try:
        record = unsealed(record)
    except ValueError as error:
        raise CheckpointError(f"{path.with_suffix('.json')} is damaged: {error}; restore it") from None
    if hashlib.sha256(content).hexdigest() != expected:
        raise CheckpointError(
            f"{path} is damaged: its SHA-256 is not the one recorded beside it; delete both or restore them"
        )
    stored = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return (_convert(stored["state"], torch.float32) if stored["half"] else stored["state"]), record


def _convert(value: Any, dtype: torch.dtype) -> Any:
    """``value`` with every half or single precision tensor in ``dtype``; whole numbers stay as they are."""
    if isinstance(value, Tensor):
        return value.detach().cpu().to(dtype) if value.dtype in (torch.float16, torch.float32) else value.detach().cpu()
    if isinstance(value, dict):
        return {key: _convert(item, dtype) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_convert(item, dtype) for item in value)
    return value
