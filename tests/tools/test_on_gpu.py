"""The script for ten minutes on an accelerator: its commands exist, its time is kept, one step's end is not the next one's."""

from __future__ import annotations

import io
import sys
import time

import on_gpu
import pytest

from tutorial_lib.__main__ import parser


@pytest.mark.parametrize("minutes", [9.5, 3.0])
def test_the_steps_fit_the_time_and_are_commands_that_exist(minutes):
    plan = on_gpu.steps("cuda", minutes)
    assert [step.title for step in plan] == ["exactness", "benchmark", "suite"]
    assert sum(step.seconds for step in plan) <= 60 * minutes
    for step in plan[1:]:
        assert step.words[1:3] == ("-m", "tutorial_lib")
        parsed = parser().parse_args(step.words[3:])
        assert parsed.save and parsed.device == "cuda"
        assert getattr(parsed, "budget", None) is None or parsed.budget < step.seconds
    assert (on_gpu.ROOT / plan[0].words[-1]).is_file() and dict(plan[0].environment) == {"TUTORIAL_TEST_DEVICE": "cuda"}


def test_a_step_is_stopped_in_time_and_what_it_said_is_kept():
    report = io.StringIO()
    sleeper = (sys.executable, "-c", "import time; print('began'); time.sleep(60)")
    start = time.monotonic()
    assert not on_gpu.run(on_gpu.Step("sleep", sleeper, 2.0), report)
    assert time.monotonic() - start < 30
    assert "began" in report.getvalue() and "stopped after 2 s" in report.getvalue()
    assert on_gpu.run(on_gpu.Step("quick", (sys.executable, "-c", "pass"), 30.0), report)


def test_without_a_device_it_says_so(capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert on_gpu.main([]) == 1 and "--device cpu" in capsys.readouterr().err
    assert on_gpu.main(["--dry-run"]) == 0 and "at most" in capsys.readouterr().out
