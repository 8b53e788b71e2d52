"""How do results outlive their runs?  Outcomes, errors and curves of every cell, without weights and films, beside the tables made of them.

docs/results/cells/ARM-HASH/     config.yaml, metrics.csv, cell.json, eval*, plan, probe and world*.json, world*.npz: as in runs/
docs/results/NAME/asked.json     the options of the study, as in runs/studies/NAME/

The name is the hash of configuration and data, so a record stands for exactly one cell of every study, wherever that was run.
"""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from .errors import UserError
from .files import alone_in, read_json, write_atomically, write_json
from .study import Plan

RESULTS = ("eval*.json", "plan.json", "probe.json", "world*.json", "world*.npz")
MEASURED = ("cell.json", *RESULTS)
BEGUN = ("cell.json", "last.ckpt", "export")  # a run that has one of them is left alone
KEPT = ("config.yaml", "metrics.csv", *MEASURED)


def keep(plan: Plan, home: Path) -> None:
    """Write down the cells of a study that are done, and what was asked for.

    Args:
        home: docs/results.

    Raises:
        UserError: a cell was trained again, and what another study had measured of it was not measured again.
    """
    done = [job.folder for job in plan.cells if job.done]
    for folder in done:
        if lost := lost_measurements(_measured(home / "cells" / folder.name), _measured(folder)):
            raise UserError(
                f"{folder} was trained again, and what is written down of it knows more: {', '.join(lost)}; "
                "run the studies that ask for this again, then write"
            )
    for folder in done:
        _copy(folder, home / "cells" / folder.name)
    if plan.asked:
        write_json(home / plan.name / "asked.json", plan.asked)


def recall(home: Path, runs: Path) -> int:
    """Put records where studies look for their cells, unless a run is there; how many.

    Raises:
        UserError: there are no records.
    """
    folders = [folder for folder in sorted(home.glob("cells/*")) if (folder / "cell.json").exists()]
    if not folders:
        raise UserError(f"{home} has no records: they lie in cells/ARM-HASH, where `wmzoo report NAME --write PAGE` puts them")
    taken = sum(_take(folder, runs / folder.name) for folder in folders)
    for path in home.glob("*/asked.json"):
        if not (there := runs / "studies" / path.parent.name / path.name).exists():
            _copy_file(path, there)
    return taken


def _take(folder: Path, there: Path) -> bool:
    """Copy a record to where its run would be, unless that is there or is being made (work.py holds the queue)."""
    (queue := there / "queue").mkdir(parents=True, exist_ok=True)
    try:
        with alone_in(queue):
            if any((there / begun).exists() for begun in BEGUN):
                return False
            _copy(folder, there)
            return True
    except UserError:
        return False


def forget(folder: Path) -> None:
    """Remove what was measured with weights that are not there: whoever trains the run again measures it again."""
    for path in _kept(folder, MEASURED):
        path.unlink()
    shutil.rmtree(folder / "videos", ignore_errors=True)


def results(folder: Path) -> list[Path]:
    """The files in which measurements of a cell lie."""
    return list(_kept(folder, RESULTS))


def _measured(folder: Path) -> list[str]:
    """What was measured of a cell, as cell.json lists it; nothing where there is none."""
    path = folder / "cell.json"
    return list(read_json(path, "a cell")["measured"]) if path.exists() else []


def lost_measurements(before: Sequence[str], now: Sequence[str]) -> list[str]:
    """Of "play 20", "transfer 256 TASKS" ...: those that are not there any more, from as many start states or windows.

    A world model that was foreseen by another judge has been asked again: the last judge counts.
    """

    def read(asked: str) -> tuple[str, list[str], int]:
        kind, *rest = asked.split()
        return kind, [] if kind == "foresee" else rest[1:], int(rest[0]) if rest else 0

    there = [read(asked) for asked in now]
    wanted = {asked: read(asked) for asked in before}
    return [asked for asked, (*what, count) in wanted.items() if not any(other == what and n >= count for *other, n in there)]


def _kept(folder: Path, patterns: tuple[str, ...] = KEPT) -> Iterator[Path]:
    return (path for pattern in patterns for path in sorted(folder.glob(pattern)))


def _copy(folder: Path, there: Path) -> None:
    stale = {path.name for path in _kept(there)} - {path.name for path in _kept(folder)}
    for name in stale:
        (there / name).unlink()
    for path in sorted(_kept(folder), key=lambda path: path.name == "cell.json"):  # last: it says that the cell is done
        _copy_file(path, there / path.name)


def _copy_file(path: Path, there: Path) -> None:
    write_atomically(there, lambda draft: shutil.copyfile(path, draft))
