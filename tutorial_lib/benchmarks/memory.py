"""Peak memory of one call, in a process of its own."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
from pathlib import Path

import torch

_ASK = "import json, sys; from tutorial_lib.benchmarks.memory import _measure; print(json.dumps(_measure(*json.loads(sys.argv[1]))))"


def peak(network: str, images: int, method: str, threads: int, device: str, repeats: int = 3) -> float | None:
    """Megabytes that a call needs beyond what the process held after the same call on two images; None if the method fails.

    On a CPU the process's largest resident set, on a GPU what torch has allocated. The median of some processes: from one to
    the next, the resident set of the same call varies by a fifth.
    """
    arguments = json.dumps([network, images, method, threads, device])
    found = []
    for _ in range(repeats):
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", _ASK, arguments], capture_output=True, text=True)
        if done.returncode != 0:
            return None
        found.append(json.loads(done.stdout.splitlines()[-1]))
    return statistics.median(found)


def _measure(name: str, n: int, method: str, threads: int, device: str) -> float:
    from tutorial_lib.benchmarks.gradients import ways
    from tutorial_lib.benchmarks.networks import images, network

    torch.set_num_threads(threads)
    run = ways(network(name, device=device), [method])[method]
    run(images(2, device))
    x = images(n, device)
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run(x)
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    before = _resident()
    run(x)
    return max(0.0, _resident() - before)


def _resident() -> float:
    """Megabytes at the process's peak."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux getrusage counts the parent's peak in, from before this program was started
        kilobytes = next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(kilobytes) / 1e3
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest / 1e6 if sys.platform == "darwin" else largest / 1e3  # bytes there, kilobytes elsewhere
