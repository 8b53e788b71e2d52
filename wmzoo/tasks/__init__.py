"""Which tasks are there?  Every module of this folder lists its own: one file is one family of tasks.

A module offers TASKS (name -> instruction), PRESETS (name -> task names) and `make(name, size)`.
"""

from collections.abc import Iterable
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

from ..errors import unknown
from ..interfaces import Task


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


def make(name: str, size: int) -> Task:
    """The simulator of one task, rendering square frames of `size` pixels."""
    for family in families().values():
        if name in family.TASKS:
            return family.make(name, size)
    raise unknown("task", name, instructions())
