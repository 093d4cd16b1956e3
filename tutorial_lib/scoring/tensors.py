"""Weights from a file, and nothing but weights: no pickle is ever run.

A ``.safetensors`` file is eight bytes (the length of a header, little endian), a JSON header that says type, shape and place
of every tensor, and the tensors. That is read here, in thirty lines, so that the library needs no further package; the format
is described at https://github.com/huggingface/safetensors. A ``.pt`` or ``.pth`` file is read by torch's restricted loader,
which takes tensors and refuses everything else.
"""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tutorial_lib.storage import Damaged

__all__ = ["read_safetensors", "read_weights"]

_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_LONGEST_HEADER = 100_000_000  # as in the reference implementation


def read_weights(path: Path | str) -> dict[str, Tensor]:
    """Tensors by name, on the CPU, from ``.safetensors`` or from a state dict in ``.pt`` or ``.pth``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: another suffix; or a file that holds more than tensors, which could run code.
        Damaged: the file is cut off, or not what its name says.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(2, "no such file", str(path))
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    if path.suffix not in (".pt", ".pth"):
        raise ValueError(f"weights come as .safetensors, or as a state dict in .pt or .pth, got {path.name}")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} holds more than tensors and is not opened, since a pickle can run any code. Where you trust it: "
            "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
        ) from error
    except (RuntimeError, EOFError, OSError) as error:
        raise Damaged(f"{path} is not a whole file of weights: {error}") from error
    state = _state_in(found)
    if state is None:
        raise ValueError(f"{path} holds no state dict (names to tensors), but a {type(found).__name__}")
    return state


def _state_in(found: Any) -> dict[str, Tensor] | None:
    """A state dict, also one level down as training scripts store it."""
    for candidate in (found, *(found.get(key) for key in ("state_dict", "model") if isinstance(found, dict))):
        if isinstance(candidate, dict) and candidate and all(isinstance(v, Tensor) for v in candidate.values()):
            return dict(candidate)
    return None


def read_safetensors(path: Path | str) -> dict[str, Tensor]:
    """Tensors by name, on the CPU.

    Raises:
        Damaged: the file is cut off, or not in this format.
    """
    content = Path(path).read_bytes()
    length = int.from_bytes(content[:8], "little")
    try:
        if len(content) < 8 or not 2 <= length <= min(len(content) - 8, _LONGEST_HEADER):
            raise ValueError("its header is cut off")
        header = json.loads(content[8 : 8 + length])
        header.pop("__metadata__", None)
        data = memoryview(content)[8 + length :]
        return {name: _tensor(entry, data) for name, entry in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"{path} is not a whole safetensors file: {error}") from error


def _tensor(entry: dict[str, Any], data: memoryview) -> Tensor:
    kind = entry["dtype"]
    if kind not in _TYPES:
        raise ValueError(f"tensors of type {kind} are not read here")
    dtype, shape = _TYPES[kind], [int(n) for n in entry["shape"]]
    start, end = entry["data_offsets"]
    if (
        not 0 <= start <= end <= len(data)
        or end - start != math.prod(shape) * dtype.itemsize
        or min(shape, default=0) < 0
    ):
        raise ValueError(f"a tensor of shape {shape} lies outside it")
    if start == end:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(data[start:end]), dtype=dtype).reshape(shape)
