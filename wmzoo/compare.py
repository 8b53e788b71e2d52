"""How do world models compare?  Side by side, on the same windows: tables, errors over horizon, frames."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from matplotlib.figure import Figure

from . import config
from .errors import UserError
from .files import read_json, write_atomically, write_json
from .finished import aligns, foresees, plays
from .stats import CAUTION, SEEDS, Estimate, corrected, over_windows, together, verdict


def strip(rows: dict[str, np.ndarray]) -> Figure:
    """Rows of images (uint8) with a name on the left."""
    first = next(iter(rows.values()))
    figure = Figure(figsize=(1.5 * len(first) + 1.2, 1.55 * len(rows)), layout="constrained")
    for axes, (name, images) in zip(figure.subplots(len(rows), len(first), squeeze=False), rows.items(), strict=True):
        axes[0].set_ylabel(name, fontsize=8)
        for axis, image in zip(axes, images, strict=True):
            axis.imshow(image)
            axis.set(xticks=[], yticks=[])
    return figure


def save_picture(path: Path, figure: Figure) -> None:
    write_atomically(path, lambda draft: figure.savefig(draft, dpi=150, format="png"))


def number(value: float | None, digits: int = 3) -> str:
    """A number, or n/a."""
    return "n/a" if value is None else f"{value:.{digits}f}"


def signed(value: float | None) -> str:
    """A difference, or n/a."""
    return "n/a" if value is None else f"{value:+.2f}"


def table(result: dict[str, Any]) -> str:
    """The result in words."""
    head = f"{result['run']}: {result['kind']} of {result['arm']}, {result['n']} windows of {result['episodes']} validation episodes"
    lines = [head, f"{'':18} {'ahead':>5} {'l1':>7} {'copy':>7} {'skill':>6} {'95% interval':>16} {'moving':>7} {'cosine':>7} {'found':>6}"
                   f" {'psnr':>6} {'ssim':>6} {'lpips':>6}"]  # fmt: skip
    for way, horizons in result["ways"].items():
        for ahead, row in horizons.items():
            low, high = row["skill_interval"]
            lines.append(
                f"{way:18} {ahead:>5} {row['l1']:7.4f} {row['copied']:7.4f} {row['skill']:+6.2f} [{low:+6.2f}, {high:+6.2f}]"
                f" {row['moving_ratio']:7.3f} {row['cosine']:7.4f} {row['found']:6.2f} {number(row.get('psnr'), 1):>6}"
                f" {number(row.get('ssim')):>6} {number(row.get('lpips')):>6}"
            )
    first = next(iter(result["ways"].values()))
    for ahead, row in first.items():
        pixels = f", ssim {row['copy ssim']:.3f}; decoder with the true tokens: ssim {row['seen ssim']:.3f}" if "copy ssim" in row else ""
        lines.append(f"copy of the present, {ahead} ahead: found {row['copy found']:.2f}{pixels}")
    for ahead, row in first.items():
        if "pixel skill" in row:
            low, high = row["pixel skill_interval"]
            lines.append(
                f"in pixels, {ahead} ahead: skill {row['pixel skill']:+.2f} [{low:+.2f}, {high:+.2f}], where it moves "
                f"{row['pixel moving_ratio']:.3f} of a copy's squared error; psnr {row['psnr']:.1f}, copy {row['copy psnr']:.1f}"
                f"{seen_in_pixels(row)}"
            )
        if "space skill" in row:
            low, high = row["space skill_interval"]
            lines.append(
                f"in the space of --space, {ahead} ahead: l1 {row['space l1']:.4f}, copy {row['space copied']:.4f}, skill "
                f"{row['space skill']:+.2f} [{low:+.2f}, {high:+.2f}], found {row['space found']:.2f}; decoder with the true tokens: l1 "
                f"{row['seen space l1']:.4f}"
            )
    if "own_space" in result:
        own, half = result["own_space"], "of the futures among 64, cosine"
        lines.append(
            f"read by a linear map fitted on {result['fitted']} training windows; in its own space, {own['steps']} ahead, n = {own['n']}:"
        )
        for name, place in (("prediction", ""), ("copy of the present", "copy "), ("with another window's actions", "other's actions ")):
            ends = [own[f"{place}{key}_interval"] for key in ("found", "cosine")]
            told = [f"{own[place + key]:.2f} [{low:.2f}, {high:.2f}]" for key, (low, high) in zip(("found", "cosine"), ends, strict=True)]
            lines.append(f"  {name}: finds {told[0]} {half} {told[1]}")
    if "inverse" in result:
        told = result["inverse"]
        lines.append(
            f"inverse: R\u00b2 of {told['steps']} actions {told['r2']:.2f} told the future frame, {told['r2_not_told']:.2f} as a policy, "
            f"n = {told['n']}"
        )
    if "listens" in result:
        own, back = result["listens"], result["recovers"]
        lines.append(listens("listens", own))
        if "untrained" in result:
            lines.append(listens("listens, with weights that nothing has trained", result["untrained"]))
        if "space" in own:
            lines.append(listens("listens in the space of --space", own["space"]))
        sure = "[{:.2f}, {:.2f}]".format(*back["interval"]) if "interval" in back else FIRST_TASK
        lines.append(f"recovers the mean action of {back['steps']} steps: R\u00b2 {back['r2']:.2f} {sure}, n = {back['n']}")
    for name, row in result.get("order", {}).items():
        near = f"half-way frame nearest of 5 in {row['nearest']:.2f} (chance .20), mean rank {row['mean_rank']:.2f} (chance 2)"
        lines.append(f"half a latent, {name}: {near}, n = {row['n']}")
    price = result["cost"]
    operations = f"{price['GFLOP']:.3f} GFLOP and {price['encoder_GFLOP']:.3f} for the encoder"
    speed = f"{price['milliseconds']:.1f} ms with {price['threads']} threads"
    lines.append(f"cost of one prediction: {operations}, {speed}, {price['parameters']:,} parameters")
    return "\n".join(lines)


def listens(where: str, told: Mapping[str, Any]) -> str:
    """What listening is worth, in words."""
    low, high = told["interval"]
    return (
        f"{where}: skill {told['skill']:+.2f}, with another window's actions {told['with_others_actions']:+.2f}; "
        f"difference {told['difference']:+.2f} [{low:+.2f}, {high:+.2f}], n = {told['n']}"
    )


def seen_in_pixels(row: Mapping[str, float]) -> str:
    """How near the decoder comes with the true tokens, which is not the model's doing; "" in a result that does not say."""
    if "seen mse" not in row:
        return ""
    lpips = f", lpips {row['seen lpips']:.3f}" if "seen lpips" in row else ""
    return f"; decoder with the true tokens: squared error {row['seen mse']:.5f} of {row['mse']:.5f}, psnr {row['seen psnr']:.1f}{lpips}"


