"""The same network answers the same, whichever way it comes; what is not safe or not known is refused with what to do."""

from __future__ import annotations

import json
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from tutorial_lib.detectors import KNN, ActivationDensity, GradientDensity
from tutorial_lib.models import as_classifier
from tutorial_lib.scoring import Overrides, open_network, read_safetensors, read_weights
from tutorial_lib.storage import Damaged


def write_safetensors(path, tensors):
    """The format by hand, from its description."""
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, tensor in tensors.items():
        raw = tensor.numpy().tobytes()
        kind = {torch.float32: "F32", torch.int64: "I64", torch.uint8: "U8"}[tensor.dtype]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


@pytest.fixture(scope="module")
def reference(place):
    """The network as it was made, with its normalisation in front, put together by hand."""
    namespace: dict = {}
    exec((place / "net.py").read_text(), namespace)
    network = namespace["make"]()
    network.load_state_dict(torch.load(place / "state.pt", weights_only=True))
    return as_classifier(network.eval(), "7", (0.5,), (0.25,))


WAYS = {"net.pt2": None, "net.pt": None, "net.py:make": "state.pt"}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_gives_the_same_logits_and_features(place, reference, way):
    weights = WAYS[way] and place / WAYS[way]
    network = open_network(place / way, weights)
    images = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(network.model(images), reference(images))
        torch.testing.assert_close(network.model.features(images), reference.features(images))
    assert network.classes == 3 and not network.without_features
    assert network.preprocessing.size == (8, 8) and network.preprocessing.mean == (0.5,)
    expected = KNN(reference, k=3).fit(images[:30]).predict(images[30:])
    np.testing.assert_allclose(KNN(network.model, k=3).fit(images[:30]).predict(images[30:]), expected, atol=1e-5)


@pytest.mark.parametrize("way", ["net.pt2", "net.pt"])
def test_gradients_of_graph_formats_are_those_of_the_code(place, reference, way, recwarn):
    model = open_network(place / way).model
    images = torch.rand(30, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    expected = GradientDensity(reference).fit(images).predict(images[:4])
    np.testing.assert_allclose(GradientDensity(model).fit(images).predict(images[:4]), expected, rtol=1e-2)

    slow = [warning for warning in recwarn if "no rule covers" in str(warning.message)]
    assert bool(slow) == (way == "net.pt"), "an exported network's gradients take one backward pass"


@pytest.mark.parametrize("kind", ["batch norm", "dropout"])
def test_a_network_that_was_saved_in_training_mode_is_refused(tmp_path, kind):
    torch.manual_seed(0)
    layer = nn.BatchNorm2d(4) if kind == "batch norm" else nn.Dropout(0.5)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), layer, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    program = torch.export.export(
        network.train(), (torch.rand(2, 1, 8, 8),), dynamic_shapes=({0: torch.export.Dim("n")},)
    )
    torch.export.save(program, tmp_path / "net.pt2", extra_files={"config.json": '{"input_size": [1, 8, 8]}'})
    with pytest.raises(ValueError, match="Call .eval()"):
        open_network(tmp_path / "net.pt2", overrides=Overrides(normalized=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "swin_t"])
def test_torchvisions_networks_survive_the_export(tmp_path, name):
    from torchvision.models import get_model

    torch.manual_seed(0)
    network, images = get_model(name, num_classes=5).eval(), torch.rand(2, 3, 64, 64)
    program = torch.export.export(network, (images,), dynamic_shapes=({0: torch.export.Dim("n")},))
    torch.export.save(program, tmp_path / "net.pt2", extra_files={"config.json": '{"input_size": [3, 64, 64]}'})
    found = open_network(tmp_path / "net.pt2", overrides=Overrides(normalized=True))
    with torch.no_grad():
        torch.testing.assert_close(found.model(images), network(images))
    assert not found.without_features and found.model.features(images).shape[0] == 2


