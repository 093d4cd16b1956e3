"""Weights survive the disk, damage is noticed."""

import json

import pytest
import torch

from tutorial_lib.training.checkpoints import CheckpointError, load_checkpoint, save_checkpoint


def test_round_trip_is_exact(tmp_path):
    state = {"weight": torch.randn(3, 3), "count": torch.tensor(5), "nested": {"list": [torch.zeros(2), 1.5, "text"]}}
    path = save_checkpoint(tmp_path / "net.pt", state, {"command": "made by a test"})
    loaded, record = load_checkpoint(path)
    assert torch.equal(loaded["weight"], state["weight"])
    assert loaded["count"] == 5 and loaded["count"].dtype == torch.int64
    assert loaded["nested"]["list"][1:] == [1.5, "text"]
    assert record["command"] == "made by a test"


def test_half_precision_comes_back_as_float32(tmp_path):
    weight = torch.randn(1000)
    loaded, _ = load_checkpoint(save_checkpoint(tmp_path / "net.pt", {"w": weight}, {}, half=True))
    assert loaded["w"].dtype == torch.float32
    torch.testing.assert_close(loaded["w"], weight, rtol=2**-11, atol=1e-7)


def test_one_changed_byte_is_noticed(tmp_path):
    path = save_checkpoint(tmp_path / "net.pt", {"w": torch.zeros(10)}, {})
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(path)


def test_missing_and_broken_records_are_named(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint file"):
        load_checkpoint(tmp_path / "absent.pt")
    path = save_checkpoint(tmp_path / "net.pt", {"w": torch.zeros(1)}, {})
    path.with_suffix(".json").write_text(json.dumps({}))
    with pytest.raises(CheckpointError, match="no SHA-256"):
        load_checkpoint(path)


def test_opening_a_checkpoint_runs_no_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("code ran",))

    import hashlib
    import io

    stream = io.BytesIO()
    torch.save({"half": False, "state": Evil()}, stream)
    (tmp_path / "net.pt").write_bytes(stream.getvalue())
    (tmp_path / "net.json").write_text(json.dumps({"sha256": hashlib.sha256(stream.getvalue()).hexdigest()}))
    with pytest.raises(Exception, match="[Ww]eights.only"):
        load_checkpoint(tmp_path / "net.pt")