@dataclass(frozen=True)
class Measured:
    """What one run was found to foresee.

    Attributes:
        run: its folder.
        result: world.json.
        stored: errors of every window, by the names of world.npz, in the shared feature space.
    """

    run: Path
    result: Mapping[str, Any]
    stored: Mapping[str, np.ndarray]

    @property
    def elsewhere(self) -> bool:
        """Are its painted frames scored in the feature space of another run?"""
        return self.result.get("space", self.result["feature_space"]) != self.result["feature_space"]


def result_of(path: Path, cure: str = "delete it") -> dict[str, Any]:
    """What a world.json says.

    Raises:
        UserError: it is not there, or something else.
    """
    result = read_json(path, "a measured world model", cure)
    if not isinstance(result, dict) or not {"kind", "feature_space", "data", "n"} <= result.keys():
        raise UserError(f"{path} is not that of a measured world model; {cure}")
    return result


def measured(run: Path) -> Measured:
    """Read it.

    Raises:
        UserError: it was not evaluated, or is no world model; or a file of it cannot be read.
    """
    if not (run / "world.json").exists():
        raise UserError(f"{run} was not measured as a world model; {_cure(run)}")
    result = result_of(run / "world.json", f"type: wmzoo eval {run}")
    if result["kind"] != "world model":
        raise UserError(f"{run} is an autoencoder, which is told the future; compare world models")
    found = Measured(run, result, windows(run))
    shared = {key.replace("/space ", "/"): value for key, value in found.stored.items() if "/space " in key}
    return replace(found, stored={**found.stored, **shared}) if found.elsewhere else found


