"""Which arm is better, by how much, how sure is that, and at what cost?  One page that opens from the disk, and its tables as text.

runs/studies/NAME/report.html                       everything inside: pictures, films, styles; no request leaves the page
runs/studies/NAME/{success,differences,worlds,latents,residuals,shift,claims,cost,cells}.{md,tex,csv}
runs/studies/NAME/asked.json                        the options of the command that was given last
"""

import base64
import io
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from . import __version__, compare, ledger, registry
from .clock import SAMPLERS
from .errors import UserError
from .files import read_between, read_json, text_hash, write_atomically, write_between
from .findings import Findings, Line, Rate, curves, find, outcomes_file, played, sentence
from .launch import State
from .probe import table as probe_table
from .records import keep
from .stats import SEEDS, over_windows, verdict, wilson
from .study import Job, Plan
from .tables import Table, saved
from .tasks import every_shift
from .world import named

LATENTS = ("own latent", "no latent", "another's latent")  # as world.py calls what an autoencoder is told
LOSSES = ("flow/velocity", "bc/action", "ddpm/denoise", "pad/action")  # of actions, in the order of preference
GAINED = {"bc/return": "", "bc/return_before": "before it learnt", "bc/return_shown": "the demonstrations' own actions"}  # in dreams
NOTES = {
    "success": "Rate over tasks and handles; the interval is that of a crossed design, training seeds x seeds of handles (which draw alike "
    "in all tasks), never narrower than Wilson's. "
    "IQM: interquartile mean over seeds and tasks; its interval is a bootstrap, which is too narrow with few seeds.",
    "differences": "Paired by training seed and handle; intervals and p are corrected by Holm",
}


def place(line: Line) -> str:
    """A row and its setting."""
    return ", ".join(filter(None, (line.label, line.setting)))


def interval(rate: Rate | None) -> str:
    """A rate with its interval."""
    return "not run" if rate is None else f"{rate.mean:.2f} [{rate.low:.2f}, {rate.high:.2f}]"


def number(value: float | None, digits: int = 1) -> str:
    """A number, or that there is none."""
    return "n/a" if value is None else f"{value:.{digits}f}"


def success(found: Findings) -> Table:
    """Rates; a cell that is missing is said to be."""
    names = list(dict.fromkeys(name for line in found.lines for name in line.tasks))
    rows = []
    for line in found.lines:
        count = "not run" if line.rate is None else f"{', '.join(map(str, line.by_seed))} of {line.rate.n // len(line.by_seed)}"
        waiting = f"{line.missing} of {len(line.jobs)} cells missing" if line.missing else ""
        by_task = [f"{interval(rate)} of {rate.n}" if (rate := line.tasks.get(name)) else "not run" for name in names]
        middle = "not run" if line.iqm is None else "{:.2f} [{:.2f}, {:.2f}]".format(*line.iqm)
        rows.append((line.label, line.setting or "-", count, interval(line.rate), middle, *by_task, waiting))
    head = ("arm", "setting", "successes by seed", "rate, 95% interval", "IQM", *names, "missing")
    seeds = list(dict.fromkeys(job.about[2] for line in found.lines for job in line.jobs))
    which = "" if seeds == [str(i) for i in range(len(seeds))] else f"  Training seeds {', '.join(seeds)}."
    return Table("success", head, tuple(rows), NOTES["success"] + which + of_seeds(found))


def differences(found: Findings) -> Table:
    """Paired differences to the baseline."""
    rows = []
    for line in found.lines:
        if line.label == found.baseline:
            continue
        if line.gap is None:
            told = "not run" if line.rate is None else f"{found.baseline} not run"
            rows.append((line.label, line.setting or "-", told, "", "", "", ""))
            continue
        gap = line.gap
        told = f"{gap.mean:+.2f} [{gap.low:+.2f}, {gap.high:+.2f}]"
        pairs = f"{ledger.so_many(gap.seeds)} x {gap.n // gap.seeds} handles"
        word = f"{verdict(gap.low, gap.high)}{', these networks' * (gap.seeds < SEEDS)}"
        rows.append((line.label, line.setting or "-", told, f"{gap.p:.3f}", f"{gap.improves:.2f}", pairs, word))
    head = ("arm", "setting", f"success less {found.baseline}, 95%", "p (Holm)", "P(improvement)", "n", "verdict")
    few = sum(line.gap.seeds < SEEDS for line in found.lines if line.gap is not None)
    n = found.comparisons or few
    awaited = f", {found.awaited} of them to come" if found.awaited else ""
    apart = f"; {few} of fewer than {SEEDS} seeds among themselves" if few and found.comparisons else ""
    beside = f"; not shown but run, and so among them: {', '.join(found.beside)}" if found.beside else ""
    note = f"{NOTES['differences']} for {n} comparison{'s' * (n != 1)}{awaited}{apart}{beside}."
    return Table("differences", head, tuple(rows), note)


