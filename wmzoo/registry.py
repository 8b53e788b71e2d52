"""What is in the zoo?  The folders are the registry: a new file is a new member; third parties add theirs by entry points."""

import ast
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType

from . import config, tasks
from .config import Experiment, Scale
from .errors import UserError, unknown

ROOMS = {"arms": "experiments", "studies": "experiments", "claims": "experiments", "objectives": "objectives", "models": "models"}
ENTRIES = {"arms": "config", "studies": "study", "claims": "claims"}  # the function that makes a file of experiments/ one of them


def members(kind: str) -> dict[str, str]:
    """Names of the arms, studies, objectives or models, each with the dotted name of its module."""
    room = f"wmzoo.{ROOMS[kind]}"
    ours = {found.name: f"{room}.{found.name}" for found in iter_modules(import_module(room).__path__)}
    if kind in ENTRIES:
        ours = {name: dotted for name, dotted in ours.items() if ENTRIES[kind] in functions(dotted)}
    return ours | {point.name: point.value for point in entry_points(group=f"wmzoo.{kind}")}


def module(kind: str, name: str) -> ModuleType:
    """A member's module.  This file is the one place where a string becomes a module.

    Raises:
        UserError: there is no such member.
    """
    known = members(kind)
    if name not in known:
        raise unknown({"studies": "study"}.get(kind, kind.removesuffix("s")), name, known)
    return import_module(known[name])


def arm(name: str, scale: Scale = "small") -> Experiment:
    """An arm by its name, or the one that a config.yaml describes.

    Raises:
        UserError: there is no such arm, or no such scale of it.
    """
    if name.endswith((".yaml", ".yml")):
        return config.load(Path(name))
    found = module("arms", name)
    if scale not in ("tiny", "small", "base", "paper"):
        raise unknown("scale", scale, ("tiny", "small", "base", "paper"))
    return found.config(scale)


def summary(module: str) -> str:
    """The first line of a module's docstring, read without importing it."""
    return docstring(module).split("\n", 1)[0]


def docstring(module: str) -> str:
    """A module's docstring, read without importing it."""
    return ast.get_docstring(_parsed(module)) or ""


@cache
def functions(module: str) -> set[str]:
    """Names of a module's functions, read without importing it."""
    return {node.name for node in _parsed(module).body if isinstance(node, ast.FunctionDef)}


def _parsed(module: str) -> ast.Module:
    package, _, name = module.rpartition(".")
    path = Path(next(iter(import_module(package).__path__))) / f"{name}.py"
    return ast.parse(path.read_text())


def card(name: str) -> str:
    """The card of an objective, a model or an arm: citation, equations and the functions that are them.

    Raises:
        UserError: nothing in the zoo has that name.
    """
    homes = {kind: members(kind) for kind in ("objectives", "arms", "studies", "models")}
    found = [docstring(homes[kind][name]) for kind in homes if name in homes[kind]]
    if not found and name in tasks.presets() | tasks.instructions():
        raise UserError(f"{name} is a task or a set of tasks, which have no card; `wmzoo list` says what they ask for")
    if not found:
        raise unknown("card", name, {member for home in homes.values() for member in home})
    return "\n\n".join(found)


def catalogue() -> dict[str, dict[str, str]]:
    """Everything in the zoo with one line each."""
    listed = {kind: {name: summary(module) for name, module in members(kind).items()} for kind in ROOMS}
    sets = {name: "set of " + ", ".join(chosen) for name, chosen in tasks.presets().items()}
    return listed | {"tasks": {**sets, **tasks.instructions()}}