def _cure(run: Path) -> str:
    """What makes a finished run one that can be compared.

    Raises:
        UserError: it is not a finished run.
    """
    acts, implicit = plays(run), not foresees(run) and aligns(run)
    if acts and not implicit and not foresees(run):
        return "it is a policy alone, and `wmzoo rate` tells how policies play"
    return f"type: wmzoo eval {run}{' --predict' * acts}{' --space RUN_OF_A_WORLD_MODEL' * implicit}"


def windows(run: Path, name: str = "world") -> dict[str, np.ndarray]:
    """What was measured on every window, by the names of world.npz, or of what was measured on other tasks.

    Raises:
        UserError: it is not there, or not whole.
    """
    try:
        with np.load(run / f"{name}.npz") as stored:
            found = dict(stored)
    except (OSError, ValueError, BadZipFile, EOFError) as error:
        raise UserError(f"{run / name}.npz cannot be read; type: wmzoo eval {run}") from error
    if "start" not in found and {"task", "episode"} <= found.keys():  # before wmzoo 0.3.0; of these recordings the same, by rank
        found["start"] = ranked(found["task"], found["episode"])
    return found


def ranked(task: np.ndarray, episode: np.ndarray) -> np.ndarray:
    """The place of each window's episode among those of its task."""
    rank = np.zeros_like(episode)
    for name in np.unique(task):
        rank[task == name] = np.unique(episode[task == name], return_inverse=True)[1]
    return rank


def compare(runs: Sequence[Path], out: Path, baseline: str = "", labels: Sequence[str] = ()) -> dict[str, Any]:
    """Several evaluated runs side by side; runs of one row are its training seeds.  Writes compare.json, compare.png and frames.png.

    Args:
        baseline: row whose error is taken off that of every other, pair by pair; that of the first run, unless given.
        labels: row of each run; unless given its arm, and its folder where runs of one arm differ in more than the seed.

    Raises:
        UserError: a run was not evaluated, or not on the same windows, or not in the same feature space; a seed comes twice.
    """
    summary, rows = summarised(runs, baseline, labels)
    write_json(out / "compare.json", summary)
    save_picture(out / "compare.png", curves(summary))
    save_picture(out / "frames.png", strip(_frames(rows)))
    return summary


def summarised(runs: Sequence[Path], baseline: str = "", labels: Sequence[str] = ()) -> tuple[dict[str, Any], dict[str, list[Measured]]]:
    """What `compare` writes down, and its rows.

    Raises:
        UserError: as `compare`.
    """
    each = [measured(run) for run in runs]
    for one in each:
        same_windows(one, each[0])
    rows: dict[str, list[Measured]] = {}
    for label, one in zip(labels or named(each), each, strict=True):
        rows.setdefault(label, []).append(one)
    for label, mine in rows.items():
        if len({one.result["seed"] for one in mine}) < len(mine):
            raise UserError(f"{' and '.join(str(one.run) for one in mine)}: {label} has a training seed twice")
    base = baseline if baseline in rows else next(iter(rows))
    first, place = _asked(rows[base][0]), "space " if rows[base][0].elsewhere else ""
    horizons = [ahead for ahead in first if all(ahead in _asked(one) for one in rows[base])]
    seeds = {label: {one.result["seed"]: one.stored for one in mine} for label, mine in rows.items()}
    gaps = differences(seeds, base, horizons)
    summary: dict[str, Any] = {
        "runs": [str(run) for run in runs],
        "n": each[0].result["n"],
        "episodes": len(np.unique(each[0].stored["episode"])),
        "tasks": each[0].result["tasks"],
        "baseline": base,
        "arms": {label: _row(mine, horizons, {a: gap for (name, a), gap in gaps.items() if name == label}) for label, mine in rows.items()},
        "copy": {
            ahead: {
                "found": first[ahead][f"{place}copy found"],
                "ssim": first[ahead].get("copy ssim"),
                "psnr": first[ahead].get("copy psnr"),
                "l1": first[ahead][f"{place}copied"],
            }
            for ahead in horizons
        },
    }
    return summary, rows


