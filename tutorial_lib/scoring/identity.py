"""What makes two networks the same: the files that they came from and, where code loads its own weights, the weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

__all__ = ["files_sha256", "state_sha256"]


def files_sha256(files: Sequence[Path], state: str = "") -> str:
    """Of the contents, in this order, and of the hash of a state, where the files do not hold the weights."""
    found = hashlib.sha256()
    for path in files:
        with path.open("rb") as stream:
            found.update(hashlib.file_digest(stream, "sha256").digest())
    found.update(bytes.fromhex(state))
    return found.hexdigest()


def state_sha256(network: nn.Module) -> str:
    """Of names, shapes, types and bytes of a network's state; empty if it draws its weights when it first sees an image."""
    if any(is_lazy(parameter) for parameter in network.parameters()):
        return ""
    found = hashlib.sha256()
    _add(found, network.state_dict())
    return found.hexdigest()


def _add(found: Any, value: Any) -> None:
    """A tensor, or what a state dict may hold besides: the packed weights of a quantised layer are a tuple, say."""
    if isinstance(value, Tensor):
        if value.is_quantized:
            found.update(f"{value.qscheme()} {value.dtype}".encode())
            value = value.dequantize()
        plain = (value if value.layout == torch.strided else value.to_dense()).detach().cpu()
        found.update(f"{plain.dtype} {tuple(plain.shape)}\n".encode())
        found.update(plain.contiguous().reshape(-1).view(torch.uint8).numpy())
    elif isinstance(value, Mapping):
        for name, entry in value.items():
            found.update(f"{name}\n".encode())
            _add(found, entry)
    elif isinstance(value, list | tuple):
        for entry in value:
            _add(found, entry)
    elif value is None or isinstance(value, str | int | float):
        found.update(f"{value!r}\n".encode())  # of other objects the text may hold an address
