"""Says whether this machine is ready for the workshop: ``python check_machine.py``."""

import importlib.metadata
import sys
import time

NEEDED = ("torch", "torchvision", "scikit-learn", "matplotlib", "ipywidgets", "jupyterlab", "tutorial_lib")


def main() -> int:
    """Print one line a check; 0 if the machine is ready."""
    ready = sys.version_info >= (3, 11)
    print(f"{'ok     ' if ready else 'MISSING'} Python {sys.version.split()[0]} (3.11 or newer is needed)")
    for name in NEEDED:
        try:
            print(f"ok      {name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            print(f"MISSING {name}")
            ready = False
    if ready:
        from tutorial_lib import load_study
        from tutorial_lib.models import build

        started = time.perf_counter()
        study = load_study("digits")
        model = build(study.network, study.num_classes, study.image_shape)
        logits = model.eval()(study.test.float())
        print(f"ok      {len(logits)} digits through a network in {time.perf_counter() - started:.1f} s")
    print(
        "This machine is ready." if ready else "Not ready: see README.md for the command that installs what is missing."
    )
    return 0 if ready else 1


if __name__ == "__main__":
    sys.exit(main())
