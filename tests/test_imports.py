"""Imports go one way, and importing the library needs torch alone and does nothing."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import synthgrad

PACKAGE = Path(synthgrad.__file__).parent
# A room may import what stands before it, and itself.
ORDER = [
    ["errors", "compiler", "trees"],
    ["choices", "metrics", "updates"],
    ["synthesizers"],
    ["signals"],
    ["synthetic_input", "interface"],
    ["validate"],
    ["feedback"],
    ["decoupled"],
    ["decouple"],
    ["stage"],
    ["recurrent", "engines"],
    ["diagnostics", "data"],
    ["bench"],
    ["planning"],
    ["experiments"],
    ["cli"],
]
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}
TORCH_ALONE = [
    room for rooms in ORDER[: ORDER.index(["recurrent", "engines"]) + 1] for room in rooms
]
ONLY_ERRORS = {"data"}
FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(file):
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(file):
    """Dotted names of everything that the file imports, anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


def inner_rooms(file):
    names = [n.split(".") for n in imported(file)]
    return {n[1] for n in names if n[0] == "synthgrad" and len(n) > 1}


def test_every_room_has_a_place_in_the_order():
    rooms = {room_of(f) for f in FILES} - {"__init__", "__main__"}
    assert rooms <= set(LEVEL), "add the new room to ORDER"


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_imports_go_one_way(file):
    room = room_of(file)
    if room in ("__init__", "__main__"):
        return
    for other in inner_rooms(file) - {room, "__version__"}:
        assert LEVEL[other] < LEVEL[room], f"{room} must not import {other}"
        assert room not in ONLY_ERRORS or other == "errors", f"{room} may import errors alone"


@pytest.mark.parametrize(
    "file",
    [f for f in FILES if room_of(f) in TORCH_ALONE],
    ids=lambda f: str(f.relative_to(PACKAGE)),
)
def test_up_to_the_engines_torch_is_enough(file):
    outside = {n.split(".")[0] for n in imported(file)} - {"synthgrad", "torch"}
    assert outside <= sys.stdlib_module_names


def test_a_module_imports_another_file_of_its_own_room_without_a_circle():
    """Within a room, too, imports go one way."""
    above = {}
    for file in FILES:
        name = ".".join(("synthgrad", *file.relative_to(PACKAGE).with_suffix("").parts))
        above[name] = {n for n in map(known, imported(file)) if n is not None and n != name}
    done = set()

    def visit(name, path):
        assert name not in path, f"a circle: {' -> '.join([*path, name])}"
        if name not in done:
            for other in above.get(name, ()):
                visit(other, [*path, name])
            done.add(name)

    for name in above:
        visit(name, [])


def known(name):
    """The file of the package that an imported name is in, or None; packages aside."""
    parts = name.split(".")
    for count in (len(parts), len(parts) - 1):
        file = PACKAGE.joinpath(*parts[1:count]).with_suffix(".py")
        if parts[0] == "synthgrad" and count > 1 and file.is_file():
            return ".".join(parts[:count])
    return None


def test_importing_loads_no_other_package_and_changes_nothing():
    code = """
import json, os, random, sys, torch
before = set(sys.modules)
state = dict(os.environ), random.getstate(), torch.get_rng_state().tolist(), torch.get_num_threads()
import synthgrad
after = dict(os.environ), random.getstate(), torch.get_rng_state().tolist(), torch.get_num_threads()
print(json.dumps([sorted(set(sys.modules) - before), state == after]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded, unchanged = json.loads(done.stdout)
    assert unchanged
    assert not done.stderr
    outside = {n.split(".")[0] for n in loaded} - {"synthgrad"}
    assert outside <= sys.stdlib_module_names | {"torch"}, "torch alone"
    assert "torch._dynamo" not in loaded, "a second of import time that only compiling needs"
    assert "synthgrad.bench" not in loaded
    assert "synthgrad.cli" not in loaded


def test_the_command_line_starts_without_what_only_some_commands_need():
    """Pictures and solvers take seconds to load, and `synthgrad list` needs none of them."""
    code = "import json, sys, synthgrad.cli; print(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    assert not loaded & {"matplotlib", "plotly", "scipy.optimize", "scipy.sparse.linalg"}