def of_seeds(found: Findings) -> str:
    """What training seeds have in common that they should not; "" if nothing."""
    alike, others = found.alike
    if not alike:
        return ""
    return f"  {alike} of {others} cells of seeds above 0 were trained with the noise of seed 0; weights and windows are their own (LOG)."


def costs(found: Findings) -> Table:
    """What each row costs."""
    rows = []
    for line in found.lines:
        c = line.cost
        measured = (number(c.step, 0), number(c.train), number(c.chunk), number(c.memory, 2))
        rows.append((line.label, line.setting or "-", f"{c.parameters:,}", number(c.gigaflop, 2), *measured))
    head = ("arm", "setting", "trained parameters", "GFLOP a step and window", "ms a step", "minutes trained", "ms a chunk", "GB at most")
    note = "Medians over seeds, as measured while the study ran: times depend on what ran beside them.  Stages are not included."
    return Table("cost", head, tuple(rows), note)


def cells(found: Findings) -> Table:
    """One line for every cell, whatever became of it."""
    rows = []
    for line in found.lines:
        for job in line.jobs:
            there = "done" if job.trained else "recorded"
            state = found.failed.get(job.folder) or (there if job in line.done else found.state.get(job.folder, "waiting"))
            good = ""
            if job in line.done and outcomes_file(job).exists():
                result = read_json(outcomes_file(job), "an evaluated run")
                mine = [h for h in result["handles"] if h["seed"] < job.handles]
                good = f"{sum(h['success'] for h in mine)}/{len(mine)}"
            facts = read_json(job.folder / "cell.json", "a cell") if job in line.done else {}
            seconds = facts.get("seconds", {})
            rows.append((line.label, line.setting or "-", job.about[2], state, good, str(seconds.get("train", "")), job.folder.name))
    head = ("arm", "setting", "seed", "state", "successes", "seconds of training", "run")
    note = "Run folders are called after the hash of configuration and data; of what is recorded the weights are not here."
    return Table("cells", head, tuple(rows), note)


def shifts(found: Findings) -> Table:
    """Success under every change of the task, over all seeds that were played so."""
    names = every_shift(dict.fromkeys(name for line in found.lines for name in line.tasks))
    rows = []
    for line in found.lines:
        told = []
        for name in names:
            told.append(counted([played(job, job.shifted, f"eval-{name}.json") for job in line.done]))
        rows.append((line.label, line.setting or "-", counted([played(job, job.shifted) for job in line.done]), *told))
    note = "Each change by itself, at strengths 1 to 3, and none, all from the same start states; Wilson's intervals, blind to seeds."
    return Table("shift", ("arm", "setting", "unchanged", *names), tuple(rows), note)


def counted(outcomes: Sequence[Mapping[str, np.ndarray]]) -> str:
    """Successes of several runs as one count, with Wilson's interval."""
    good, n = (int(sum(f(row) for table in outcomes for row in table.values())) for f in (np.sum, np.size))
    return "not run" if n == 0 else "{}/{} [{:.2f}, {:.2f}]".format(good, n, *wilson(good, n))


def latents(found: Findings) -> Table:
    """What the latent action models know, one line for each training seed, with its interval over episodes."""
    rows = []
    for line in found.lines:
        told = [(job.about[2], probed(job)) for job in line.done if "probe" in job.measures and (job.folder / "probe.json").exists()]
        rows += [(line.label, line.setting or "-", seed, *cells_) for seed, cells_ in told]
        if not told or line.missing:
            rows.append(
                (line.label, line.setting or "-", f"{line.missing} of {len(line.jobs)} cells missing" if line.missing else "none probed")
            )
    head = ("arm", "setting", "seed", "R² of the hand's motion within tasks", "all windows", "all weights random", "codes in use",
            "painted / copied, where it moves", "half-way frame nearest of 5", "attention near the hand", "uniform", "n")  # fmt: skip
    note = (
        "R² of the hand's motion, read off the latent by a ridge; 95% intervals over episodes, of this network alone; chance of 5 is .20."
        f"{of_seeds(found)}"
    )
    return Table("latents", head, tuple(row + ("",) * (len(head) - len(row)) for row in rows), note)


