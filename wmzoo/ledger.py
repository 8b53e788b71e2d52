"""Which of the papers' claims hold here?  Each is tested by a study; a verdict needs its cells, and says at which n and scale.

    holds                 every comparison's interval lies above 0
    fails                 one lies below 0
    not distinguishable   neither
    too few seeds         fewer than three of one of its rows
    unfinished, not run   some, or all, of its rows are missing; untested: no study tests it
Intervals are of paired differences (same seeds, same handles or windows), corrected by Holm within the claim; what is counted has none.
"""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from . import registry
from .compare import measured, nearer, result_of, scored, windows
from .config import Scale
from .errors import UserError
from .files import read_json
from .findings import played
from .stats import SEEDS, Estimate, corrected, over_windows, paired, together
from .study import Job, Plan, missing_data, planned, restricted, study
from .tables import Table
from .world import named

CHANCE = 1 / 5  # of a frame among the five of `world.order`
Measure = Literal["success", "few less many", "l1", "GFLOP", "order", "probe", "transfer"]
MARK = "claims"
NOTHING = ("", "not run", "untested")  # verdicts without a figure


class Found(NamedTuple):
    """A comparison.

    Attributes:
        estimate: ours less theirs, where more is better for us.
        n: what it rests on, in words.
        seeds: of training.
    """

    estimate: Estimate
    n: str
    seeds: int


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
        also: further pairs of rows, the first of which is claimed to be better, as in a ranking.
        settings: of the study; two for a gain that grows from the second to the first.
        measure: success; success in the first setting less that in the second; absolute error in features, or operations of one
            prediction, which are to be smaller; how much oftener the half-way frame is nearest to half a latent and half noise than by
            chance, and than to half noise alone; R^2 of the motion of the hand, within tasks, read off the latent by a ridge; the error
            on tasks that nothing was trained on.
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
    also: tuple[tuple[str, str], ...] = ()

    @property
    def pairs(self) -> dict[str, tuple[str, str]]:
        """Who is claimed to be better than whom, by what the comparison is called; "" is chance."""
        pairs = [*((self.ours, label) for label in self.theirs or ("",)), *self.also]
        return {f"{ours} over {theirs or 'chance'}": (ours, theirs) for ours, theirs in pairs}

    @property
    def rows(self) -> set[str]:
        """Rows of the study that it needs."""
        return {row for pair in self.pairs.values() for row in pair if row}


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


def judged(claim: Claim, runs: Path, scale: Scale, seeds: tuple[int, ...] = ()) -> Judged:
    """A claim against the cells that there are, of these training seeds; of those of the study where none are given."""
    if not claim.study:
        return Judged(claim, "", "", "untested")
    whole = study(claim.study, scale)
    if not claim.rows <= whole.rows.keys() or not {*filter(None, claim.settings)} <= whole.settings.keys():
        return Judged(claim, "", "", "untested")  # at this scale
    few = restricted(whole, seeds, tuple(claim.rows))
    if lacking := missing_data(few, scale, {}):
        return Judged(claim, f"no demonstrations here of {', '.join(dict.fromkeys(task for _, task in lacking))}", "", "not run")
    return against(claim, planned(claim.study, few, runs, scale, {}))


def against(claim: Claim, plan: Plan) -> Judged:
    """A claim against the cells of its study."""
    cells: dict[tuple[str, str], list[Job]] = {}
    for job in plan.cells:
        cells.setdefault((job.about[0], job.about[1]), []).append(job)
    return concluded(claim, {label: compared(claim, cells, *pair) for label, pair in claim.pairs.items()})


def of_study(plan: Plan) -> list[Judged]:
    """The claims that a study tests, against the rows and settings of it that were asked for."""
    return [against(claim, plan) for claim in claims() if claim.study == plan.name]


def concluded(claim: Claim, pairs: Mapping[str, Found | None]) -> Judged:
    """What the comparisons of a claim say together: one that fails decides, with seeds enough; too few, or one missing, leave it open.

    What is missing counts in the correction, so that a claim which fails does not stop failing with it.
    """
    there = {label: pair for label, pair in pairs.items() if pair is not None}
    if not there:
        return Judged(claim, "", "", "not run")
    ends: dict[str, tuple[float, float]] = {}
    for few in (False, True):  # what one or two seeds say is no test, and does not make the others stricter
        family = {label: pair.estimate for label, pair in there.items() if (pair.seeds < SEEDS) == few}
        several = together(list(family.values()), alike=claim.measure == "success")
        ends |= zip(family, corrected(several, awaited=0 if few else len(pairs) - len(family)), strict=True)
    told = []
    for label, pair in there.items():
        sure = claim.measure if claim.measure == "GFLOP" else "[{:+.3f}, {:+.3f}]".format(*ends[label])
        told.append(f"{label}: {pair.estimate.mean:+.{2 if claim.measure == 'GFLOP' else 3}f} {sure}")
    told += [f"{label}: not run" for label in pairs if label not in there]
    enough = [ends[label] for label, pair in there.items() if pair.seeds >= SEEDS]
    verdict = word(enough)
    if verdict != "fails" and len(enough) < len(there):
        verdict = "too few seeds"
    elif verdict != "fails" and len(there) < len(pairs):
        verdict = "unfinished"
    return Judged(claim, "; ".join(told), min(there.values(), key=lambda pair: pair.seeds).n, verdict)


