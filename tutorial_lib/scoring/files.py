"""Networks that come as one file: ``torch.export`` (``.pt2``) and TorchScript (``.pt``). Neither runs a pickle here.

TorchScript is read by torch's C++ loader. ``torch.export.load`` does unpickle parts of its archive, without restriction where
the restricted way fails; so these parts are first read with ``weights_only=True``, and a file whose parts hold anything but
tensors is not opened. Networks that wait as a bare pickle (``torch.save(model)``) are refused, with what to do instead.
"""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tutorial_lib.storage import Damaged

__all__ = ["beside", "config_beside", "gist", "load_exported", "load_torchscript", "read_config", "scripted_head"]

CONFIG = "config.json"
"""What a network says of itself inside its file (``extra_files``), or beside it; timm's keys."""


def load_exported(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The network of a ``.pt2`` file, layers under their names, and its `CONFIG`; evaluation mode is frozen in.

    Raises:
        ValueError: it holds pickled objects.
        Damaged: it is no whole ``.pt2`` file.
    """
    content = path.read_bytes()
    _check_pickles(path, content)
    extra = {CONFIG: ""}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.load(io.BytesIO(content), extra_files=extra)
            network = _in_common_words(torch.export.unflatten(program))
    except Exception as error:  # schema errors of every kind
        raise Damaged(f"{path} is no .pt2 file that torch {torch.__version__} can read: {gist(error)}") from error
    return network, _config(path, extra)


_REORDERED: dict[str, Callable[..., Tensor]] = {
    "batch_norm": lambda x, w, b, mean, var, training, momentum, eps, cudnn=True: F.batch_norm(
        x, mean, var, w, b, training, momentum, eps
    ),
    "layer_norm": lambda x, shape, w=None, b=None, eps=1e-5, cudnn=True: F.layer_norm(x, shape, w, b, eps),
    "group_norm": lambda x, groups, w=None, b=None, eps=1e-5, cudnn=True: F.group_norm(x, groups, w, b, eps),
}
"""Operators whose arguments stand in another order than those of the function of the same name."""

_ALIKE = """conv1d conv2d conv3d linear relu relu_ relu6 gelu silu silu_ elu leaky_relu mish hardtanh hardswish hardsigmoid max_pool2d
    avg_pool2d adaptive_avg_pool2d scaled_dot_product_attention sigmoid tanh softmax add sub mul div matmul mean cat flatten"""
"""Operators that take what the function of the same name takes. Not every name means the same: ``index`` does not."""


def _in_common_words(network: nn.Module) -> nn.Module:
    """The same network, with ``torch.nn.functional.conv2d`` where the file says ``aten.conv2d``, and so on.

    `tutorial_lib.gradients` knows the former by heart, so that gradients of all images come from one backward pass.
    """
    for module in network.modules():
        graph = getattr(module, "graph", None)
        for node in graph.nodes if isinstance(graph, torch.fx.Graph) else ():
            if node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload):
                name = node.target.overloadpacket.__name__
                found = getattr(F, name, None) or getattr(torch, name, None) if name in _ALIKE.split() else None
                node.target = _REORDERED.get(name) or found or node.target
    return network


def _check_pickles(path: Path, content: bytes) -> None:
    """Read what the loader would unpickle, restricted to tensors."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
            pickled = [name for name in names if name.endswith(".pt")]
            for name in names:
                if name.endswith(("_weights_config.json", "_constants_config.json")):
                    folder = name.rpartition("/")[0]
                    payloads = json.loads(archive.read(name))["config"].values()
                    pickled += [f"{folder}/{part['path_name']}" for part in payloads if part["use_pickle"]]
            parts = {name: archive.read(name) for name in dict.fromkeys(pickled)}
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError) as error:
        raise Damaged(f"{path} is no whole .pt2 file: {error}") from error
    for name, part in parts.items():
        try:
            if part:
                torch.load(io.BytesIO(part), map_location="cpu", weights_only=True)
        except Exception as error:
            raise ValueError(f"{path} is not opened: its part {name} is a pickle of more than tensors") from error


