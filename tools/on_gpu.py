"""Ten minutes on a machine with an accelerator, well spent: ``python tools/on_gpu.py``, or ``make gpu``.

1. Exactness: the tests of the stand-in device (``tests/test_stand_in.py``) on the real one, against the processor's numbers.
2. The benchmark of gradient features with the device's own rules, saved as ``benchmarks/results/gradients_cuda.csv``.
3. The suite, on the larger studies whose images are here, for what is left of the time; tables that are whole and that the library
   has no rows of are saved.

Each step has its share of the time and is stopped at its end; the next one runs whatever became of it. Run it from a clean checkout,
so that the rows name a commit; what it leaves is then to be committed, and it says which files that are. The report is also in
``_build/gpu/report.txt``.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

ROOT = Path(__file__).resolve().parent.parent
REPORT = ROOT / "_build" / "gpu" / "report.txt"
STUDIES = ("cifar10", "svhn", "mnist")
RESULTS = ("tutorial_lib/experiments/results", "tutorial_lib/benchmarks/results")


@dataclass(frozen=True)
class Step:
    """One command, its share of the time, and how many seconds of that it may leave to the next ones."""

    title: str
    words: tuple[str, ...]
    seconds: float
    environment: tuple[tuple[str, str], ...] = ()


def steps(device: str, minutes: float) -> list[Step]:
    """What to run, in this order; together at most so many minutes."""
    python, module = sys.executable, "tutorial_lib"
    total = 60 * minutes
    real = (("TUTORIAL_TEST_DEVICE", device if device != "cpu" else "standin"),)
    tests = (python, "-m", "pytest", "-q", "tests/test_stand_in.py")
    benchmark: tuple[str, ...] = ("benchmark", "gradients", "--quick", "--device", device, "--seconds", "1.5")
    benchmark += ("--networks", "resnet18", "resnet20", "small_cnn", "--batches", "8", "32", "128", "--save")
    rest = 0.5 * total
    suite = ("suite", "--device", device, "--budget", f"{0.9 * rest:.0f}s", "--jobs", "1", "--save")
    studies = [word for study in _studies() for word in ("--study", study)]
    return [
        Step("exactness", tests, 0.25 * total, real),
        Step("benchmark", (python, "-m", module, *benchmark), 0.25 * total),
        Step("suite", (python, "-m", module, *suite, *studies), rest),
    ]


def _studies() -> list[str]:
    """The larger studies whose images are here, else the digits, which are everywhere."""
    from tutorial_lib.data import DATASETS

    return [study for study in STUDIES if DATASETS[study].there()] or ["digits"]


def run(step: Step, report: TextIO) -> bool:
    """Run a step within its time, its output to the screen and into the report; whether it ended well."""
    start = time.monotonic()
    _say(f"\n=== {step.title}: {' '.join(step.words[1:])}", report)
    environment = {**os.environ, **dict(step.environment), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        step.words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        printed, _ = process.communicate(timeout=step.seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        printed, _ = process.communicate()
        printed += f"\nstopped after {step.seconds:.0f} s, its share of the time"
    _say(printed.rstrip(), report)
    _say(f"=== {step.title}: status {process.returncode} after {time.monotonic() - start:.0f} s", report)
    return process.returncode == 0


def _say(text: str, report: TextIO) -> None:
    print(text, flush=True)
    print(text, file=report, flush=True)


def changed_results() -> str:
    """Result files that differ from what is committed, one per line."""
    command = ["git", "-C", str(ROOT), "status", "--porcelain", "--", *RESULTS]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.rstrip()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Exactness, benchmark and suite on an accelerator, in ten minutes.")
    parser.add_argument("--device", default="cuda", help="cuda (default); cpu to try the script where there is none")
    parser.add_argument("--minutes", type=float, default=9.5, metavar="M", help="for everything together (default 9.5)")
    parser.add_argument("--dry-run", action="store_true", help="print the commands and stop")
    chosen = parser.parse_args(arguments)
    plan = steps(chosen.device, chosen.minutes)
    if chosen.dry_run:
        for step in plan:
            print(f"{step.title}, at most {step.seconds:.0f} s: {' '.join(step.words[1:])}")
        return 0
    import torch

    if chosen.device != "cpu" and not torch.cuda.is_available():
        print("torch sees no CUDA device here; try the script with: make gpu ARGS='--device cpu'", file=sys.stderr)
        return 1
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    with REPORT.open("w", encoding="utf-8") as report:
        name = torch.cuda.get_device_name() if chosen.device != "cpu" else "processor"
        _say(f"{name}, torch {torch.__version__}, CUDA {torch.version.cuda}", report)
        good = [run(step, report) for step in plan]
        _say(f"\nTo be committed, if they look right:\n{changed_results() or 'nothing new'}", report)
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