def probed(job: Job) -> tuple[str, ...]:
    """What probe.json of a cell says, in words."""
    result = read_json(job.folder / "probe.json", "a probed run", "delete it")

    def told(line: Mapping[str, Any] | None) -> str:
        if line is None or line["value"] is None:
            return "n/a"
        return f"{line['value']:.3f}" + ("" if line["interval"] is None else " [{:.3f}, {:.3f}]".format(*line["interval"]))

    own, fresh = (result["probes"][name]["ridge"]["within"] for name in ("latent", "random encoder"))
    codes, looks = result["codes"], result["attention"] or {"share": None, "uniform": None}
    used = "no codes" if codes is None else f"{codes['in_use']:.0%} of {codes['codes']}"
    half = next(iter(result.get("halfway", {}).values()), {"nearest": None})["nearest"]
    measured = (told(own["mean"]), told(own["pooled"]), told(fresh["mean"]), used, told(result["reconstruction"]["moving"]), told(half))
    n = f"{result['validation']['n']} windows of {result['validation']['episodes']} episodes"
    return (*measured, told(looks["share"]), told(looks["uniform"]), n)


def residuals(found: Findings) -> Table:
    """What autoencoders decode of the future, on their own tasks and on others: one line for each horizon, all training seeds."""
    rows = []
    for line, jobs, name in autoencoders(found):
        results = [compare.result_of(job.folder / f"{name}.json") for job in jobs]
        stored = [compare.windows(job.folder, name) for job in jobs]
        seeds = ", ".join(job.about[2] for job in jobs)
        best = next(iter(results[0]["ways"].values()))  # with its own latent, where it has one
        for ahead in best:
            of = [next(iter(result["ways"].values()))[ahead]["moving_ratio"] for result in results]
            halves = [
                [result.get("order", {}).get(half) for result in results] if ahead == [*best][-1] else [] for half in ("noisy", "noise")
            ]
            nearest = [", ".join(f"{half['nearest']:.2f}" for half in told if half) for told in halves]
            skills = [skill(stored, f"{way}/{ahead}") if way in results[0]["ways"] else "" for way in LATENTS]
            n = f"{ledger.so_many(len(jobs))} x {results[0]['n']} windows of {results[0]['episodes']} episodes"
            place_ = (line.label, line.setting or "-", seeds, ", ".join(results[0]["tasks"]), ahead)
            rows.append((*place_, ", ".join(f"{ratio:.3f}" for ratio in of), *skills, *nearest, n))
    known = [line for line, _, _ in autoencoders(found)]
    for line in found.lines if known else ():
        if line.missing and (line in known or not line.done):
            rows.append((line.label, line.setting or "-", f"{line.missing} of {len(line.jobs)} cells missing"))
    head = ("arm", "setting", "seeds", "tasks", "ahead", "error / a copy's, where it moves", *(f"skill, {way}" for way in LATENTS),
            "half of a latent: half-way frame nearest of 5", "noise alone", "n")  # fmt: skip
    note = (
        "Feature error of the future decoded through its latent, by seed, where more than the median window changes; skill over a copy of "
        f"the present, 95% intervals over training seeds and episodes; nearest by seed, chance of 5 is .20.{of_seeds(found)}"
    )
    return Table("residuals", head, tuple(row + ("",) * (len(head) - len(row)) for row in rows), note)


def skill(stored: Sequence[Mapping[str, np.ndarray]], name: str) -> str:
    """Of several seeds on the same windows: what they save of the error of a copy of the present, with its interval."""
    error, copied = (np.stack([one[f"{name}/{what}"] for one in stored]) for what in ("l1", "copied"))
    part = over_windows(error, stored[0]["start"], copied)
    low, high = part.interval()
    return f"{1 - part.mean:+.2f} [{1 - high:+.2f}, {1 - low:+.2f}]"


