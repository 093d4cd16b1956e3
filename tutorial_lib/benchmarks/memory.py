"""Peak memory of one call, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys

import torch
from torch.profiler import ProfilerActivity, profile

from tutorial_lib.benchmarks.networks import images, network
from tutorial_lib.benchmarks.ways import ways

_ASK = "import json, sys; from tutorial_lib.benchmarks.memory import _measure; print(json.dumps(_measure(*json.loads(sys.argv[1]))))"


def peak(network_name: str, count: int, method: str, threads: int, device: str) -> float | None:
    """Megabytes of tensors that a call holds at its worst moment, beyond the network and the images; None if the method fails.

    What torch has allocated, on a GPU as on a CPU. (The resident set of a process says more about the C library, which may or may
    not give freed memory back: for one and the same call it varies by a half.)
    """
    arguments = json.dumps([network_name, count, method, threads, device])
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", _ASK, arguments], capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None


def _measure(name: str, n: int, method: str, threads: int, device: str) -> float:
    torch.set_num_threads(threads)
    run = ways(network(name, device=device), [method])[method]
    run(images(2, device))
    x = images(n, device)
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run(x)
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        run(x)
    allocations = [event for event in watched.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = highest = 0
    for event in sorted(allocations, key=lambda event: event.start_ns()):
        held += event.nbytes()  # negative where memory is freed
        highest = max(highest, held)
    return highest / 1e6