def same_windows(one: Measured, other: Measured) -> None:
    """Were both asked about the same windows, and scored in the same feature space?

    Raises:
        UserError: they were not.
    """
    for what, hint in (("feature_space", f"; type: wmzoo eval {one.run} --predict --space {other.run}"), ("data", ""), ("n", "")):
        if scored(one.result)[what] != scored(other.result)[what]:
            raise UserError(f"{one.run} and {other.run} differ in {what.replace('_', ' ')}: their errors cannot be compared{hint}")
    ahead = next((ahead for ahead in _asked(one) if ahead in _asked(other)), None)
    if ahead is None:
        raise UserError(f"{one.run} and {other.run} were asked about no horizon in common")
    key = f"prediction/{ahead}/copied"  # what a copy of the present is off by tells windows apart
    if not np.array_equal(one.stored["task"], other.stored["task"]) or not np.allclose(one.stored[key], other.stored[key], rtol=0.05):
        raise UserError(f"{one.run} and {other.run} were asked about other windows; they were trained with other chunks or data settings")


def named(each: Sequence[Measured]) -> list[str]:
    """The arm of each run, and its folder where two runs of one arm differ in more than the training seed."""
    kinds = [(one.result["arm"], config.dump(replace(config.load(one.run / "config.yaml"), seed=0))) for one in each]
    folders = {kind: one.run.name for kind, one in reversed([*zip(kinds, each, strict=True)])}  # of the first of its kind
    several = Counter(arm for arm, _ in folders)
    return [f"{kind[0]} ({folders[kind]})" if several[kind[0]] > 1 else kind[0] for kind in kinds]


def _asked(one: Measured) -> Mapping[str, Any]:
    return one.result["ways"]["prediction"]