def foresight(summary: Mapping[str, Any], name: str, title: str, missing: Mapping[str, str] | None = None) -> Table:
    """A comparison of world models as a table: one line for a model and a horizon, the copy of the present first.

    Args:
        missing: what has not been run, by row.
    """
    rows = []
    for ahead, copy in summary["copy"].items():
        rows.append(
            (
                "copy of the present",
                "",
                ahead,
                number(copy["l1"], 4),
                "0",
                "",
                number(copy["found"], 2),
                "0",
                number(copy["psnr"]),
                number(copy["ssim"], 3),
            )
        )
        for arm, row in summary["arms"].items():
            seen = row["horizons"].get(ahead)
            if seen is None:
                rows.append((arm, "", ahead, compare.CANNOT))
                continue
            skill, pixels = (
                "{mean:+.2f} [{low:+.2f}, {high:+.2f}]".format(**seen[key]) if key in seen else "n/a" for key in ("skill", "pixel skill")
            )
            found, psnr, ssim, lpips = (seen[key]["mean"] if key in seen else None for key in ("found", "psnr", "ssim", "lpips"))
            less = "{mean:+.3f} [{low:+.3f}, {high:+.3f}], {verdict}".format(**seen["less"]) if "less" in seen else ""
            less += ", these networks" if less and seen["less"]["seeds"] < SEEDS else ""
            told = (number(seen["l1"]["mean"], 4), skill, less, number(found, 2), pixels, number(psnr), number(ssim, 3), number(lpips, 3))
            cost = row["cost"]
            price = (
                compare.signed(row["listens"]),
                recovers(row["recovers"]),
                f"{cost['GFLOP']:.2f}",
                f"{cost['milliseconds']:.0f}",
                f"{cost['parameters']:,}",
            )
            waiting = (missing or {}).get(arm, "")
            seeds = ", ".join(map(str, row["seeds"])) + (f" ({waiting})" if waiting else "")
            decoder = row["decoder"][ahead]
            best = (number(decoder["psnr"]), number(decoder["ssim"], 3), number(decoder["l1"], 4))
            rows.append((arm, seeds, ahead, *told, *best, *price))
    rows += [(arm, f"not run ({waiting})") for arm, waiting in (missing or {}).items() if arm not in summary["arms"]]
    head = ("model", "seeds", "ahead", "feature error", "skill over a copy, 95%", f"error less {summary['baseline']}, 95%",
            "own future of 64", "skill in pixels, 95%", "PSNR", "SSIM", "LPIPS", "its decoder with the true tokens: PSNR", "and SSIM",
            "and feature error", "skill lost with another's actions", "recovers actions: R²", "GFLOP", "ms",
            "parameters")  # fmt: skip
    place_ = f"{title}: " if title else ""
    sought = "; ".join(dict.fromkeys("{n} windows, {steps} steps".format(**row["recovers"]) for row in summary["arms"].values()))
    note = (
        f"{place_}{summary['n']} windows of {', '.join(summary['tasks'])}, control steps ahead; intervals over episodes and "
        "training seeds, differences paired by both, corrected by Holm over models and horizons."
        f"  LPIPS is n/a where its weights are not there; GFLOP and ms of one prediction, encoder apart.  Actions are sought on {sought}; "
        f"an R² without an interval is that of windows {compare.FIRST_TASK}."
    )
    note += "".join(f"  {arm}: {compare.read_how(row)}." for arm, row in summary["arms"].items() if "own_space" in row)
    return Table(name, head, tuple(row + ("",) * (len(head) - len(row)) for row in rows), note)


def recovers(told: Mapping[str, Any]) -> str:
    """R^2 of the actions found by descent, with its interval where it has one."""
    return "{mean:+.2f} [{low:+.2f}, {high:+.2f}]".format(**told) if "low" in told else f"{told['mean']:+.2f}"


def tables(found: Findings, foreseen: Sequence["Worlds"] = (), claimed: Sequence[ledger.Judged] = ()) -> list[Table]:
    """Success only where something is played, world models only where something is foreseen, claims where the study tests any."""
    shifted = any("shift" in job.measures for line in found.lines for job in line.jobs)
    success_ = [success(found), differences(found)] if any(map(plays, found.lines)) else []
    compared = [world.table for world in foreseen if world.table]
    told = [shifts(found)] if shifted else []
    told += [latents(found)] if any("probe" in line.jobs[0].measures for line in found.lines) else []
    told += [table] if (table := residuals(found)).rows else []
    told += [ledger.table(claimed)] if claimed else []
    return [*success_, *compared, *told, costs(found), cells(found)]


def plays(line: Line) -> bool:
    """Is success measured?"""
    return bool({"play", "plan"} & {*line.jobs[0].measures})


def write(plan: Plan, runs: Path, state: Mapping[Path, State], failed: Mapping[Path, str]) -> Path:
    """Write the report with what there is, and return the page."""
    folder, found = runs / "studies" / plan.name, find(plan, state, failed)
    foreseen, claimed = worlds(found, folder), ledger.of_study(plan)
    for table in tables(found, foreseen, claimed):
        for suffix, text in (("md", table.markdown), ("tex", table.latex), ("csv", table.csv)):
            write_atomically(folder / f"{table.name}.{suffix}", lambda draft, text=text: draft.write_text(text))
    page, drawn = render(plan, found, foreseen, claimed, runs)
    for name, picture in drawn.items():
        write_atomically(folder / f"{name}.png", lambda draft, picture=picture: draft.write_bytes(picture))
    write_atomically(folder / "report.html", lambda draft: draft.write_text(page))
    return folder / "report.html"


