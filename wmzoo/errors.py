"""How does the zoo say no?  In one line that names what is wrong and what would be right."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """A wrong input.  The command line prints the message alone and exits with 2."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that does not exist, with the nearest names that do."""
    names = sorted(known)
    near = get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"known: {', '.join(names)}"
    return UserError(f"unknown {kind} {name!r}; {hint}")
