"""What does a latent action model know?  How the hand moved, which codes it uses, how it paints, and where it looks.

Everything is measured in eval on frames as recorded; windows whose second frame lies past the end of their episode are left out.
How the hand moved is read off the latent by the probes of `regress`, and off what it competes with: the same model with fresh
weights ("random encoder"), with fresh weights but for its encoder where that is frozen ("random former"), the difference of the
encoder's tokens, the principal components of that difference.  Models and components have seen frames of every training episode; what is
held out from them is the motion.  Whether half of a latent is half of the way is ranked in pixels (`Subject.halfway`).
"""

from collections.abc import Callable, Mapping
from contextlib import closing
from copy import copy, deepcopy
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from matplotlib import colormaps
from matplotlib.figure import Figure
from scipy.special import xlogy
from torch import Tensor
from tqdm import tqdm

from . import config
from .batch import Batch, Needs
from .data import Normaliser, Window, Windows
from .episodes import open_task
from .errors import UserError
from .features import frame_tokens
from .files import write_atomically, write_json
from .finished import load_hybrid
from .interfaces import RARE, Encoder, LatentActions, Sizes
from .regress import Seen, principal, probes
from .tasks import make, resolve

NEAR = 0.2  # part of the image's side
PCA = "PCA of the difference"


@dataclass
class Subject:
    """A latent action model and what it is compared with: the same with fresh weights, all or all but a frozen encoder's; gap and data."""

    lam: LatentActions
    fresh: dict[str, LatentActions]
    encoder: Encoder
    gap: int
    windows: Windows

    def chosen(self, rows: list[Window], count: int) -> list[Window]:
        """Some of the windows that have a second frame, evenly spaced.

        Raises:
            UserError: there are fewer than two.
        """
        there = [row for row in rows if row.now + self.gap <= row.episode.length]
        if len(there) < 2:
            raise UserError(f"the episodes of {', '.join(self.windows.names)} are too short: hardly two frames are {self.gap} steps apart")
        return [there[i] for i in np.unique(np.linspace(0, len(there) - 1, count).astype(int))]

    def gather(self, rows: list[Window]) -> Batch:
        """Their frames as recorded."""
        return self.windows.gather(rows, np.zeros((len(rows), 2), int), np.random.default_rng(0))

    def change(self, batch: Batch) -> Float[Tensor, "B P E"]:
        """The encoder's tokens of the second frame less those of the first."""
        now = frame_tokens(batch, self.encoder, self.lam.view)
        return frame_tokens(batch, self.encoder, self.lam.view, batch.column(self.gap)) - now

    def later(self, batch: Batch, gap: int) -> Float[Tensor, "B 3 S S"]:
        """The frame that lies so far ahead, in the size in which frames are painted."""
        return self.lam.seen(batch.future[:, batch.column(gap), self.lam.view])

    def quantised(self, batch: Batch) -> tuple[Tensor, Any]:
        """The latent before and after its bottleneck."""
        latent = self.lam.encode(batch, self.gap)
        return latent, self.lam.quantise(latent, batch.has_future[:, batch.column(self.gap)])

    @torch.no_grad()
    def read(self, rows: list[Window], names: tuple[str, ...], columns: list[int]) -> Seen:
        """What probes read of these windows; the difference of all patches is there under the name of its PCA."""

        def features(batch: Batch, _: slice) -> dict[str, Tensor]:
            latent, quantised = self.quantised(batch)
            change = self.change(batch)
            seen = {"latent": latent, **({"quantised latent": quantised.value} if self.lam.codes else {})}
            seen |= {name: fresh.encode(batch, self.gap) for name, fresh in self.fresh.items()}
            seen |= {"feature difference": change.mean(dim=1), PCA: change}
            return {name: value.flatten(1) for name, value in seen.items()}

        numbers = {folder: i for i, folder in enumerate(dict.fromkeys(row.episode.folder for row in rows))}
        motion = np.stack([row.episode.state[row.now + self.gap] - row.episode.state[row.now] for row in rows])[:, columns]
        task, episode = np.array([row.task for row in rows]), np.array([numbers[row.episode.folder] for row in rows])
        start = np.array([row.episode.attempt for row in rows])
        return Seen(names, self.windows.names, task, episode, start, motion.astype(float), self._each(rows, features, "reading"))

    @torch.no_grad()
    def paint(self, rows: list[Window], hand: Float[np.ndarray, "n 2"]) -> dict[str, np.ndarray]:
        """Errors of the painted and of the present frame, codes, and attention near the hand and what is uniform, of each window."""

        def painted(batch: Batch, part: slice) -> dict[str, Tensor]:
            now, future = self.lam.seen(batch.image[:, -1, self.lam.view]), self.later(batch, self.gap)
            quantised, weight = self.quantised(batch)[1], self.lam.attention(batch, self.gap)
            near = torch.from_numpy(self.near(hand[part]))
            return {
                "error": (self.lam.decode(batch, quantised.value) - future).square().mean(dim=(1, 2, 3)),
                "copied": (now - future).square().mean(dim=(1, 2, 3)),
                "share": ((weight * near[:, None]).sum(dim=-1) / weight.sum(dim=-1)).mean(dim=-1),
                "uniform": near.float().mean(dim=-1),
                **({"codes": quantised.codes} if self.lam.codes else {}),
            }

        return self._each(rows, painted, "painting")

    @torch.no_grad()
    def halfway(self, rows: list[Window]) -> dict[str, np.ndarray]:
        """Is half of a motion half of the way?  The rank (0 is best) of the half-way frame among those at 0, 1/4, 1/2, 3/4, all of the gap.

        Half of a motion is the mean of the latents of no motion and of the whole; what it is painted as is compared with the frames
        by squared error.  Nothing where the gap has no quarters.
        """
        steps, model = [self.gap * k // 4 for k in range(5)], copy(self)
        if len(set(steps)) < 5:
            return {}
        model.windows = copy(self.windows)
        model.windows.needs = Needs(futures=tuple(steps[1:]))

        def ranked(batch: Batch, _: slice) -> dict[str, Tensor]:
            frames = torch.stack(
                [self.lam.seen(batch.image[:, -1, self.lam.view]), *(self.later(batch, step) for step in steps[1:])], dim=1
            )
            half = (self.lam.encode(batch, 0) + self.lam.encode(batch, self.gap)) / 2
            quantised = self.lam.quantise(half, batch.has_future.all(dim=1)).value
            values = {"latent": half, "quantised latent": quantised} if self.lam.codes else {"latent": quantised}
            apart = {name: (self.lam.decode(batch, x)[:, None] - frames).square().mean(dim=(2, 3, 4)) for name, x in values.items()}
            return {name: (distance < distance[:, 2:3]).sum(dim=1) for name, distance in apart.items()}

        return model._each(rows, ranked, "halving")

    def _each(self, rows: list[Window], measure: Callable[[Batch, slice], dict[str, Tensor]], what: str) -> dict[str, np.ndarray]:
        """What `measure` says of every batch of these windows, one after the other."""
        parts = [slice(i, i + 64) for i in range(0, len(rows), 64)]
        seen = [measure(self.gather(rows[part]), part) for part in tqdm(parts, desc=what, unit="batch")]
        return {name: torch.cat([each[name] for each in seen]).numpy() for name in seen[0]}

    def near(self, hand: Float[np.ndarray, "n 2"]) -> Bool[np.ndarray, "n P"]:
        """Patches whose centre is near the hand; none where it is not known."""
        rows, columns = ((np.arange(side) + 0.5) / side for side in self.encoder.grid)
        centre = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
        return np.linalg.norm(centre - hand[:, None], axis=-1) <= NEAR

    def hand(self, rows: list[Window]) -> tuple[tuple[str, ...], list[int], Float[np.ndarray, "n 2"]]:
        """Names and places of the hand's numbers in the state, and where the second frame shows the hand (NaN: unknown).

        Raises:
            UserError: the state of a task has no hand.
        """
        names: dict[str, int] = {}
        place = np.full((len(rows), 2), np.nan)
        for number, name in enumerate(self.windows.names):
            with closing(make(name, self.windows.config.size)) as task:
                names = {what: column for column, what in enumerate(task.state_names) if what.startswith("hand")}
                if not names:
                    raise UserError(f"the state of {name} has no hand, only {', '.join(task.state_names)}: there is no motion to probe for")
                for i, row in enumerate(rows):
                    if row.task == number and self.lam.view == 0:  # hand_pixel is of the first camera
                        place[i] = task.hand_pixel(row.episode.state[row.now + self.gap]) or np.nan
        return tuple(names), list(names.values()), place


def codebook(codes: Int[np.ndarray, "n K"], size: int) -> dict[str, Any]:
    """Use of the codes over all windows: exp(-sum p ln p), p = use of each code; `collapsed` below a quarter in use."""
    share = np.bincount(codes.flatten(), minlength=size) / codes.size
    used = int((share > 0).sum())
    collapsed = used / size < RARE * min(1.0, codes.size / size)
    perplexity = float(np.exp(-xlogy(share, share).sum()))
    return {"codes": size, "n": codes.size, "perplexity": perplexity, "in_use": used / size, "dead": size - used, "collapsed": collapsed}


def subject(run: Path, tasks: tuple[str, ...], data: str) -> tuple[Subject, dict[str, Any]]:
    """The latent action model of a run with the data it was trained on, or on other tasks or from another folder; and what it is.

    Raises:
        UserError: the run has no such model, or it cannot read this data.
    """
    arm, hybrid, facts = load_hybrid(run)
    found = [name for name, objective in hybrid.objectives.items() if isinstance(getattr(objective, "lam", None), LatentActions)]
    if not found:
        raise UserError(
            f"{run} is a run of {arm.name}, which has no latent action model; "
            "lam, lara, lara_frozen, lara_off, lapa_codes and flare_lara have one"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(arm.seed + 1)  # not the weights that this run started from
        other = config.build(arm, Sizes(**facts["sizes"])).eval()
    objective = cast("Any", hybrid.objectives[found[0]])
    lam, fresh = cast("LatentActions", objective.lam), cast("LatentActions", cast("Any", other.objectives[found[0]]).lam)
    encoders = {name: part for name, part in lam.named_modules() if isinstance(part, Encoder)}
    if not encoders:
        raise UserError(f"the latent action model of {run} has no encoder to compare it with")
    rivals = {"random encoder": fresh}
    if frozen := {name: part for name, part in encoders.items() if hasattr(part, "fingerprint")}:
        rivals["random former"] = deepcopy(fresh)
        for name, part in frozen.items():
            rivals["random former"].get_submodule(name).load_state_dict(part.state_dict())
    gap = objective.gaps[0] if hasattr(objective, "gaps") else objective.gap
    settings = replace(arm.data, tasks=tasks or arm.data.tasks, root=data or arm.data.root, videos=0)
    if tasks or data:  # as many episodes as there are, at most as many as the run has read
        recorded = [open_task(Path(settings.root) / str(settings.size), name) for name in resolve(settings.tasks)]
        settings = replace(settings, demos=min(arm.data.demos, *(len(r.episodes) - len(r.validation) for r in recorded)))
    windows = Windows(settings, Needs(futures=(gap,)), arm.seed)
    shape, sizes = (windows.views, windows.state_size, windows.action_size), facts["sizes"]
    if shape != (sizes["views"], sizes["state"], sizes["action"]):
        wanted = f"{sizes['views']} cameras, {sizes['state']} numbers of state and {sizes['action']} of action"
        raise UserError(f"{run} reads {wanted}; the episodes of {', '.join(windows.names)} in {settings.root} have {shape}")
    windows.normaliser = Normaliser(**{name: tuple(row) for name, row in facts["normaliser"].items()})
    about = {"run": run.resolve().name, "arm": arm.name, "objective": found[0], "seed": arm.seed, "gap": gap, "tasks": list(windows.names)}
    about |= {"tokens": lam.tokens, "width": lam.width, "data": windows.provenance, "trained_on": facts["data"], "demos": settings.demos}
    return Subject(lam, rivals, next(iter(encoders.values())), gap, windows), about


def probe(run: Path, tasks: tuple[str, ...] = (), data: str = "", count: int = 2000) -> dict[str, Any]:
    """Measure everything, write probe.json and probe/*.png into the run, and return what probe.json says.

    Of other tasks than its own: probe-TASKS.json and probe-TASKS/*.png.

    Args:
        run: a finished run of an arm with a latent action model.
        tasks, data: other tasks, or another folder of episodes, than it was trained on.
        count: training windows; a quarter as many of validation.
    """
    model, about = subject(run, tasks, data)
    rows = model.chosen(model.windows.validation, max(2, count // 4))
    names, columns, hand = model.hand(rows)
    train = model.read(model.chosen(model.windows.labelled, count), names, columns)
    held = model.read(rows, names, columns)
    train.features[PCA], held.features[PCA] = principal(train.features[PCA], held.features[PCA], train.features["latent"].shape[1])
    for seen in (train, held):
        seen.features = {name: value.astype(float) for name, value in seen.features.items()}
    painted = model.paint(rows, hand)
    ones, every = np.ones(len(rows)), np.ones(len(rows), bool)
    moving, known = painted["copied"] > np.median(painted["copied"]), painted["uniform"] > 0
    about |= {
        what: {"n": len(seen.task), "episodes": len(np.unique(seen.episode))} for what, seen in (("training", train), ("validation", held))
    }
    result = {
        **about,
        "asked": count,
        "probes": probes(train, held),
        "codes": codebook(painted["codes"], model.lam.codes) if model.lam.codes else None,
        "reconstruction": {
            what: held.ratio(painted["error"], painted["copied"], part) for what, part in (("all", every), ("moving", moving))
        },
        "halfway": {
            name: {"nearest": held.ratio((rank == 0).astype(float), ones, every), "mean_rank": held.ratio(rank.astype(float), ones, every)}
            for name, rank in model.halfway(rows).items()
        },
        "attention": {what: held.ratio(painted[what], ones, known) for what in ("share", "uniform")} if known.any() else None,
    }
    result = _plain(result)
    name = "-".join(("probe", *tasks))
    write_json(run / f"{name}.json", result)
    for what, figure in pictures(model, rows, moving, hand, result).items():
        write_atomically(run / name / f"{what}.png", lambda draft, figure=figure: figure.savefig(draft, format="png", dpi=110))
    return result


def _plain(value: Any) -> Any:
    """As strict JSON: what is not a number is null."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return (round(value, 5) if isfinite(value) else None) if isinstance(value, float) else value


def table(result: Mapping[str, Any]) -> str:
    """probe.json in words."""

    def number(line: Mapping[str, Any] | None) -> str:
        if line is None or line["value"] is None:
            return "n/a"
        low, high = line["interval"] or (None, None)
        return f"{line['value']:.3f}" + (f" [{low:.3f}, {high:.3f}]" if low is not None else "")

    sides = [f"{result[side]['n']} {side} windows of {result[side]['episodes']} episodes" for side in ("training", "validation")]
    heads = ("within tasks", "all windows together", "to a task left out", "the same, by variance")
    lines = [
        f"{result['arm']}: {result['tokens']} tokens of {result['width']} numbers, {result['gap']} control steps; {', '.join(sides)}",
        f"{'R^2 of the motion of the hand':40}" + "".join(f"{head:28}" for head in heads).rstrip(),
    ]

    def four(name: str, within: str, pooled: str, across: Mapping[str, Any] | None) -> str:
        cells = (within, pooled, number(across), number(across and across["by_variance"]))
        return (f"  {name:37} " + "".join(f"{cell:27} " for cell in cells)).rstrip()

    for row, found in result["probes"].items():
        for kind, r2 in ((kind, r2) for kind, r2 in found.items() if kind != "numbers"):
            across = r2["across"] and r2["across"]["mean"]
            lines.append(four(f"{row:24} {kind}", number(r2["within"]["mean"]), number(r2["within"]["pooled"]), across))
    best = result["probes"]["latent"]["ridge"]
    for task, line in best["within"]["tasks"].items():
        lines.append(four(f"latent, ridge, {task}", number(line), "", best["across"] and best["across"]["tasks"][task]))
    if codes := result["codes"]:
        use = f"{codes['in_use']:.0%} in use, {codes['dead']} dead"
        lines.append(f"codes: perplexity {codes['perplexity']:.1f} of {codes['codes']}, {use}, n = {codes['n']}")
        if codes["collapsed"]:
            lines.append(f"COLLAPSED: less than {RARE:.0%} of the codes is in use")
    painting, looks = result["reconstruction"], result["attention"] or {"share": None, "uniform": None}
    lines.append(
        f"error of the painted frame / of the present one: {number(painting['all'])}; of those that move {number(painting['moving'])}"
    )
    for name, line in result.get("halfway", {}).items():  # earlier versions have not measured it
        near, rank = number(line["nearest"]), number(line["mean_rank"])
        lines.append(f"half of a {name}: painted nearest to the half-way frame of 5 in {near} (chance .20), mean rank {rank} (chance 2)")
    lines.append(f"attention within {NEAR:.0%} of the side of the hand: {number(looks['share'])}; uniform: {number(looks['uniform'])}")
    return "\n".join(lines)


Panel = tuple[np.ndarray, str, tuple[float, float] | None]  # pixels, title, where the hand is


def _panels(rows: list[list[Panel]], labels: list[str]) -> Figure:
    figure = Figure(figsize=(1.7 * len(rows[0]) + 0.4, 1.9 * len(rows)), layout="constrained")
    for axes, row, label in zip(figure.subplots(len(rows), len(rows[0]), squeeze=False), rows, labels, strict=True):
        axes[0].set_ylabel(label, fontsize=8)
        for axis, (pixels, title, mark) in zip(axes, row, strict=True):
            axis.imshow(pixels.clip(0, 1), cmap="magma", vmin=0, vmax=1, extent=(0, 1, 1, 0))
            axis.set(xticks=[], yticks=[])
            axis.set_title(title, fontsize=7)
            if mark is not None and np.isfinite(mark).all():
                axis.plot(mark[1], mark[0], "o", ms=9, mfc="none", mec="cyan", mew=1.2)
    return figure


@torch.no_grad()
def pictures(model: Subject, rows: list[Window], moving: np.ndarray, hand: np.ndarray, result: Mapping[str, Any]) -> dict[str, Figure]:
    """Painted frames, attention of every token, motions decoded on other frames (all of windows that move), and R^2 as bars."""
    task = np.array([row.task for row in rows])
    shown = np.unique(task)[:4]
    each = max(2, 8 // len(shown))
    groups = [mine if (mine := np.flatnonzero((task == t) & moving)).size else np.flatnonzero(task == t) for t in shown]
    clips = np.concatenate([mine[np.linspace(0, len(mine) - 1, each + 2).astype(int)[1:-1]] for mine in groups])
    batch = model.gather([rows[i] for i in clips])
    value = model.quantised(batch)[1].value
    now, future = _pixels(model.lam.seen(batch.image[:, -1, model.lam.view])), _pixels(model.later(batch, model.gap))
    painted, weight = _pixels(model.lam.decode(batch, value)), model.lam.attention(batch, model.gap).numpy()
    names = [model.windows.names[task[i]] for i in clips]

    def less(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return 3 * np.abs(one - other).mean(axis=-1)

    kinds = {"now": now, f"{model.gap} steps later": future, "painted": painted, "painted - later, x 3": less(painted, future)}
    kinds |= {"later - now, x 3": less(future, now)}
    looks, moved = [], []
    for first in range(0, len(clips), each):
        heat = [_heat(future[first], look.reshape(model.encoder.grid)) for look in weight[first]]
        panels = [(future[first], names[first], hand[clips[first]]), *((x, f"token {k}", hand[clips[first]]) for k, x in enumerate(heat))]
        looks.append(panels)
        row = [(now[first], "now", None), (future[first], "later", None), (less(future[first], now[first]), "change x 3", None)]
        for what, other in (("same task", first + each - 1), ("other task", (first + each) % len(clips)))[: len(shown)]:
            made = _pixels(model.lam.decode(batch[other : other + 1], value[first : first + 1]))[0]
            row += [(now[other], what, None), (made, "with that motion", None), (less(made, now[other]), "change x 3", None)]
        moved.append(row)
    return {
        "reconstruction": _panels([[(x, name, None) for x, name in zip(xs, names, strict=True)] for xs in kinds.values()], list(kinds)),
        "attention": _panels(looks, [""] * len(looks)),
        "transfer": _panels(moved, names[::each]),
        "r2": _bars(result),
    }


def _pixels(frames: Tensor) -> np.ndarray:
    return frames.movedim(1, -1).numpy()


def _heat(frame: Float[np.ndarray, "Y X 3"], weight: Float[np.ndarray, "y x"]) -> Float[np.ndarray, "Y X 3"]:
    """A map of attention over a grey frame; the brightest patch has the largest weight."""
    places = [np.arange(side) * cells // side for side, cells in zip(frame.shape, weight.shape, strict=False)]
    heat = colormaps["magma"](weight[np.ix_(*places)] / weight.max())[..., :3]
    return 0.35 * frame.mean(axis=-1, keepdims=True) + 0.65 * heat


def _bars(result: Mapping[str, Any]) -> Figure:
    """R^2 by variance; bars below -0.5 are cut, their numbers are not."""
    figure = Figure(figsize=(12, 4), layout="constrained")
    titles = {"within": "R\u00b2 by variance, within tasks (mean)", "across": "R\u00b2 by variance, to a task left out (mean)"}
    for axis, (where, title) in zip(figure.subplots(1, 2, sharey=True), titles.items(), strict=True):
        for i, found in enumerate(result["probes"].values()):
            kinds = [kind for kind in found if kind != "numbers"]
            for j, kind in enumerate(kinds):
                line = found[kind][where] and found[kind][where]["mean"]["by_variance"]
                if line and line["value"] is not None:
                    place, (low, high) = i + 0.4 * (j - (len(kinds) - 1) / 2), line["interval"] or [line["value"]] * 2
                    colour, label = {"ridge": "C0", "mlp": "C1"}.get(kind, "0.6"), kind if i == 0 and where == "within" else None
                    axis.bar(place, line["value"], 0.38, color=colour, label=label)
                    axis.plot([place, place], [low, high], color="k", lw=1)
                    axis.text(place, min(1, max(0, high)) + 0.03, f"{line['value']:.2f}", ha="center", fontsize=7)
        names = [f"{row}\n({found['numbers']} numbers)" for row, found in result["probes"].items()]
        axis.axhline(0, color="k", lw=0.6)
        axis.set_title(title, fontsize=9)
        axis.set(ylim=(-0.5, 1.15), xticks=range(len(names)))
        axis.set_xticklabels(names, rotation=30, ha="right", fontsize=7)
    figure.legend(fontsize=7, loc="outside upper right")
    return figure
