"""What several cells need is computed once: logits, features, gradient norms.

The cache is content-addressed: a file's name is a hash of the request and of the library's source that answers it.
Another process that asks for the same thing meanwhile waits for it, and a kill leaves no half file.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tutorial_lib.reproducible import source_hash
from tutorial_lib.results.rows import read_arrays, write_arrays
from tutorial_lib.storage import cache_folder, locked, set_aside, sweep

_ANSWERING = ("data", "models", "gradients", "attacks", "studies.py", "training")  # what features depend on


def cached_arrays(
    kind: str, request: Mapping[str, Any], compute: Callable[[], Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """The arrays that ``compute()`` returns, from the cache if the same request was answered before.

    Args:
        kind: folder of the cache, and part of the request.
        request: JSON values that decide the answer: study, network, seed, images, label.
        compute: makes the answer.

    A file that cannot be read is only a cache: it is set aside, with a warning that names it, and made again.
    """
    belongs = [kind, dict(request), source_hash(*_ANSWERING)]
    key = hashlib.sha256(json.dumps(belongs, sort_keys=True).encode()).hexdigest()[:16]
    path = cache_folder() / "features" / kind / f"{key}.npz"
    found = _read(path)
    if found is None:
        with locked(path.with_suffix(".lock")):
            sweep(path)
            found = _read(path)  # it may have come while this process waited
            if found is None:
                if path.exists():
                    warnings.warn(f"{path} cannot be read; kept as {set_aside(path).name}, made again", stacklevel=2)
                found = dict(compute())
                write_arrays(path, found)
    return found


def _read(path: Path) -> dict[str, np.ndarray] | None:
    try:
        return read_arrays(path)
    except Exception:  # absent, or damaged in one of many ways
        return None
