"""A device that every machine has and that is not the processor: what would fail on an accelerator fails on it, too.

PyTorch leaves a place for back ends of others, ``PrivateUse1``. This one is called ``standin``. Its tensors keep their numbers
in an ordinary tensor, and every operation is done there; so it gives the processor's numbers. But it is another device:

* operations that meet tensors of both devices are refused, as CUDA refuses them (single numbers and indices may differ);
* a tensor of it is not to be had as a NumPy array;
* a processor's random generator cannot fill it.

It needs a torch that lets a back end be written in Python (2.9 and newer); `AVAILABLE` says whether this one does. What it
cannot show: other rounding, memory that runs out, streams, and kernels that CUDA lacks.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils import backend_registration

__all__ = ["AVAILABLE", "NAME", "StandIn", "install"]

NAME = "standin"
AVAILABLE = hasattr(backend_registration, "_setup_privateuseone_for_python_backend")

_aten = torch.ops.aten
_MOVES = {_aten.copy_.default, _aten._to_copy.default}
_INDICES_MAY_DIFFER = {
    _aten.index.Tensor,
    _aten.index_put_.default,
    _aten.index_put.default,
    _aten._index_put_impl_.default,
}


_WHOLE = (
    *("copy_", "_to_copy", "arange", "arange.start", "arange.start_step", "linspace", "eye", "eye.m"),
    *("randperm", "randperm.generator"),
)
"""Operations that torch would take apart into an empty tensor and what fills it, where a shell cannot grow."""

_kept: list[torch.library.Library] = []  # a library that is collected takes its operations with it


class StandIn(torch.Tensor):
    """A tensor on the device: a shell that says where it is, and the numbers in an ordinary tensor."""

    numbers: torch.Tensor
    __slots__ = ("numbers",)

    @staticmethod
    def __new__(cls, numbers: torch.Tensor) -> StandIn:
        shell = torch.Tensor._make_wrapper_subclass(
            cls,
            numbers.shape,
            strides=numbers.stride(),
            storage_offset=numbers.storage_offset(),
            dtype=numbers.dtype,
            layout=numbers.layout,
            device=torch.device(NAME, 0),
        )
        shell.numbers = numbers
        return shell

    def __repr__(self, **options: Any) -> str:  # type: ignore[override]
        return f"StandIn({self.numbers!r})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.detach().cpu().__reduce_ex__(protocol)  # as what is read again with map_location="cpu"

    def tolist(self) -> Any:
        return self.numbers.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        if force:
            return self.detach().cpu().numpy()
        raise TypeError(f"can't convert {NAME}:0 device type tensor to numpy. Use Tensor.cpu() first.")

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        return self.numpy()

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(operation, args, kwargs or {})


StandIn.__torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]


def _computed(operation: Any, args: Any, kwargs: Any) -> Any:
    """Do an operation on the processor, and give back tensors of this device, unless it leads away from it."""
    _refuse_two_devices(operation, args, kwargs)
    kwargs = dict(kwargs)
    to_here = True
    if kwargs.get("device") is not None:
        to_here = torch.device(kwargs["device"]).type == NAME
        kwargs["device"] = torch.device("cpu")
    if operation is _aten.copy_.default:  # into whichever device the first one lies on
        to_here = isinstance(args[0], StandIn)
    shells = {id(leaf.numbers): leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, StandIn)}
    theirs = pytree.tree_map_only(StandIn, lambda shell: shell.numbers, (args, kwargs))
    if operation is _aten._pin_memory.default or operation is _aten.is_pinned.default:
        raise RuntimeError(f"{NAME} has no pinned memory")
    result = operation(*theirs[0], **theirs[1])
    if not to_here:
        return result

    def here(tensor: torch.Tensor) -> torch.Tensor:
        shell = shells.get(id(tensor))  # an operation in place gives back what it was given
        if shell is not None:
            return shell
        with torch.inference_mode(False):  # torch does not know a shell that is an inference tensor
            return StandIn(tensor)

    return pytree.tree_map_only(torch.Tensor, here, result)


def _refuse_two_devices(operation: Any, args: Any, kwargs: Any) -> None:
    generator = kwargs.get("generator")
    if generator is not None and generator.device.type != NAME:
        raise RuntimeError(f"Expected a '{NAME}' device type for generator but found '{generator.device.type}'")
    if operation in _MOVES:
        return
    if operation in _INDICES_MAY_DIFFER:
        args = (args[0], *args[2:])
    tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    here = [tensor for tensor in tensors if isinstance(tensor, StandIn)]
    elsewhere = [tensor for tensor in tensors if not isinstance(tensor, StandIn) and tensor.dim() > 0]
    if here and elsewhere:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, {NAME}:0 and "
            f"{elsewhere[0].device}, in {operation}"
        )


def _created(operation: Any, *args: Any, **kwargs: Any) -> Any:
    """What reaches the back end itself makes new tensors."""
    return _computed(operation, args, kwargs)


class _Backend(getattr(backend_registration, "_DummyBackendModule", object)):  # type: ignore[misc]
    """What ``torch.standin`` would be."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


@functools.cache
def install() -> torch.device:
    """Make the device known to torch, once per process; returns it."""
    backend_registration._setup_privateuseone_for_python_backend(NAME, _Backend())
    everything, some = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    everything.fallback(_created, "PrivateUse1")
    for name in _WHOLE:
        packet, _, overload = name.partition(".")
        operation = getattr(getattr(_aten, packet), overload or "default")
        some.impl(name, functools.partial(_created, operation), "PrivateUse1")
    _kept.extend((everything, some))
    return torch.device(NAME, 0)