def _row(mine: Sequence[Measured], horizons: Sequence[str], gaps: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics of one row at every horizon that it knows, with intervals; its decoder with the true tokens; what it costs."""
    row: dict[str, Any] = {"seeds": [one.result["seed"] for one in mine], "horizons": {}, "decoder": {}}
    for ahead in [ahead for ahead in horizons if all(ahead in _asked(one) for one in mine)]:
        found = {}
        for metric in ("l1", "cosine", "found", "psnr", "ssim", "lpips"):
            if all(f"prediction/{ahead}/{metric}" in one.stored for one in mine):
                found[metric] = _interval(mine, f"prediction/{ahead}/{metric}")
        part = _interval(mine, f"prediction/{ahead}/l1", f"prediction/{ahead}/copied")
        found["skill"] = _over_a_copy(part)
        if all(f"prediction/{ahead}/mse" in one.stored for one in mine):
            found["pixel skill"] = _over_a_copy(_interval(mine, f"prediction/{ahead}/mse", f"prediction/{ahead}/copy mse"))
        row["horizons"][ahead] = found | ({"less": gaps[ahead]} if ahead in gaps else {})
        told = _asked(mine[0])[ahead]
        row["decoder"][ahead] = {"psnr": told.get("seen psnr"), "ssim": told.get("seen ssim"), "l1": told.get("seen space l1")}
    heard = [one.result["listens"].get("space") if one.elsewhere else one.result["listens"] for one in mine]
    row["listens"] = float(np.mean([part["difference"] for part in heard])) if all(heard) else None
    told = [one.result["recovers"] for one in mine]
    row["recovers"] = {"mean": float(np.mean([one["r2"] for one in told])), "n": told[0]["n"], "steps": told[0]["steps"]}
    if all("recovers/row" in one.stored for one in mine):
        row["recovers"] |= explained([one.stored for one in mine])
    if all("own_space" in one.result for one in mine):
        row["own_space"] = {key: float(np.mean([one.result["own_space"][key] for one in mine])) for key in ("cosine", "found")}
        row["fitted"] = mine[0].result["fitted"]
    if all("untrained" in one.result for one in mine):
        row["untrained"] = _untrained(mine)
    return row | {"cost": mine[0].result["cost"]}


def _untrained(mine: Sequence[Measured]) -> dict[str, Any]:
    """Of an implicit world model with fresh weights, read alike: its skill, what training adds to it, and what another's actions take."""
    (ahead,) = mine[0].result["ways"]["prediction"]
    error, fresh, copied = (
        np.stack([one.stored[f"{way}/{ahead}/{name}"] for one in mine]).astype(float)
        for way, name in (("prediction", "l1"), ("untrained, mapped", "l1"), ("prediction", "copied"))
    )
    gain = over_windows(fresh - error, mine[0].stored["start"], copied)
    low, high = gain.interval()
    return {
        "skill": _over_a_copy(_interval(mine, f"untrained, mapped/{ahead}/l1", f"prediction/{ahead}/copied")),
        "gain": {"mean": gain.mean, "low": low, "high": high},
        "listens": float(np.mean([one.result["untrained"]["difference"] for one in mine])),
    }


def explained(stored: Sequence[Mapping[str, np.ndarray]]) -> dict[str, float]:
    """R^2 of actions that were sought on some of the windows, the same ones for every seed, with its interval over seeds and starts."""
    few = stored[0]["recovers/row"]
    error, spread = (np.stack([one[f"recovers/{what}"] for one in stored]).astype(float) for what in ("error", "spread"))
    part = over_windows(error, stored[0]["start"][few], spread)
    low, high = part.interval()
    return _over_a_copy({"mean": part.mean, "low": low, "high": high})


def _over_a_copy(part: Mapping[str, float]) -> dict[str, float]:
    return {"mean": 1 - part["mean"], "low": 1 - part["high"], "high": 1 - part["low"]}


def _interval(mine: Sequence[Measured], metric: str, scale: str = "") -> dict[str, float]:
    """Mean over seeds and windows, with its interval; or as a part of the mean of another metric."""
    values, whole = (np.stack([one.stored[name] for one in mine]).astype(float) if name else None for name in (metric, scale))
    assert values is not None
    estimate = over_windows(values, mine[0].stored["start"], whole)
    low, high = estimate.interval()
    return {"mean": estimate.mean, "low": low, "high": high}


def _frames(rows: Mapping[str, Sequence[Measured]]) -> dict[str, np.ndarray]:
    """True frames, what each decoder makes of their tokens, and what each row foresees; its first seed."""
    shown = {"now": (first := next(iter(rows.values()))[0].stored)["now"], "later": first["later"]}
    decoders: list[np.ndarray] = []
    for label, mine in rows.items():
        seen = mine[0].stored["seen"]
        if not any(np.abs(seen.astype(int) - other).max() < 6 for other in decoders):
            shown[f"later, decoded\n({label})"] = seen
            decoders.append(seen)
    return shown | {label: mine[0].stored["predicted"] for label, mine in rows.items()}


def differences(
    seeds: Mapping[str, Mapping[int, Mapping[str, np.ndarray]]], base: str, horizons: Sequence[str]
) -> dict[tuple[str, str], dict[str, Any]]:
    """Every arm's feature error less the baseline's, on the seeds that both have, corrected by Holm over arms and horizons.

    Those of too few seeds are corrected among themselves, as successes are (findings.py).

    Args:
        seeds: what was measured, by arm and training seed.
    """
    told: dict[tuple[str, str], dict[str, Any]] = {}
    for few in (False, True):
        family: dict[tuple[str, str], tuple[Estimate, int]] = {}
        for name in seeds:
            both = [seed for seed in seeds[name] if seed in seeds[base]]
            if name == base or not both or (len(both) < SEEDS) != few:
                continue
            pairs = [(seeds[name][seed], seeds[base][seed]) for seed in both]
            asked = [ahead for ahead in horizons if all(f"prediction/{ahead}/l1" in one for pair in pairs for one in pair)]
            family |= {(name, ahead): (nearer(pairs, f"prediction/{ahead}/l1"), len(both)) for ahead in asked}
        ends = corrected(together([estimate for estimate, _ in family.values()], alike=False))
        for (key, (estimate, count)), (low, high) in zip(family.items(), ends, strict=True):
            told[key] = {"mean": estimate.mean, "low": low, "high": high, "seeds": count, "verdict": verdict(-high, -low)}
    return told


def nearer(pairs: Sequence[tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]], *metrics: str) -> Estimate:
    """The first model's mean error less the second's, for one pair a training seed; seeds and what episodes started from are samples.

    Args:
        pairs: what was measured on the same windows.
        metrics: name of the error in both, or in the one and in the other.
    """
    gaps = np.stack([ours[metrics[0]] - theirs[metrics[-1]] for ours, theirs in pairs])
    return over_windows(gaps, pairs[0][0]["start"])


