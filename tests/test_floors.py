"""Who may import whom: nothing imports from a floor above its own, and no two modules import each other.

All imports count, those inside functions and under ``TYPE_CHECKING`` too: what a module must know of another is the same
wherever the line stands.
"""

from __future__ import annotations

import ast
import graphlib
import re
from pathlib import Path

import pytest

import tutorial_lib

HOUSE = Path(tutorial_lib.__file__).parent
METHODS = "calibration uncertainty gradcon severity attacks introspection active_learning image_quality"
FLOORS = [
    "reproducible storage progress metrics plots",
    "data",
    "results",
    "models",
    "gradients",
    METHODS,
    "training",
    "studies",
    "detectors",
    "runs scoring",
    "experiments",
    "figures",
    "explore",
    "benchmarks",
    "commands __main__",  # the program and its parts know everybody
]
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names.split()}
DRAWING = ("matplotlib", "tutorial_lib.plots")

MODULES = {
    ".".join(["tutorial_lib", *path.relative_to(HOUSE).with_suffix("").parts]).removesuffix(".__init__"): path
    for path in HOUSE.rglob("*.py")
}


def imports(module: str) -> set[str]:
    """Modules that a module names in its imports, `from package import module` taken apart; only dotted names."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} imports by dots; write the whole name"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inner & MODULES.keys()) | ({str(node.module)} if inner - MODULES.keys() else set())
    return found


IMPORTS = {module: imports(module) for module in MODULES}
INNER = {(module, other) for module, found in IMPORTS.items() for other in found if other.startswith("tutorial_lib.")}


def room(module: str) -> str:
    """The package or loose module of the library that a module belongs to."""
    return (module.split(".") + ["__main__"])[1]


def test_every_room_has_a_floor_and_contributors_are_told():
    assert {room(module) for module in MODULES} <= FLOOR.keys()
    told = re.findall(r"^ ?(\d+)  ([\w, ]+)$", (HOUSE.parent / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    assert {int(number): names.replace(",", "") for number, names in told} == dict(enumerate(FLOORS))


def test_nothing_imports_from_a_floor_above_and_no_method_another_method():
    methods, offenders = set(METHODS.split()), set()
    for module, other in INNER:
        here, there = room(module), room(other)
        if FLOOR[there] > FLOOR[here] or (here != there and {here, there} <= methods):
            offenders.add((module.removeprefix("tutorial_lib."), other.removeprefix("tutorial_lib.")))
    assert offenders == set(), "these import from a floor above, or a method from another method"


def test_there_is_no_circle():
    graph: dict[str, set[str]] = {}
    for module, other in INNER:
        graph.setdefault(module, set()).add(other)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail("these import each other: " + " ← ".join(error.args[1]))


def test_only_plots_and_the_floors_from_figures_upwards_draw():
    low = {module for module in MODULES if FLOOR[room(module)] < FLOOR["figures"]} - {"tutorial_lib.plots"}
    assert {
        module: drawing for module in low if (drawing := {n for n in IMPORTS[module] if n.startswith(DRAWING)})
    } == {}
