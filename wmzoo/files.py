"""How is a file written so that a crash leaves the old one?  Beside it, then renamed over it."""

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from .errors import UserError, missing


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` with a temporary path beside `path`, flush it to the disk, and rename it; on failure nothing changes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    try:
        write(draft)
        with open(draft, "rb") as written:
            os.fsync(written.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """One JSON value, indented, atomically."""
    write_atomically(path, lambda draft: draft.write_text(json.dumps(value, indent=1) + "\n"))


def read_json(path: Path, kind: str, cure: str = "") -> Any:
    """The JSON value of a file.

    Args:
        kind: what the file is part of, for the message.
        cure: what to do when it is missing or damaged.

    Raises:
        UserError: the file is missing, or it is not JSON.
    """
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        if not path.parent.is_dir():
            raise missing(path.parent) from None
        raise UserError(f"{path} is missing: {path.parent} is not {kind}{cure and '; ' + cure}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        where = f"line {error.lineno} is not JSON" if isinstance(error, json.JSONDecodeError) else "it is not text"
        raise UserError(f"{path} is damaged or is not {kind} ({where}){cure and '; ' + cure}") from None


def write_between(page: Path, mark: str, text: str) -> None:
    """Replace what stands between `<!-- MARK -->` and `<!-- end of MARK -->` in a page.

    Raises:
        UserError: as `read_between`.
    """
    before, _, after = _around(page, mark)
    write_atomically(page, lambda draft: draft.write_text(f"{before}<!-- {mark} -->\n{text}<!-- end of {mark} -->{after}"))


def read_between(page: Path, mark: str) -> str:
    """What stands there.

    Raises:
        UserError: the page is not there, or has no such place.
    """
    return _around(page, mark)[1]


def _around(page: Path, mark: str) -> tuple[str, str, str]:
    start, end = f"<!-- {mark} -->", f"<!-- end of {mark} -->"
    if not page.is_file():
        raise missing(page)
    text = ""
    with suppress(UnicodeDecodeError):
        text = page.read_text()
    before, found, rest = text.partition(f"{start}\n")
    inside, closed, after = rest.partition(end)
    if not found or not closed:
        raise UserError(f"{page} has no place for this: put the lines {start!r} and {end!r} into it")
    return before, inside, after


@contextmanager
def alone_in(folder: Path, wait: bool = False) -> Iterator[None]:
    """Hold the folder while the block runs.

    Args:
        wait: until whoever holds it is done, instead of raising.

    Raises:
        UserError: another process holds it.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    except BlockingIOError:
        raise UserError(f"another process is writing to {folder}; wait for it, or choose another folder") from None
    finally:
        os.close(handle)


def exported(folder: Path) -> dict[str, Tensor]:
    """All weights of an exported run: what plays and what only training needs.

    Raises:
        OSError: there are none; RuntimeError or SafetensorError: a file is damaged.
    """
    files = [folder / "weights.safetensors", *folder.glob("auxiliary.safetensors")]
    return {name: value for path in files for name, value in load_file(path).items()}


def content_hash(path: Path) -> str:
    """The first 16 hexadecimal digits of a file's SHA-256."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def text_hash(text: str) -> str:
    """The first 16 hexadecimal digits of a text's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