def word(ends: Sequence[tuple[float, float]]) -> str:
    """What the intervals of all comparisons of a claim allow to say."""
    if any(high < 0 for _, high in ends):
        return "fails"
    return "holds" if all(low > 0 for low, _ in ends) else "not distinguishable"


def compared(claim: Claim, cells: Mapping[tuple[str, str], list[Job]], ours: str, theirs: str) -> Found | None:
    """Ours less theirs on the seeds that both have, and what that rests on; None where there is no such seed.

    Args:
        theirs: "" compares ours with chance.
    """
    wanted = [(row, setting) for setting in claim.settings for row in (ours, theirs) if row]
    by_seed = [{job.about[2]: job for job in cells.get(key, []) if job.done} for key in wanted]
    seeds = [seed for seed in by_seed[0] if all(seed in found for found in by_seed)]
    if not seeds:
        return None
    return MEASURES[claim.measure]([[found[seed] for seed in seeds] for found in by_seed])


Rows = Sequence[Sequence[Job]]  # cells of each row, of the same seeds


def successes(rows: Rows) -> Found:
    """Of ours less theirs; of four rows the first difference less the second."""
    cubes = [np.stack([np.stack(list(played(job).values())) for job in jobs]) for jobs in rows]
    gap = cubes[0] - cubes[1] if len(cubes) == 2 else (cubes[0] - cubes[1]) - (cubes[2] - cubes[3])
    return Found(paired(gap), f"{so_many(len(gap))} x {gap[0].size} handles", len(gap))


def errors(rows: Rows) -> Found | None:
    """Their error in the shared feature space less ours, a chunk ahead; of autoencoders, which are told the future, in their own.

    Raises:
        UserError: two cells were asked about other windows.
    """
    stored: list[list[Mapping[str, np.ndarray]]] = []
    for jobs in rows:
        kind = result_of(jobs[0].folder / "world.json")["kind"]
        stored.append([windows(job.folder) if kind == "autoencoder" else measured(job.folder).stored for job in jobs])
    return _nearer(rows, stored, "world")


def transferred(rows: Rows) -> Found | None:
    """The same on tasks that nothing was trained on, in the own feature space.

    Raises:
        UserError: as `errors`.
    """
    name = named(rows[0][0].elsewhere)
    return _nearer(rows, [[windows(job.folder, name) for job in jobs] for jobs in rows], name)


def _nearer(rows: Rows, stored: Sequence[Sequence[Mapping[str, np.ndarray]]], name: str) -> Found | None:
    first, told = stored[0][0], scored(result_of(rows[0][0].folder / f"{name}.json"))
    for job, one in ((job, one) for jobs, each in zip(rows, stored, strict=True) for job, one in zip(jobs, each, strict=True)):
        if any(not np.array_equal(one[key], first[key]) for key in ("task", "episode")):
            raise UserError(f"{job.folder} and {rows[0][0].folder} were asked about other windows; measure both alike")
        if scored(result_of(job.folder / f"{name}.json")) != told:
            raise UserError(
                f"{job.folder} and {rows[0][0].folder} were measured in other feature spaces or on other data; measure both alike"
            )
    ahead = rows[0][0].arm.data.horizon
    ways = [f"{way}/{ahead}/l1" for way in ("prediction", "own latent", "no latent")]
    ours, theirs = (next((way for way in ways if all(way in one for one in each)), "") for each in stored)
    if not ours or not theirs:
        return None
    episode = stored[0][0]["episode"]
    n = f"{so_many(len(stored[0]))} x {len(episode)} windows of {len(np.unique(episode))} episodes"
    return Found(nearer(list(zip(stored[1], stored[0], strict=True)), theirs, ours), n, len(stored[0]))


def operations(rows: Rows) -> Found:
    """Their operations less ours, in billions, of one prediction a chunk ahead; counted, so there is no doubt."""
    ours, theirs = (result_of(jobs[0].folder / "world.json")["cost"]["GFLOP"] for jobs in rows)
    return Found(Estimate(theirs - ours, 0.0, 1.0), f"ours {ours:.2f} GFLOP a prediction, encoder apart", SEEDS)


