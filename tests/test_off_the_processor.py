"""The tests of the stand-in device pass, in a process of their own.

PyTorch's autograd counts the devices when it first runs; a back end that comes later it does not know. And a process that
has the stand-in is no place for other tests: some functions of torch visit the random numbers of every device there is.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import stand_in

FILE = Path(__file__).with_name("test_stand_in.py")


@pytest.mark.slow
@pytest.mark.skipif(not stand_in.AVAILABLE, reason="this torch has no back ends in Python")
def test_everything_runs_off_the_processor():
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(FILE)],
        cwd=FILE.parents[1],
        env={**environment, "TUTORIAL_TEST_DEVICE": stand_in.NAME},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "passed" in done.stdout
