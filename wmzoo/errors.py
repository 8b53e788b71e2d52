"""How does the zoo say no?  In one line that names what is wrong and what would be right."""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

RECORDS = Path("docs/results/cells")  # as records.py writes them


class UserError(Exception):
    """A wrong input.  The command line prints the message alone and exits with 2."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that does not exist, with the nearest names that do."""
    names = sorted(known)
    near = get_close_matches(name, names, n=3, cutoff=0.5)
    listed = ", ".join(repr(one) if "," in one else one for one in names)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"known: {listed}"
    return UserError(f"unknown {kind} {name!r}; {hint}")


def missing(path: Path) -> UserError:
    """The error for a file or folder that is not there, with the nearest of its neighbours; or that is a file where a folder is wanted."""
    if file := next((folder for folder in (path, *path.parents) if folder.is_file()), None):
        return UserError(f"{file} is a file, and a folder is wanted there")
    neighbours = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    near = get_close_matches(path.name, neighbours, n=1, cutoff=0.6)
    if (RECORDS / path.name / "cell.json").exists():
        return UserError(f"{path} is not there; its results are in {RECORDS}, from where `wmzoo recall` takes them back")
    return UserError(f"{path} is not there" + (f"; did you mean {path.with_name(near[0])}?" if near else ""))
