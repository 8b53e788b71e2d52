"""The law of the house: who may import whom.  Arrows run down, between the rooms and inside wmzoo/."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {  # room -> the rooms below it, and itself
    "wmzoo": {"wmzoo"},
    "models": {"models", "wmzoo"},
    "objectives": {"objectives", "wmzoo"},
    "experiments": {"experiments", "objectives", "models", "wmzoo"},
}
NOBODY_IMPORTS = {"tests", "notebooks", "conftest"}
FLOORS = [  # inside wmzoo/: a module imports from lower floors only
    {"batch", "shapes", "errors", "kernels", "standard"},
    {"files", "clock", "stats", "regress", "tables"},
    {"question", "sample", "episodes"},
    {"interfaces"},
    {"tasks", "features", "compose", "plan"},
    {"implicit"},
    {"data", "collect"},
    {"config"},
    {"module", "registry", "flops", "loggers", "finished"},
    {"dream"},
    {"run", "doctor"},
    {"rollout", "probe", "compare", "subject"},
    {"pictures", "follow"},
    {"bench", "world"},
    {"study"},
    {"records"},
    {"work", "launch"},
    {"findings", "watch"},
    {"ledger"},
    {"report"},
    {"cli"},
    {"__main__"},
]


def modules(room: str) -> dict[str, Path]:
    """The modules of a room by dotted name, as Python sees them; the links to the other rooms are not followed."""
    package = "wmzoo" if room == "wmzoo" else f"wmzoo.{room}"
    files = [path for path in (ROOT / room).rglob("*.py") if not any(p.is_symlink() for p in path.parents)]
    names = [".".join([package, *path.relative_to(ROOT / room).with_suffix("").parts]) for path in files]
    return {name.removesuffix(".__init__"): path for name, path in zip(names, files, strict=True)}


MODULES = {room: modules(room) for room in MAY_IMPORT}
EVERY = {name: path for found in MODULES.values() for name, path in found.items()}


def imports(name: str, path: Path) -> Iterator[tuple[str, bool]]:
    """Dotted names that a module imports anywhere in its text, and whether it wrote them relatively."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, False) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield (inner if inner in EVERY else base), node.level > 0


def room_of(dotted: str) -> str:
    """The room that a dotted name lies in; a room that was imported by its bare name is called by that name."""
    first, _, rest = dotted.partition(".")
    second = rest.partition(".")[0]
    return second if first == "wmzoo" and second in MAY_IMPORT else first


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_arrows_between_rooms_run_down(room: str) -> None:
    """models and objectives do not know each other, wmzoo knows neither, and nobody imports tests or notebooks."""
    known = set(MAY_IMPORT) | NOBODY_IMPORTS
    up = {
        name: sorted(extra)
        for name, path in MODULES[room].items()
        if (extra := {room_of(target) for target, _ in imports(name, path)} & known - MAY_IMPORT[room])
    }
    assert MODULES[room], f"{room}/ has no modules"
    assert not up, f"{room}/ may import only {sorted(MAY_IMPORT[room])}, but {up}"


def test_whoever_plays_or_reports_does_not_wait_for_the_trainer() -> None:
    """Lightning takes seconds to import, and every process of an evaluation would pay for it."""
    what = "rollout, world, compare, probe, follow, study, report, cli"
    told = f"import sys; from wmzoo import {what}; assert not {{'lightning', 'torchmetrics', 'transformers'}} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", told], check=True, cwd=ROOT)


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_rooms_are_imported_by_their_full_name(room: str) -> None:
    """`from models import dit` works in a checkout alone: it must be `from wmzoo.models import dit`."""
    bare = set(MAY_IMPORT) - {"wmzoo"}
    wrong = [
        f"{name} imports {target}"
        for name, path in MODULES[room].items()
        for target, _ in imports(name, path)
        if target.split(".")[0] in bare
    ]
    assert not wrong


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_are_relative_inside_a_room_and_absolute_across(room: str) -> None:
    """Each import says by its form whether it leaves the room."""
    wrong = [
        f"{name} imports {target}"
        for name, path in MODULES[room].items()
        for target, relative in imports(name, path)
        if target.startswith("wmzoo") and relative != (room_of(target) == room)
    ]
    assert not wrong


def test_every_module_of_wmzoo_has_its_floor() -> None:
    """A new module is entered in the table above; a module that is gone is taken out."""
    present = {name.split(".")[1] for name in MODULES["wmzoo"] if "." in name}
    assert present == set().union(*FLOORS)
    assert sum(map(len, FLOORS)) == len(present), "a module has one floor"


@pytest.mark.parametrize("name", sorted(name for name in MODULES["wmzoo"] if "." in name))
def test_arrows_inside_wmzoo_run_down(name: str) -> None:
    """A module imports from floors below its own; the modules of wmzoo/tasks/ share one floor and may know each other."""
    floor = {module: number for number, modules_ in enumerate(FLOORS) for module in modules_}
    own = name.split(".")[1]
    targets = {target.split(".")[1] for target, _ in imports(name, EVERY[name]) if target in MODULES["wmzoo"] and "." in target}
    up = {target for target in targets - {own} if floor[target] >= floor[own]}
    assert not up, f"{name} is on floor {floor[own]} and imports {sorted(up)} from the same floor or above"


def test_there_is_no_circle() -> None:
    """All modules of all rooms can be put in one order in which each comes after what it imports."""
    graph = {name: {target for target, _ in imports(name, path) if target in EVERY} - {name} for name, path in EVERY.items()}
    order = list(TopologicalSorter(graph).static_order())
    assert len(order) == len(EVERY)
    assert order.index("wmzoo.question") < order.index("wmzoo.interfaces") < order.index("wmzoo.config") < order.index("wmzoo.cli")


def test_the_reader_of_imports_sees_every_form(tmp_path: Path) -> None:
    """Absolute, relative, of a module, of a name in it, and inside a function: an arrow cannot hide."""
    path = tmp_path / "fake.py"
    path.write_text(
        "import wmzoo.models.dit\nfrom wmzoo import config\nfrom wmzoo.batch import Batch\nfrom .flow import Flow\nfrom . import ddpm\n"
        "def f():\n    from ..models.conv import Conv\n    import models.text\n"
    )
    assert set(imports("wmzoo.objectives.fake", path)) == {
        ("wmzoo.models.dit", False),
        ("wmzoo.config", False),
        ("wmzoo.batch", False),
        ("wmzoo.objectives.flow", True),
        ("wmzoo.objectives.ddpm", True),
        ("wmzoo.models.conv", True),
        ("models.text", False),
    }