def test_layers_of_an_exported_network_can_be_listened_to(place, reference):
    model = open_network(place / "net.pt2").model
    images = torch.rand(30, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    expected = ActivationDensity(reference).fit(images).predict(images[:4])
    np.testing.assert_allclose(ActivationDensity(model).fit(images).predict(images[:4]), expected, rtol=1e-3)


def test_pickles_are_not_opened(place, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(pickle, "loads", lambda *a, **k: opened.append("loads"))
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pt")
    (tmp_path / "old.pt").write_bytes(pickle.dumps({"a": 1}))
    for name in ("whole.pt", "old.pt"):
        with pytest.raises(ValueError, match="is not opened.*module.py:factory"):
            open_network(tmp_path / name)
    with pytest.raises(ValueError, match="more than tensors"):
        read_weights(tmp_path / "whole.pt")
    with zipfile.ZipFile(place / "net.pt2") as archive, zipfile.ZipFile(tmp_path / "evil.pt2", "w") as copy:
        for name in archive.namelist():
            content = archive.read(name)
            if name.endswith("sample_inputs/model.pt"):
                torch.save(Evil(tmp_path / "ran"), tmp_path / "part")
                content = (tmp_path / "part").read_bytes()
            copy.writestr(name, content)
    with pytest.raises(ValueError, match="pickle of more than tensors"):
        open_network(tmp_path / "evil.pt2")
    assert not opened and not (tmp_path / "ran").exists()


class Evil:
    """Unpickled, it makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        import os

        return os.mkdir, (str(self.path),)


def test_safetensors_are_read_as_they_were_written(tmp_path):
    tensors = {"a": torch.randn(3, 4), "b": torch.arange(5), "empty": torch.empty(0, 2), "number": torch.tensor(2.5)}
    path = write_safetensors(tmp_path / "w.safetensors", tensors)
    found = read_safetensors(path)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype
    whole = path.read_bytes()
    for cut in (b"", whole[:6], whole[:40], whole[:-1], whole[:8] + b"x" + whole[9:]):
        path.write_bytes(cut)
        with pytest.raises(Damaged, match="w.safetensors"):
            read_safetensors(path)


def test_the_official_library_writes_what_is_read(tmp_path):
    official = pytest.importorskip("safetensors.torch")
    tensors = {"a": torch.randn(3, 4).half(), "b": torch.tensor([True, False]), "c": torch.randn(2).bfloat16()}
    official.save_file(tensors, tmp_path / "w.safetensors")
    assert all(
        torch.equal(value, tensors[name]) for name, value in read_safetensors(tmp_path / "w.safetensors").items()
    )


def test_a_torchvision_name_brings_its_preprocessing_and_as_many_classes_as_its_weights(tmp_path):
    from torchvision.models import (
        mnasnet0_5,
        squeezenet1_1,  # its last layer is a convolution
    )

    torch.manual_seed(0)
    network = mnasnet0_5(num_classes=5)
    weights = write_safetensors(tmp_path / "w.safetensors", network.state_dict())
    found = open_network("mnasnet0_5", weights)
    assert (found.kind, found.classes, found.class_names) == ("torchvision", 5, ())
    assert found.preprocessing.size == (224, 224) and found.preprocessing.resize == 256
    assert found.preprocessing.mean == (0.485, 0.456, 0.406) and not found.without_features
    convolutional = write_safetensors(tmp_path / "s.safetensors", squeezenet1_1(num_classes=4).state_dict())
    found = open_network("squeezenet1_1", convolutional, num_classes=4, overrides=Overrides(size=(64, 64)))
    assert found.classes == 4 and "linear" in found.without_features
    with pytest.raises(ValueError, match="does not fit"):
        open_network("mnasnet0_5", convolutional, num_classes=4)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nothing_at_all",), "no file and no network"),
        (("torchvision/resnet81", "w"), "did you mean"),
        (("elsewhere/resnet18",), "no file, folder or network"),
        (("resnet18",), "random weights"),
        (("net.py:makes",), "did you mean 'make'"),
        (("net.py:number",), "must return a torch.nn.Module"),
        (("net.pt2", "state.pt"), "leave --weights out"),
    ],
)
def test_what_cannot_be_used_is_said(place, arguments, says, monkeypatch):
    monkeypatch.chdir(place)
    with pytest.raises(ValueError, match=says):
        open_network(*arguments)


def test_unknown_preprocessing_is_not_guessed(place, tmp_path):
    plain = tmp_path / "plain.pt"
    torch.jit.save(torch.jit.load(place / "net.pt"), plain)
    with pytest.raises(ValueError, match="nothing says how .* wants its images"):
        open_network(plain)
    size = Overrides(size=(8, 8), channels=1)
    with pytest.raises(ValueError, match="nothing says how .* normalises"):
        open_network(plain, overrides=size)
    asked = Overrides(size=(8, 8), channels=1, mean=(0.5,), std=(0.25,))
    images = torch.rand(2, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(
            open_network(plain, overrides=asked).model(images), open_network(place / "net.pt").model(images)
        )
    plain.with_suffix(".json").write_text(json.dumps({"input_size": [1, 8, 8]}))  # a config beside it
    assert open_network(plain).preprocessing.mean is None


def test_another_last_layer_and_a_wrong_one(place):
    with pytest.raises(ValueError, match="'5' is not the last linear layer"):
        open_network(place / "net.py:make", place / "state.pt", head="5")
    assert open_network(place / "net.py:make", place / "state.pt", head="7").without_features == ""


def test_the_hash_follows_weights_and_code(place, tmp_path):
    first = open_network(place / "net.py:make", place / "state.pt").sha256
    state = {name: value * 1.01 for name, value in torch.load(place / "state.pt", weights_only=True).items()}
    torch.save(state, tmp_path / "other.pt")
    assert open_network(place / "net.py:make", tmp_path / "other.pt").sha256 != first
    assert open_network(place / "net.py:make", place / "state.pt").sha256 == first
