"""Cards: what a docstring says of a paper can be looked up.  Every named function exists and has a test."""

import ast
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from wmzoo.registry import card, members

ROOT = Path(__file__).parents[1]
ROOMS = ("wmzoo", "models", "objectives", "experiments")
FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py") if not any(p.is_symlink() for p in path.parents))
TESTS = "\n".join(path.read_text() for path in (ROOT / "tests").glob("*.py") if path.name != "test_cards.py")


def equations(text: str) -> list[tuple[str, str]]:
    """The indented lines of a card: a formula, two spaces or more, and the name of a function or file; a remark in brackets may follow."""
    lines = [line for line in text.splitlines() if re.match(r" {4}\S", line)]
    parsed = [re.fullmatch(r" {4}(?P<formula>\S.*?) {2,}(?P<name>[\w./]+)(?: \(.*\))?", line) for line in lines]
    unread = [line for line, found in zip(lines, parsed, strict=True) if not found]
    assert not unread, f"lines without a function name after two spaces: {unread}"
    return [(found["formula"], found["name"]) for found in parsed if found]


def resolve(name: str, module: str) -> Any:
    """What a name on a card means: a file, something of wmzoo by its dotted name, or something of the card's own module."""
    if "/" in name:
        return (ROOT / name).resolve(strict=True)
    home, rest = module, name.split(".")
    if rest[0] == "wmzoo":
        home, rest = ".".join(rest[:2]), rest[2:]
        if home.removeprefix("wmzoo.") in ROOMS:
            home, rest = f"{home}.{rest[0]}", rest[1:]
    found = import_module(home)
    for part in rest:
        found = getattr(found, part)
    return found


CARDS = {name: module for name, module in members("objectives").items() if module.startswith("wmzoo.")}
EQUATIONS = [(module, *line) for name, module in CARDS.items() for line in equations(card(name))]


@pytest.mark.parametrize("name", CARDS)
def test_a_card_cites_and_has_equations(name: str) -> None:
    """An arXiv number, and at least one line of formula and function."""
    assert re.search(r"arXiv:\d{4}\.\d{5}", card(name))
    assert [line for line in EQUATIONS if line[0] == CARDS[name]]


@pytest.mark.parametrize(("module", "formula", "name"), EQUATIONS, ids=[f"{m.rpartition('.')[2]}-{n}" for m, _, n in EQUATIONS])
def test_the_function_of_an_equation_exists_and_has_a_test(module: str, formula: str, name: str) -> None:
    """The name resolves to something that can be called, and some test uses it; or it is a file that is there."""
    found = resolve(name, module)
    assert isinstance(found, Path) or callable(found), f"{name} ({formula}) is not a function"
    assert re.search(rf"\b{re.escape(name.rpartition('.')[2])}\b", TESTS) or "/" in name, f"no test mentions {name}"


def test_a_card_that_lies_is_caught() -> None:
    """A name without two spaces, a function that does not exist, a file that is gone."""
    with pytest.raises(AssertionError, match="lines without a function name"):
        equations("Title.\n\n    L = x no_column")
    with pytest.raises(AttributeError):
        resolve("no_such_loss", "wmzoo.objectives.flow")
    with pytest.raises(FileNotFoundError):
        resolve("experiments/no_such_arm.py", "wmzoo.objectives.flow")
    assert equations("    L = a b   loss\n    M = c  wmzoo.clock.draw (as in pi0)") == [("L = a b", "loss"), ("M = c", "wmzoo.clock.draw")]


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(ROOT)) for path in FILES])
def test_the_first_line_of_a_file_says_what_it_is_for(path: Path) -> None:
    """One whole sentence, or one whole question, since `wmzoo list` shows nothing else."""
    first = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n")[0]
    assert re.search(r"[\w)`\"'][.?]$", first), f"{path} begins with {first!r}"
