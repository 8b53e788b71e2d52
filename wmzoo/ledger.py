"""Which of the papers' claims hold here?  Each is tested by a study; a verdict needs its cells, and says at which n and scale.

    holds                 every comparison's interval lies above 0
    fails                 one lies below 0
    not distinguishable   neither
    not run               a cell is missing; untested: no study tests it
Intervals are of paired differences (same seeds, same handles or windows), corrected by Holm within the claim.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from . import registry
from .config import Scale
from .findings import played
from .report import Table
from .stats import Estimate, clustered, corrected, paired
from .study import Job, missing_data, planned, restricted, study

Measure = Literal["success", "few less many", "l1"]
MARK = "claims"


@dataclass(frozen=True)
class Claim:
    """One sentence of a paper.

    Attributes:
        number: of the protocol.
        family: whose claim it is.
        says: the sentence.
        paper: the paper's own figures.
        study: that tests it, or "".
        ours: the row that is claimed to be better.
        theirs: than these.
        settings: of the study; two for a gain that grows from the second to the first.
        measure: success; success in the first setting less that in the second; absolute error in features, which is to be smaller.
    """

    number: int
    family: str
    says: str
    paper: str
    study: str = ""
    ours: str = ""
    theirs: tuple[str, ...] = ()
    settings: tuple[str, ...] = ("",)
    measure: Measure = "success"


@dataclass(frozen=True)
class Judged:
    """A claim with what was found.

    Attributes:
        found: differences with intervals, in words.
        n: what they rest on.
        verdict: in a word.
    """

    claim: Claim
    found: str
    n: str
    verdict: str


def claims() -> list[Claim]:
    """The ledger, in the order of the protocol."""
    listed = [claim for name in registry.members("claims") for claim in registry.module("claims", name).claims()]
    return sorted(listed, key=lambda claim: claim.number)


def judged(claim: Claim, runs: Path, scale: Scale) -> Judged:
    """A claim against the cells that there are."""
    if not claim.study:
        return Judged(claim, "", "", "untested")
    few = restricted(study(claim.study, scale), (), (claim.ours, *claim.theirs))
    if missing_data(few, scale, {}):
        return Judged(claim, "", "", "not run")
    cells: dict[tuple[str, str], list[Job]] = {}
    for job in planned(claim.study, few, runs, scale, {}).cells:
        cells.setdefault((job.about[0], job.about[1]), []).append(job)
    return concluded(claim, {label: compared(claim, cells, label) for label in claim.theirs})


def concluded(claim: Claim, pairs: Mapping[str, tuple[Estimate, str] | None]) -> Judged:
    """What the comparisons of a claim say together; one that fails decides, one that is missing leaves it unfinished."""
    there = {label: pair for label, pair in pairs.items() if pair is not None}
    if not there:
        return Judged(claim, "", "", "not run")
    estimates = [estimate for estimate, _ in there.values()]
    ends = corrected(estimates)
    told = [
        f"{f'{label}: ' * (len(pairs) > 1)}{e.mean:+.3g} [{low:+.3g}, {high:+.3g}]"
        for label, e, (low, high) in zip(there, estimates, ends, strict=True)
    ]
    told += [f"{label}: not run" for label in pairs if label not in there]
    verdict = word(ends)
    if len(there) < len(pairs) and verdict != "fails":
        verdict = "unfinished"
    return Judged(claim, "; ".join(told), next(iter(there.values()))[1], verdict)


def word(ends: Sequence[tuple[float, float]]) -> str:
    """What the intervals of all comparisons of a claim allow to say."""
    if any(high < 0 for _, high in ends):
        return "fails"
    return "holds" if all(low > 0 for low, _ in ends) else "not distinguishable"


def compared(claim: Claim, cells: Mapping[tuple[str, str], list[Job]], label: str) -> tuple[Estimate, str] | None:
    """Ours less theirs on the seeds that both have, and what that rests on; None where fewer than two seeds do."""
    wanted = [(row, setting) for setting in claim.settings for row in (claim.ours, label)]
    by_seed = [{job.about[2]: job for job in cells.get(key, []) if job.done} for key in wanted]
    seeds = [seed for seed in by_seed[0] if all(seed in found for found in by_seed)]
    if len(seeds) < 2:
        return None
    if claim.measure == "l1":
        return _nearer([found[seed] for seed in seeds for found in by_seed], len(seeds))
    cubes = [np.stack([np.stack(list(played(found[seed]).values())) for seed in seeds]) for found in by_seed]
    gap = cubes[0] - cubes[1] if len(cubes) == 2 else (cubes[0] - cubes[1]) - (cubes[2] - cubes[3])
    return paired(gap), f"{len(seeds)} seeds x {gap[0].size} handles"


def _nearer(jobs: Sequence[Job], seeds: int) -> tuple[Estimate, str] | None:
    """Their absolute error less ours, on the same windows, in the shared feature space, a chunk ahead."""
    stored = [dict(np.load(job.folder / "world.npz")) for job in jobs]
    ahead = jobs[0].arm.data.horizon
    errors = [s.get(f"prediction/{ahead}/space l1", s.get(f"prediction/{ahead}/l1")) for s in stored]
    if any(e is None for e in errors):
        return None
    gaps = np.stack([errors[i + 1] - errors[i] for i in range(0, len(errors), 2)])  # type: ignore[operator]
    mean, low, high = clustered(gaps, np.ones(gaps.shape[1]), stored[0]["task"], stored[0]["episode"])
    n = f"{seeds} seeds x {gaps.shape[1]} windows of {len(np.unique(stored[0]['episode']))} episodes"
    return Estimate(mean, (high - low) / 3.92, 1e6), n


def table(rows: Sequence[Judged], scale: Scale) -> Table:
    """The ledger as a table."""
    lines = []
    for row in rows:
        c = row.claim
        tested = f"{c.study}{', ' * bool(any(c.settings))}{' against '.join(filter(None, c.settings))}" if c.study else "no study"
        lines.append((str(c.number), c.family, c.says, c.paper, tested, row.found or "-", row.n or "-", row.verdict))
    head = ("", "family", "claim", "the paper's figures", "study", "ours: difference, 95%", "n", "verdict")
    return Table("claims", head, tuple(lines), f"Scale: {scale}.  Intervals of paired differences, corrected by Holm within a claim.")


def known(runs: Path, scale: Scale) -> list[Judged]:
    """All claims, judged."""
    return [judged(claim, runs, scale) for claim in claims()]