def publish(plan: Plan, runs: Path, page: Path) -> None:
    """Put what was found into a page; CSV files, pictures and the outcomes of every cell beside it, under docs/results.

    Raises:
        UserError: the page has no place for it, or shows cells that are not among those found; what lies beside it is something else.
    """
    folder, home = runs / "studies" / plan.name, page.parent / "docs" / "results" / plan.name
    found = find(plan, {}, {})
    there = cells(found)
    read_between(page, plan.name)
    if lost := [cell for cell in _published(home / "cells.csv", there.head) if cell not in _finished(there)]:
        n, (arm, setting, seed) = len(lost), lost[0]
        told = f"{page} shows {n} finished cells that are not here or were not asked for, such as {arm}, {setting}, seed {seed}"
        raise UserError(f"{told}; take them back (wmzoo recall), run them again, or delete {home} to begin anew")
    keep(plan, home.parent)
    foreseen = worlds(found, folder)
    shown = [table for table in tables(found, foreseen) if table.name not in ("cost", "cells")]
    pictures = {
        world.folder / name: f"{world.folder.name}-{name}" for world in foreseen if world.table for name in ("compare.png", "frames.png")
    }
    if any(line.gap for line in found.lines):
        pictures[folder / "differences.png"] = "differences.png"
    for path, name in pictures.items():
        write_atomically(home / name, lambda draft, path=path: with_few_colours(path).save(draft, format="PNG", optimize=True))
    for table in tables(found, foreseen):
        write_atomically(home / f"{table.name}.csv", lambda draft, table=table: draft.write_text(table.csv))
    links = [f"![{name.removesuffix('.png')}](docs/results/{plan.name}/{name})\n" for name in pictures.values()]
    write_between(page, plan.name, "\n".join([*(table.markdown for table in shown), *links]))