def load_torchscript(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The network of a TorchScript file, and its `CONFIG`.

    Raises:
        ValueError: it is a bare pickle.
        Damaged: it is no whole TorchScript file.
    """
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is not TorchScript; if it is a pickle, it is not opened: {_INSTEAD}")
    with zipfile.ZipFile(path) as archive:
        scripted = any("/code/" in name for name in archive.namelist())
    if not scripted:
        raise ValueError(f"{path} is a pickle, which can run any code, and is not opened: {_INSTEAD}")
    extra: dict[str, Any] = {CONFIG: ""}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that torch.export is to be preferred
            network = torch.jit.load(path, map_location="cpu", _extra_files=extra)
    except RuntimeError as error:
        raise Damaged(f"{path} is no whole TorchScript file: {gist(error)}") from error
    return network.eval(), _config(path, extra)


_INSTEAD = (
    "save the network with torch.export.save, or its state dict as .safetensors and name the code that builds it "
    "(--model module.py:factory --weights file.safetensors)"
)


def beside(path: Path) -> list[Path]:
    """Where a network that is one file may have its config: ``NAME.json`` or `CONFIG` in the same folder."""
    return [path.with_suffix(".json"), path.with_name(CONFIG)]


def config_beside(path: Path) -> dict[str, Any]:
    """The first config that lies beside a network; empty if there is none.

    Raises:
        Damaged: it is no dictionary in JSON.
    """
    return next((read_config(file) for file in beside(path) if file.is_file() and file.stat().st_size), {})


def read_config(file: Path) -> dict[str, Any]:
    """The dictionary in a JSON file.

    Raises:
        Damaged: it is none.
    """
    return _dictionary(file.read_bytes(), str(file))


def _config(path: Path, extra: dict[str, Any]) -> dict[str, Any]:
    """From inside the file, else from beside it."""
    inside = extra[CONFIG].encode() if isinstance(extra[CONFIG], str) else extra[CONFIG]
    return _dictionary(inside, f"the {CONFIG} inside {path}") if inside else config_beside(path)


def _dictionary(content: bytes, where: str) -> dict[str, Any]:
    try:
        found = json.loads(content.decode("utf-8-sig"))
    except ValueError as error:  # no UTF-8, or no JSON
        raise Damaged(f"{where} is no JSON in UTF-8: {error}") from error
    if not isinstance(found, dict):
        raise Damaged(f"{where} holds no dictionary, but a {type(found).__name__}")
    return found


def gist(error: BaseException) -> str:
    """What an error says; of a TorchScript interpreter's, which quotes all of its code, the last line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    if any("TorchScript interpreter" in line for line in lines):
        return lines[-1].removeprefix("RuntimeError: ")
    return " ".join(lines)


def scripted_head(network: nn.Module, name: str) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """``features`` and ``head`` of a TorchScript network, on whose layers no hook can listen.

    The features are what is multiplied with the weights of the linear layer ``name``: PyTorch's dispatcher says so while the
    network runs.
    """
    parameters = dict(network.named_parameters())
    weight, bias = parameters[f"{name}.weight"], parameters.get(f"{name}.bias")

    def features(images: Tensor) -> Tensor:
        with _Products(weight) as listener:
            network(images)
        if len(listener.met) != 1:
            raise ValueError(f"the layer {name!r} ran {len(listener.met)} times in one forward pass; it must run once")
        return listener.met[0]

    return features, lambda inputs: F.linear(inputs, weight, bias)


class _Products(TorchDispatchMode):
    """Remembers what is multiplied with the transpose of one matrix."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight, self.met = weight, list[Tensor]()

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        name = function.overloadpacket.__name__
        if name in ("addmm", "mm", "linear"):
            left, right = arguments[1:3] if name == "addmm" else arguments[:2]
            if isinstance(right, Tensor) and right.data_ptr() == self.weight.data_ptr():
                self.met.append(left)
        return function(*arguments, **(named or {}))