def order(rows: Rows) -> Found | None:
    """How much oftener the half-way frame of five is nearest to half a latent and half noise, decoded, than by chance.

    Where half noise alone finds it oftener than chance does, than to that.
    """
    stored = [windows(job.folder) for job in rows[0]]
    if any(name not in each for each in stored for name in ("order/noisy", "order/noise")):
        return None
    found, alone = (np.stack([(each[f"order/{half}"] == 0).astype(float) for each in stored]) for half in ("noisy", "noise"))
    nearest = found - (alone if alone.mean() > CHANCE else CHANCE)
    n = f"{so_many(len(stored))} x {nearest.shape[1]} windows of {len(np.unique(stored[0]['episode']))} episodes"
    return Found(over_windows(nearest, stored[0]["start"]), n, len(stored))


def probed(rows: Rows) -> Found | None:
    """R^2 of ours less that of theirs; seeds alone are the sample."""
    found = [[read_json(job.folder / "probe.json", "a probed run") for job in jobs] for jobs in rows]
    ours, theirs = (np.array([each["probes"]["latent"]["ridge"]["within"]["mean"]["value"] for each in jobs], float) for jobs in found)
    gap = ours - theirs
    if not np.isfinite(gap).all():
        return None
    n = f"{so_many(len(gap))}, {found[0][0]['validation']['n']} windows of {found[0][0]['validation']['episodes']} episodes each"
    if len(gap) == 1:
        return Found(Estimate(float(gap[0]), inf, 1.0), n, 1)
    return Found(Estimate(float(gap.mean()), float(gap.std(ddof=1) / np.sqrt(len(gap))), len(gap) - 1), n, len(gap))


def so_many(seeds: int) -> str:
    """Of training seeds, in words."""
    return f"{seeds} seed{'s' * (seeds > 1)}"


MEASURES: dict[Measure, Callable[[Rows], Found | None]] = {
    "success": successes,
    "few less many": successes,
    "l1": errors,
    "transfer": transferred,
    "GFLOP": operations,
    "order": order,
    "probe": probed,
}


def table(rows: Sequence[Judged], scale: Scale | None = None, seeds: Sequence[int] = ()) -> Table:
    """The ledger as a table.

    Args:
        seeds: of training, if they are not those of the studies.
    """
    lines = []
    for row in rows:
        c = row.claim
        lines.append((str(c.number), c.family, c.says, c.paper, where(c, scale), row.found or "-", row.n or "-", row.verdict))
    head = ("", "family", "claim", "the paper's figures", "study", "ours: by how much it is better, 95%", "n", "verdict")
    size = f"Scale: {scale}.  " if scale else ""
    size += f"Training seeds that were asked for: {', '.join(map(str, seeds))}.  " if seeds else ""
    note = f"{size}Intervals of paired differences, corrected by Holm within a claim."
    note += "  * As published before: its cells are not here." if any(row.verdict.endswith("*") for row in rows) else ""
    return Table("claims", head, tuple(lines), note)


def where(claim: Claim, scale: Scale | None) -> str:
    """The study, its settings, and its scale if that is not the usual one."""
    if not claim.study:
        return "no study"
    at = f"at scale {scale}" if scale not in (None, "small") else ""
    return ", ".join(filter(None, (claim.study, " against ".join(filter(None, claim.settings)), at)))


def known(runs: Path, scale: Scale, seeds: tuple[int, ...] = ()) -> list[Judged]:
    """All claims, judged."""
    return [judged(claim, runs, scale, seeds) for claim in claims()]


def with_published(rows: Sequence[Judged], before: Path, scale: Scale | None = None) -> list[Judged]:
    """A claim of which nothing is here keeps what was published of it, marked by a star: of the same words, study and scale.

    Args:
        before: the CSV of the ledger as it was published last; it need not be there.

    Raises:
        UserError: it is something else.
    """
    if not before.exists():
        return list(rows)
    try:
        with before.open() as file:
            listed = list(csv.reader(file))[1:]
        earlier = {(int(number), says, by): (found, n, verdict) for number, _, says, _, by, found, n, verdict in listed}
    except (ValueError, UnicodeDecodeError):
        raise UserError(f"{before} is not the table of claims as it was published; restore it, or delete it to begin anew") from None
    kept = []
    for row in rows:
        found, n, verdict = earlier.get((row.claim.number, row.claim.says, where(row.claim, scale)), ("", "", ""))
        stays = row.verdict in NOTHING and verdict not in NOTHING
        kept.append(Judged(row.claim, found, n, f"{verdict.rstrip('*')}*") if stays else row)
    return kept
