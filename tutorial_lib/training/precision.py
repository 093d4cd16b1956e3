"""bfloat16 where a device has units for it, float32 elsewhere.

Nothing is measured on the spot: a training must not become another one because the machine was busy. "auto" asks the device
what it has, and an unknown answer means float32, which is right everywhere. Without units bfloat16 is emulated, and ten times
slower than float32.

============== ==========================================================================================================
device         bfloat16 if
============== ==========================================================================================================
``cpu``        it has AMX tiles or AVX512-BF16 (Intel from Cooper Lake, AMD from Zen 4), and no environment variable tells
               oneDNN, which multiplies, to do without
``cuda``       it computes in bfloat16 without emulating it: compute capability 8.0 (Ampere) and newer, or ROCm
any other      never; ask for it by name
============== ==========================================================================================================
"""

from __future__ import annotations

import os

import torch

__all__ = ["PRECISIONS", "autocast", "has_bfloat16_units", "resolved"]

#: What a training can be told.
PRECISIONS = ("auto", "float32", "bfloat16")


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The context of a forward pass: bfloat16 where ``precision`` (one of `PRECISIONS`) says so, else nothing."""
    return torch.autocast(device.type, torch.bfloat16, enabled=resolved(precision, device) == "bfloat16")


def resolved(precision: str, device: torch.device) -> str:
    """``"float32"`` or ``"bfloat16"``: what ``precision`` means on a device.

    >>> resolved("auto", torch.device("meta")), resolved("bfloat16", torch.device("cpu"))
    ('float32', 'bfloat16')
    """
    if precision == "auto":
        return "bfloat16" if has_bfloat16_units(device) else "float32"
    return precision


def has_bfloat16_units(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 faster than float32, as far as it tells; False where it does not."""
    if device.type == "cuda":
        with torch.cuda.device(device):  # without the argument, emulation would count
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return not _limited() and any(_probe(name) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    return False


def _limited() -> bool:
    """Whether oneDNN is told which instructions to use: it may have to do without those that the processor has."""
    return any(os.environ.get(name) for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"))


def _probe(name: str) -> bool:
    """torch names these probes with an underscore in every version we support, and not every version has both."""
    probe = getattr(torch.cpu, name, None)
    return bool(probe and probe())