def _published(path: Path, head: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The finished cells of the table that was published last, if there is one."""
    if not path.exists():
        return []
    before = saved(path, "")
    if before.head != head:
        raise UserError(f"{path} is not the table of cells as it was published; restore it, or delete it to begin anew")
    return _finished(before)


def _finished(table: Table) -> list[tuple[str, ...]]:
    """Arm, setting and seed of the cells of this table that have an outcome."""
    return [row[:3] for row in table.rows if row[3] in ("done", "recorded")]


def with_few_colours(path: Path) -> Image.Image:
    """A picture small enough for a repository."""
    return Image.open(path).convert("RGB").quantize(256)


def render(
    plan: Plan, found: Findings, foreseen: Sequence["Worlds"], claimed: Sequence[ledger.Judged], runs: Path
) -> tuple[str, dict[str, bytes]]:
    """The page, and its pictures for other pages."""
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    shown = [line for line in found.lines if line.rate is not None]
    pictures = {
        "Success": figure(lambda axes: rates(axes, shown), len(shown)) if shown else None,
        "Difference to the baseline": figure(lambda axes: forest(axes, found), sum(line.gap is not None for line in shown))
        if any(line.gap for line in shown)
        else None,
        "Validation loss of actions over training": learning(found),
        "What policies that learn in a world model gain in their dreams": dreamt(found),
    }
    files = {"Success": "success", "Difference to the baseline": "differences"}
    drawn = {files[name]: base64.b64decode(picture["paper"]) for name, picture in pictures.items() if picture and name in files}
    page = environment.get_template("page.html").render(
        found=found,
        verdicts=[sentence(line, found.baseline) for line in found.lines if line.label != found.baseline and plays(line)],
        best=headline(found, [world.short for world in foreseen if world.short]),
        pictures={name: picture for name, picture in pictures.items() if picture and name in files},
        courses={name: picture for name, picture in pictures.items() if picture and name not in files},
        tables=tables(found, foreseen, claimed),
        arms=definitions(plan),
        films=films(found),
        worlds=foreseen,
        probes=probes(found),
        provenance=provenance(plan),
    )
    return page, drawn


def headline(found: Findings, foreseen: Sequence[str] = ()) -> str:
    """The first sentence of the page: how much is known, and what of it is sure.

    Args:
        foreseen: what is to be said of world models, where nothing is played.
    """
    done = f"{found.cells - found.missing} of {found.cells} cells are done"
    gaps = [line for line in found.lines if line.gap is not None]
    if not any(map(plays, found.lines)):
        return " ".join([f"{done}.", *foreseen])
    if not gaps:
        return f"{done}; nothing can be compared yet."
    many = [line for line in gaps if line.gap and line.gap.seeds >= SEEDS]
    if not many:
        return f"{done}, fewer than three training seeds of each: differences are of these networks and say nothing of the methods yet."
    sure = [line for line in many if line.gap and (line.gap.low > 0 or line.gap.high < 0)]
    if not sure:
        return f"{done}. No arm is distinguishable from {found.baseline} at this n."
    better = [place(line) for line in sure if line.gap and line.gap.low > 0]
    worse = [place(line) for line in sure if line.gap and line.gap.high < 0]
    parts = [f"better than {found.baseline}: {', '.join(better)}"] * bool(better) + [f"worse: {', '.join(worse)}"] * bool(worse)
    rest = len(many) - len(sure)
    return f"{done}. {'; '.join(parts)}; {rest} not distinguishable.".replace(". b", ". B", 1).replace(". w", ". W", 1)


Picture = dict[str, str]  # a PNG for each theme, as a data URL; and "paper", for other pages, in base 64


def figure(draw: Callable[[Axes], None], lines: int, width: float = 7.0) -> Picture:
    """A drawing in both themes on a transparent ground, and on white."""
    drawn = {}
    for theme, ink, ground in (("light", "#222222", "none"), ("dark", "#dddddd", "none"), ("paper", "#222222", "white")):
        colours = dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor"), ink)
        with rc_context({**colours, "axes.facecolor": ground, "figure.facecolor": ground, "savefig.facecolor": ground, "font.size": 9}):
            sheet = Figure(figsize=(width, 0.9 + 0.32 * max(2, lines)), layout="constrained")
            axes = sheet.subplots()
            axes.spines[["top", "right"]].set_visible(False)
            draw(axes)
            drawn[theme] = png(sheet) if theme == "paper" else f"data:image/png;base64,{png(sheet)}"
    return drawn


def png(sheet: Figure) -> str:
    written = io.BytesIO()
    sheet.savefig(written, format="png", dpi=140)
    return base64.b64encode(written.getvalue()).decode()


def rates(axes: Axes, lines: Sequence[Line]) -> None:
    """Rates with intervals; a bar for each seed."""
    for i, line in enumerate(lines):
        rate = line.rate
        assert rate is not None
        axes.plot([rate.low, rate.high], [i, i], color="C0", lw=2, solid_capstyle="butt")
        axes.plot(rate.mean, i, "o", color="C0")
        each = rate.n / len(line.by_seed)
        axes.plot([n / each for n in line.by_seed], [i] * len(line.by_seed), "|", color="C1", ms=9)
    axes.set(yticks=range(len(lines)), yticklabels=[place(line) for line in lines], xlim=(0, 1))
    axes.set_xlabel("success; line: 95% interval, bars: training seeds")
    axes.set_ylim(len(lines) - 0.5, -0.5)


def forest(axes: Axes, found: Findings) -> None:
    """Paired differences with corrected intervals; of too few seeds hollow and without a verdict's colour."""
    lines = [line for line in found.lines if line.gap is not None]
    axes.axvline(0, color="grey", lw=1)
    for i, line in enumerate(lines):
        gap = line.gap
        assert gap is not None
        colour = "C7" if gap.seeds < SEEDS or gap.low <= 0 <= gap.high else "C2" if gap.low > 0 else "C3"
        axes.plot([gap.low, gap.high], [i, i], color=colour, lw=2, solid_capstyle="butt")  # ends where the interval does
        axes.plot(gap.mean, i, "o", color=colour, fillstyle="none" if gap.seeds < SEEDS else "full")
    labels = [place(line) for line in lines]
    reach = max(0.3, min(1.0, 1.1 * max(max(abs(line.gap.low), abs(line.gap.high)) for line in lines if line.gap)))
    axes.set(yticks=range(len(lines)), yticklabels=labels, xlim=(-reach, reach))
    axes.set_xlabel(
        f"success less {found.baseline}; 95% intervals, corrected by Holm\nhollow: fewer than three seeds, so of these networks"
    )
    axes.set_ylim(len(lines) - 0.5, -0.5)


def learning(found: Findings) -> Picture | None:
    """Validation loss of the actions, mean and range of seeds; losses of another kind than the first say so: their levels differ."""
    drawn = over_seeds(found, LOSSES)
    if not drawn:
        return None
    kinds = [loss_kind(line, term) for line, term, _, _ in drawn]

    def draw(axes: Axes) -> None:
        for i, ((line, _, steps, loss), kind) in enumerate(zip(drawn, kinds, strict=True)):
            colour, style = f"C{i % 10}", ("-", "--", ":")[i // 10 % 3]
            label = place(line) if kind == kinds[0] else f"{place(line)}: {kind}"
            axes.plot(steps, loss.mean(axis=0), label=label, lw=1.4, color=colour, ls=style)
            axes.fill_between(steps, loss.min(axis=0), loss.max(axis=0), color=colour, alpha=0.15, lw=0)
        axes.set(xlabel="training step", ylabel="validation loss of the actions", yscale="log")
        axes.legend(fontsize=7, frameon=False, ncols=2)

    return figure(draw, 9)


def dreamt(found: Findings) -> Picture | None:
    """Sum of rewards in dreams from validation windows, the mean of seeds and their range, between its two marks."""
    each = {term: over_seeds(found, (term,)) for term in GAINED}
    if not all(each.values()):
        return None

    def draw(axes: Axes) -> None:
        for i, (line, _, steps, gained) in enumerate(each["bc/return"]):
            axes.plot(steps, gained.mean(axis=0), label=place(line), lw=1.4, color=f"C{i % 10}")
            axes.fill_between(steps, gained.min(axis=0), gained.max(axis=0), color=f"C{i % 10}", alpha=0.15, lw=0)
        for style, (term, name) in zip(("--", ":"), list(GAINED.items())[1:], strict=True):
            axes.axhline(each[term][0][3].mean(), label=name, color="grey", lw=1, ls=style)
        axes.set(xlabel="training step", ylabel="sum of rewards of a dream")
        axes.legend(fontsize=7, frameon=False, ncols=2)

    return figure(draw, 9)


def loss_kind(line: Line, term: str) -> str:
    """How the clocks of a term are drawn, if it has clocks, or the term: a loss over other clocks has another level."""
    sampler = getattr(line.done[0].arm.objectives[term.partition("/")[0]].config, "sampler", "")
    return f"{sampler} clocks" if sampler in SAMPLERS else term


def over_seeds(found: Findings, terms: Sequence[str]) -> list[tuple[Line, str, np.ndarray, np.ndarray]]:
    """Of every row that has one of these terms: it, the term, the steps, and the values (seeds, steps)."""
    drawn: list[tuple[Line, str, np.ndarray, np.ndarray]] = []
    for line in found.lines:
        seeds = [c for job in line.done if (c := curves(job, terms)) is not None]
        seeds = [c for c in seeds if len(c[1]) == len(seeds[0][1])]
        if seeds and len(seeds[0][1]) > 1:
            drawn.append((line, seeds[0][0], seeds[0][1], np.stack([c[2] for c in seeds])))
    return drawn


def definitions(plan: Plan) -> list[dict[str, Any]]:
    """Every row: what it is in one line, what is changed, and its terms with their weights."""
    found = []
    for label, row in plan.study.rows.items():
        arm = next((job.arm for job in plan.cells if job.about[0] == label), None)
        if arm is not None:
            terms = ", ".join(f"{term} x {weight}" for term, weight in arm.weights_in_words.items())
            told = [("", row.fields), *((f"in {setting}: ", fields) for setting, fields in row.within.items())]
            changed = ", ".join(f"{where}{name} = {value}" for where, fields in told for name, value in fields.items())
            size = f"{arm.optim.steps} steps of {arm.data.batch} windows, width {arm.shape.width}, depth {arm.shape.depth}"
            summary = registry.summary(registry.members("arms")[row.arm])
            play = f"K = {arm.play.steps}, {arm.play.execute} of {arm.data.horizon} actions executed"
            found.append({"label": label, "arm": row.arm, "what": summary, "terms": terms, "changed": changed, "size": size, "play": play})
    return found


def films(found: Findings) -> dict[str, list[tuple[str, str]]]:
    """By task: the same start state played by every row, its first seed that was filmed; as data URLs."""
    shown: dict[str, list[tuple[str, str]]] = {}
    for line in found.lines:
        for path in next(filter(None, (sorted((job.folder / "videos").glob("*-handle-0.mp4")) for job in line.done)), ()):
            task = path.name.removesuffix("-handle-0.mp4")
            url = "data:video/mp4;base64," + base64.b64encode(path.read_bytes()).decode()
            shown.setdefault(task, []).append((place(line), url))
    return shown


@dataclass(frozen=True)
class Worlds:
    """World models side by side, in one feature space and setting.

    Attributes:
        title: the setting.
        folder: of their pictures.
        table: or None, if they cannot be compared.
        verdicts: on every model but the baseline.
        short: the verdicts in one line.
        wrong: why they cannot be compared.
    """

    title: str
    folder: Path
    table: Table | None
    verdicts: Sequence[str] = ()
    short: str = ""
    wrong: str = ""

    @property
    def pictures(self) -> dict[str, str]:
        """Data URLs by what they show."""
        shown = {"error over horizon": "compare.png", "true and predicted frames": "frames.png"}
        return {what: _url(self.folder / name) for what, name in shown.items()} if self.table else {}


def worlds(found: Findings, folder: Path) -> list[Worlds]:
    """One comparison for each feature space and setting."""
    groups: dict[tuple[str, str, str], list[tuple[str, Path]]] = {}
    waiting: dict[str, dict[str, str]] = {}
    for line in found.lines:
        if "foresee" in line.jobs[0].measures and line.missing:
            waiting.setdefault(line.setting, {})[line.label] = f"{line.missing} of {len(line.jobs)} seeds missing"
        for job in line.done:
            path = job.folder / "world.json"
            if path.exists() and "foresee" in job.measures:
                result = compare.result_of(path)
                if result["kind"] == "world model":
                    told = compare.scored(result)
                    key = (line.setting, str(told["feature_space"]), text_hash(str(told)))
                    groups.setdefault(key, []).append((line.label, job.folder))
    shown = []
    for number_, ((setting, _, _), jobs) in enumerate(groups.items(), start=1):
        name, labels = "worlds" if number_ == 1 else f"worlds-{number_}", [label for label, _ in jobs]
        try:
            summary = compare.compare([run for _, run in jobs], folder / name, found.baseline, labels)
        except UserError as error:
            shown.append(Worlds(setting, folder / name, None, wrong=str(error)))
        else:
            table = foresight(summary, name, setting, waiting.get(setting))
            table = replace(table, note=table.note + of_seeds(found))
            shown.append(Worlds(setting, folder / name, table, compare.sentences(summary), compare.in_short(summary)))
    return shown


def autoencoders(found: Findings) -> list[tuple[Line, list[Job], str]]:
    """Rows that were told the future through a latent, their cells, and the name of the files: on their own tasks, and then on others."""
    told = []
    for line in found.lines:
        for name in dict.fromkeys(named(tasks) for job in line.done if "foresee" in job.measures for tasks in ((), job.elsewhere)):
            paths = {job.folder / f"{name}.json": job for job in line.done}
            jobs = [job for path, job in paths.items() if path.exists() and compare.result_of(path)["kind"] == "autoencoder"]
            told += [(line, jobs, name)] if jobs else []
    return told


def probes(found: Findings) -> list[str]:
    """Latent-action tables, one for each row that has them; its first seed."""
    paths = [line.done[0].folder / "probe.json" for line in found.lines if line.done and "probe" in line.done[0].measures]
    return [probe_table(read_json(path, "a probed run")) for path in paths if path.exists()]


def _url(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def in_words(hashes: Sequence[str]) -> str:
    """How many cells, and how many states of the code they are of; those of early versions did not keep that."""
    states, unknown = len({*filter(None, hashes)}), hashes.count("")
    told = [f"{states} state{'s' * (states > 1)} of its code"] * (states > 0) + [f"{unknown} not known"] * (unknown > 0)
    return f"{len(hashes)} cell{'s' * (len(hashes) > 1)} ({', '.join(told)})"


def provenance(plan: Plan) -> dict[str, str]:
    """Where the numbers come from."""
    given = [f"--{name} {' '.join(map(repr, v)) if isinstance(v, list | tuple) else v}" for name, v in plan.asked.items() if v]
    data: dict[str, str] = {}
    packages, machines, code = set[str](), set[str](), dict[str, list[str]]()
    for facts in (read_json(job.folder / "cell.json", "a cell", "delete it") for job in plan.cells if job.done):
        data |= facts.get("data", {})  # earlier versions did not keep it
        packages.add(", ".join(f"{name} {number}" for name, number in facts.get("versions", {}).items() if name != "wmzoo"))
        code.setdefault(facts.get("trained_by") or facts.get("versions", {}).get("wmzoo", "?"), []).append(facts.get("code", ""))
        precision = f", {facts['precision']}" if facts.get("precision") else ""  # earlier versions did not keep it
        threads = f"{facts.get('threads') or 'any number of'} thread(s) a run"
        machines.add(f"{facts.get('processor') or facts.get('machine', '')}, {threads}{precision}")
    return {
        "command": " ".join([f"wmzoo study {plan.name}", *given]),
        "wmzoo that trained the runs": "; ".join(f"{by}: {in_words(hashes)}" for by, hashes in sorted(code.items())) or "none yet",
        "packages of the runs": "; ".join(sorted(filter(None, packages))) or "none yet",
        "machines of the runs": "; ".join(sorted(machines)) or "none yet",
        "this page": f"wmzoo {__version__}, {platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "data": ", ".join(f"{name} {digest}" for name, digest in data.items()) or "none yet",
        "checkpoint": "the last one, by rule",
        "handles": f"seeds 0 to {plan.study.handles - 1} of each task, the same for every arm",
    }
