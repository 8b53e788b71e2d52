"""Which tasks are there?  Every module of this folder lists its own: one file is one family of tasks.

A module offers TASKS (name -> instruction), PRESETS (name -> task names), SHIFTS (what can be changed at play time) and `make(name, size)`.
"""

from collections.abc import Iterable
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

from ..errors import UserError, unknown
from ..interfaces import Task

_held: dict[tuple[str, int, str], Task] = {}


def families() -> dict[str, ModuleType]:
    """The modules of this folder by name.  Simulators are imported only by `make`."""
    return {found.name: import_module(f"{__name__}.{found.name}") for found in iter_modules(__path__)}


def instructions() -> dict[str, str]:
    """Every task of every family, with what it asks for in plain words."""
    return {name: words for family in families().values() for name, words in family.TASKS.items()}


def presets() -> dict[str, tuple[str, ...]]:
    """Names for sets of tasks, such as mw3."""
    return {name: tasks for family in families().values() for name, tasks in family.PRESETS.items()}


def resolve(names: Iterable[str]) -> tuple[str, ...]:
    """Task names from a mixture of task and preset names, in order and without repeats.

    Raises:
        UserError: a name is neither a task nor a preset.
    """
    sets, known, chosen = presets(), instructions(), []
    for name in names:
        if name not in sets and name not in known:
            raise unknown("task", name, [*sets, *known])
        chosen += sets.get(name, (name,))
    return tuple(dict.fromkeys(chosen))


def make(name: str, size: int, shift: str = "") -> Task:
    """The simulator of one task, rendering square frames of `size` pixels.

    Args:
        shift: one thing that is changed and how much, such as camera-2; "" plays as recorded.

    Raises:
        UserError: there is no such task, or it cannot be changed so.
    """
    for family in families().values():
        if name in family.TASKS:
            task: Task = family.make(name, size)
            if shift:
                axis, _, strength = shift.rpartition("-")
                if axis not in family.SHIFTS:
                    raise (
                        unknown(f"shift of {name} (such as camera-2)", shift, every_shift([name]))
                        if family.SHIFTS
                        else UserError(f"{name} cannot be shifted")
                    )
                task.shift(axis, int(strength) if strength.isdigit() else 0)
            return task
    raise unknown("task", name, instructions())


def held(name: str, size: int, shift: str = "") -> Task:
    """The simulator of this process, as `make` makes it: kept for the next handle of its task, closed when another one is asked for.

    A renderer holds 150 MB, so a process has one.

    Raises:
        UserError: as `make`.
    """
    wanted = (name, size, shift)
    if wanted not in _held:
        while _held:
            _held.popitem()[1].close()
        _held[wanted] = make(name, size, shift)
    return _held[wanted]


def every_shift(names: Iterable[str]) -> tuple[str, ...]:
    """What can be changed in all of these tasks, at each strength."""
    axes = [set(family.SHIFTS) for family in families().values() for name in names if name in family.TASKS]
    common = set.intersection(*axes) if axes else set()
    return tuple(f"{axis}-{strength}" for axis in sorted(common) for strength in (1, 2, 3))