def sentences(summary: Mapping[str, Any]) -> list[str]:
    """The verdict on every model but the baseline, with what it rests on."""
    told = []
    for name, row in summary["arms"].items():
        found = {ahead: seen["less"] for ahead, seen in row["horizons"].items() if "less" in seen}
        if not found:
            continue
        words: dict[str, list[str]] = {}
        for ahead, gap in found.items():
            words.setdefault(gap["verdict"], []).append(f"{ahead} ({gap['mean']:+.3f} [{gap['low']:+.3f}, {gap['high']:+.3f}])")
        count = next(iter(found.values()))["seeds"]
        n = f"{count} training seed{'s' * (count > 1)} x {summary['n']} windows of {summary['episodes']} episodes"
        caution = "" if count >= SEEDS else f"; {CAUTION}"
        parts = "; ".join(f"{word} at {', '.join(ends)}" for word, ends in words.items())
        told.append(f"{name} against {summary['baseline']}, difference of feature errors by steps ahead: {parts}. n = {n}{caution}.")
    return told


def in_short(summary: Mapping[str, Any]) -> str:
    """The verdicts at the horizon of most models, of those the farthest, in one line; models of fewer than three seeds are not in it."""
    told: dict[str, dict[str, Mapping[str, Any]]] = {}
    for name, row in summary["arms"].items():
        for ahead, seen in row["horizons"].items():
            if "less" in seen and seen["less"]["seeds"] >= SEEDS:
                told.setdefault(ahead, {})[name] = seen["less"]
    if not told:
        return ""
    ahead = max(told, key=lambda a: (len(told[a]), int(a)))
    ranked = sorted(told[ahead].items(), key=lambda item: item[1]["mean"])
    words = {
        gap["verdict"]: [f"{name} ({other['mean']:+.3f})" for name, other in ranked if other["verdict"] == gap["verdict"]]
        for _, gap in ranked
    }
    parts = "; ".join(f"{word}: {', '.join(names)}" for word, names in words.items())
    return f"Feature error {ahead} steps ahead, less {summary['baseline']}'s: {parts}."


CANNOT = "cannot look so far, or not so near"
FIRST_TASK = "of the first task alone (measured by wmzoo 0.1)"


def read_how(row: Mapping[str, Any]) -> str:
    """How an implicit world model came into the shared feature space, and what it does in its own."""
    own = row["own_space"]
    return (
        f"read by a linear map fitted on {row['fitted']} training windows; in its own space it finds {own['found']:.2f} of the futures "
        f"among 64, cosine {own['cosine']:.2f}{beside_untrained(row)}"
    )


def beside_untrained(row: Mapping[str, Any]) -> str:
    """What is left of an implicit world model's skill beside the same network with fresh weights."""
    if "untrained" not in row:
        return "; not read with fresh weights (measured by wmzoo 0.2)"
    skill, gain = ("{mean:+.2f} [{low:+.2f}, {high:+.2f}]".format(**row["untrained"][key]) for key in ("skill", "gain"))
    told = f"; with fresh weights, read alike, it has a skill of {skill}, of which another's actions take {row['untrained']['listens']:.2f}"
    return f"{told}: training adds {gain}"


def scored(result: Mapping[str, Any]) -> dict[str, Any]:
    """What decides whether errors can be compared: the feature space in which they were measured, the data, the windows."""
    return {"feature_space": result.get("space", result["feature_space"]), "data": result["data"], "n": result["n"]}


def curves(summary: dict[str, Any]) -> Figure:
    """Error over horizon as a part of a copy's, share found, and SSIM; bands are 95% intervals."""
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    ahead = [int(a) for a in summary["copy"]]
    titles = {"skill": "feature error / error of a copy", "found": "own future found among 64", "ssim": "SSIM of the painted prediction"}
    for axis, (metric, title) in zip(figure.subplots(1, 3), titles.items(), strict=True):
        for colour, (name, row) in enumerate(summary["arms"].items()):
            known = {int(a): seen[metric] for a, seen in row["horizons"].items() if metric in seen}
            if known:
                mean, low, high = ([v[k] for v in known.values()] for k in ("mean", "low", "high"))
                if metric == "skill":
                    mean, low, high = [1 - v for v in mean], [1 - v for v in high], [1 - v for v in low]
                if metric == "found":  # a share
                    low, high = np.clip(low, 0, 1).tolist(), np.clip(high, 0, 1).tolist()
                axis.plot(list(known), mean, marker="o", ms=3, color=f"C{colour}", label=name)
                if len(known) > 1:
                    axis.fill_between(list(known), low, high, color=f"C{colour}", alpha=0.2, lw=0)
                else:
                    axis.vlines(list(known), low, high, color=f"C{colour}", alpha=0.4)
        copy = [1.0] * len(ahead) if metric == "skill" else [summary["copy"][str(a)][metric] for a in ahead]
        if None not in copy:
            axis.plot(ahead, copy, color="k", ls=":", label="copy of the present")
        axis.set_title(title, fontsize=9)
        axis.set(xlabel="control steps ahead", xticks=ahead)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), fontsize=7, loc="outside right center")
    return figure


def compare_table(summary: dict[str, Any]) -> str:
    """The comparison in words: one line an arm and horizon, and what it costs."""
    lines = [f"{summary['n']} windows of {', '.join(summary['tasks'])}; 95% intervals over training seeds and episodes"]
    for ahead, copy in summary["copy"].items():
        lines.append(
            f"{ahead} steps ahead{'':16} {'l1':>7} {'skill':>6} {'95% interval':>16} {'found':>6} {'psnr':>6} {'ssim':>6} {'lpips':>6}"
        )
        ssim = number(copy["ssim"])
        lines.append(f"  {'copy':28} {copy['l1']:7.4f} {0:+6.2f} {'':16} {copy['found']:6.2f} {'':6} {ssim:>6}")
        for name, row in summary["arms"].items():
            if ahead not in row["horizons"]:
                lines.append(f"  {name:28} {CANNOT}")
                continue
            m, seeds = row["horizons"][ahead], f"{name} ({len(row['seeds'])} seed{'s' * (len(row['seeds']) > 1)})"
            extra = [number(m[k]["mean"] if k in m else None, 1 if k == "psnr" else 3) for k in ("psnr", "ssim", "lpips")]
            lines.append(
                f"  {seeds:28} {m['l1']['mean']:7.4f} {m['skill']['mean']:+6.2f} "
                f"[{m['skill']['low']:+6.2f}, {m['skill']['high']:+6.2f}] {m['found']['mean']:6.2f}"
                f" {extra[0]:>6} {extra[1]:>6} {extra[2]:>6}  (its decoder, told the truth: {number(row['decoder'][ahead]['ssim'])})"
            )
    lines += [f"{name}: {read_how(row)}" for name, row in summary["arms"].items() if "own_space" in row]
    lines += sentences(summary)
    lines.append(f"{'cost of a prediction':26} {'GFLOP':>8} {'ms':>7} {'parameters':>12} {'listens':>8} {'recovers':>11}")
    for name, row in summary["arms"].items():
        c = row["cost"]
        lines.append(
            f"  {name:24} {c['GFLOP']:8.3f} {c['milliseconds']:7.1f} {c['parameters']:12,} {signed(row['listens']):>8}"
            f" {row['recovers']['mean']:5.2f} of {row['recovers']['steps']:>2}"
        )
    return "\n".join(lines)
