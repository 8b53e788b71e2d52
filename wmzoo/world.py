"""How well does a world model foresee?  In its feature space and in pixels, at several horizons, next to a copy of the present.

All models are asked about the same validation windows, as recorded: those that have every frame up to two chunks ahead.
    l1        mean |s_hat - s| over tokens and numbers
    skill     1 - l1 / l1 of the present frame
    cosine    mean over tokens
    found     share of windows whose prediction is nearest, by l1, to its own future among 64 of all episodes
    psnr ssim lpips   of the prediction painted by the shared decoder, against the frame; "seen" is the decoder with the true tokens
    pixel skill       1 - squared error of the painted prediction / that of the present frame
    listens   skill with the true actions less skill with those of another window, in the own feature space and in the shared one
    inverse   R^2 of a chunk's actions, told the future frame, where the model can be asked for them
    recovers  R^2 of the mean action of a quarter chunk, found by descending the model's own error from zero; on 16 windows of all tasks
A prediction two chunks ahead is made from the model's own prediction one chunk ahead.
An autoencoder of residuals is asked the same with its own latent of the true future, without one, and with another window's; and
whether half of a latent is half of the way (`order`).
"""

import time
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cosine_similarity
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from . import registry
from .batch import Batch, Needs
from .compare import curves, explained, save_picture, strip, summarised
from .data import Window
from .files import write_atomically, write_json
from .implicit import UNTRAINED, Implicit, own
from .interfaces import FourModes, Residuals, WorldModel
from .pictures import film, four, moving_most, photographs, write_gif
from .shapes import checked
from .standard import Standardiser
from .stats import over_windows
from .subject import Subject, subject

TRIED = 16  # windows whose actions are sought: each takes 25 predictions and their gradients


@torch.no_grad()
def measure(what: Subject, batches: list[Batch], way: str, ahead: int, lpips: Any) -> dict[str, np.ndarray]:
    """Every metric of one way to predict at one horizon, for each window."""
    from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

    def structure(one: Tensor, other: Tensor) -> Tensor:
        return cast("Tensor", structural_similarity_index_measure(one, other, data_range=1.0, reduction="none"))

    columns: dict[str, list[Tensor]] = {}
    for number, batch in enumerate(batches):
        now, future = what.tokens(batch, 0), what.tokens(batch, ahead)
        predicted = what.ways[way](batch, now, ahead, torch.Generator().manual_seed(number))
        row = in_features(predicted, future, now)
        if what.paint is not None:
            frame = batch.future[:, batch.column(ahead), what.view]
            image, seen = (what.paint(x).clamp(0, 1) for x in (predicted, future))
            copy = batch.image[:, -1, what.view]
            for place, other in (("", image), ("copy ", copy), ("seen ", seen)):
                row[f"{place}psnr"] = peak_signal_noise_ratio(other, frame, data_range=1.0, reduction="none", dim=(1, 2, 3))
                row[f"{place}mse"] = (other - frame).square().mean(dim=(1, 2, 3))
            row |= {"ssim": structure(image, frame), "seen ssim": structure(seen, frame), "copy ssim": structure(copy, frame)}
            if what.space is not None:
                told, true, past, decoded = (what.space(x).float() for x in (image, frame, copy, seen))
                row |= {f"space {name}": value for name, value in in_features(told, true, past).items()}
                row["seen space l1"] = (decoded - true).abs().mean(dim=(1, 2))
            if not isinstance(lpips, str):
                row |= {"lpips": lpips(image, frame), "seen lpips": lpips(seen, frame)}
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
    return {name: torch.cat(parts).double().numpy() for name, parts in columns.items()}


@checked
def in_features(
    predicted: Float[Tensor, "B P E"], future: Float[Tensor, "B P E"], now: Float[Tensor, "B P E"]
) -> dict[str, Float[Tensor, "B"]]:
    """Errors of a prediction and of a copy of the present in one feature space."""
    return {
        "l1": (predicted - future).abs().mean(dim=(1, 2)),
        "copied": (now - future).abs().mean(dim=(1, 2)),
        "cosine": cosine_similarity(predicted, future, dim=-1).mean(dim=1),
        "found": found(predicted, future),
        "copy found": found(now, future),
    }


@checked
def found(predicted: Float[Tensor, "B P E"], future: Float[Tensor, "B P E"]) -> Float[Tensor, "B"]:
    """1 where a window's prediction is nearer to its own future than to any other of the batch, by absolute error."""
    distance = torch.cdist(predicted.flatten(1), future.flatten(1), p=1)
    return (distance.argmin(dim=1) == torch.arange(len(future))).float()


def line(values: dict[str, np.ndarray], start: np.ndarray) -> dict[str, Any]:
    """Means over the windows; skill; the error as a part of a copy's, over the windows that change more than the median window.

    Where none does, as when all change alike, over those that change as much.
    """
    row: dict[str, Any] = {name: float(value.mean()) for name, value in values.items()}
    for place, error, copied in (("", "l1", "copied"), ("space ", "space l1", "space copied"), ("pixel ", "mse", "copy mse")):
        if error not in values:
            continue
        part = over_windows(values[error][None], start, values[copied][None])
        row |= {f"{place}skill": 1 - part.mean, f"{place}skill_interval": [round(1 - end, 4) for end in reversed(part.interval())]}
        median = np.median(values[copied])
        moving = values[copied] > median if (values[copied] > median).any() else values[copied] >= median
        row[f"{place}moving_ratio"] = float(values[error][moving].sum() / max(1e-12, values[copied][moving].sum()))
    return {**row, "n": len(start)}


@torch.no_grad()
def listening(what: Subject, batches: list[Batch], ahead: int, start: np.ndarray, way: str = "prediction") -> dict[str, Any]:
    """Skill with the true actions, and with those of another window of the batch; "space" is the same in the shared feature space."""
    errors: dict[str, list[Tensor]] = {}
    for number, batch in enumerate(batches):
        now, future = what.tokens(batch, 0), what.tokens(batch, ahead)
        other = replace(batch, action=batch.action.roll(len(batch) // 2, dims=0))
        ask = what.ways[way]
        right, wrong = (ask(asked, now, ahead, torch.Generator().manual_seed(number)) for asked in (batch, other))
        places = {"": (right, wrong, now, future)}
        if what.space is not None and what.paint is not None:
            recorded = batch.image[:, -1, what.view], batch.future[:, batch.column(ahead), what.view]
            right, wrong, now, future = (what.space(x).float() for x in (*(what.paint(x).clamp(0, 1) for x in (right, wrong)), *recorded))
            places["space"] = right, wrong, now, future
        for place, (*guesses, true) in places.items():
            errors.setdefault(place, []).append(torch.stack([(guess - true).abs().mean(dim=(1, 2)) for guess in guesses]))
    found = {place: heard(torch.cat(parts, dim=1).double().numpy(), start) for place, parts in errors.items()}
    return found.pop("") | found


def heard(errors: np.ndarray, start: np.ndarray) -> dict[str, Any]:
    """What listening is worth.

    Args:
        errors: (3, windows) with the true actions, with another window's, of a copy of the present.
    """
    right, wrong, still = errors
    gap = over_windows((wrong - right)[None], start, still[None])
    told, untold = (float(1 - x.mean() / still.mean()) for x in (right, wrong))
    interval = [round(end, 4) for end in gap.interval()]
    return {"skill": told, "with_others_actions": untold, "difference": told - untold, "interval": interval, "n": len(right)}


def recovered(what: Subject, batch: Batch, ahead: int, iterations: int = 25) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n"]]:
    """Squared error of the mean action of a chunk, found by descending the model's own error with the same noise; and its spread."""
    model = cast("WorldModel", what.model)
    with torch.no_grad():
        now, future = what.tokens(batch, 0), what.tokens(batch, ahead)
    keep = (torch.arange(model.horizon) < ahead).expand(len(now), -1)
    guess = torch.zeros(len(now), batch.action.shape[2], requires_grad=True)  # one action, carried out `ahead` times
    optimiser = torch.optim.Adam([guess], lr=0.1)
    for _ in range(iterations):
        action = guess[:, None].expand(-1, model.horizon, -1) * keep[..., None]
        loss = (model.predict(batch, now, action, keep, torch.Generator().manual_seed(0)) - future).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            guess.clamp_(-1, 1)
    true = batch.action[:, :ahead].mean(dim=1)
    error, spread = (guess.detach() - true).square().sum(dim=1), (true - true.mean(dim=0)).square().sum(dim=1)
    return error.double().numpy(), spread.double().numpy()


@torch.no_grad()
def inverse(model: FourModes, horizon: int, batches: list[Batch]) -> dict[str, Any]:
    """R^2 of a chunk's actions: told the future frame, and as the policy that is not told."""
    result: dict[str, Any] = {"n": sum(len(batch) for batch in batches), "steps": horizon}
    true = torch.cat([batch.action[:, :horizon] for batch in batches]).flatten(0, 1)
    for name, told in (("r2", True), ("r2_not_told", False)):
        drawn = [model.inverse(batch, torch.Generator().manual_seed(i), told) for i, batch in enumerate(batches)]
        error = (torch.cat(drawn).flatten(0, 1) - true).square().sum()
        result[name] = float(1 - error / (true - true.mean(dim=0)).square().sum())
    return result


def cost(what: Subject, batch: Batch) -> dict[str, Any]:
    """Parameters, operations and milliseconds of one prediction a chunk ahead; the encoder apart, the decoder to pixels left out."""
    model, one = what.model, batch[:1]
    with torch.no_grad():
        now = what.tokens(one, 0)
        way, ahead = next(iter(what.ways.values())), batch.action.shape[1] if isinstance(model, Residuals) else model.horizon
        ahead = ahead if ahead in what.horizons else max(what.horizons)
        with FlopCounterMode(display=False) as counter:
            way(one, now, ahead, torch.Generator().manual_seed(0))
        with FlopCounterMode(display=False) as encoder:
            what.encoder(one.image[:, -1, what.view])
        times = []
        for _ in range(7):
            start = time.perf_counter()
            way(one, now, ahead, torch.Generator().manual_seed(0))
            times.append(time.perf_counter() - start)
    owners = (model, getattr(model, "objective", torch.nn.Module()))
    unused = [getattr(owner, name, torch.nn.Module()) for owner in owners for name in ("pixels", "encoder", "target")]
    unused += [getattr(part, "reader", torch.nn.Module()) for part in model.modules() if isinstance(part, Residuals) and part is not model]
    left_out = {id(p) for part in unused for p in part.parameters()}
    parameters = sum(p.numel() for p in model.parameters() if id(p) not in left_out)
    flops, seen = counter.get_total_flops(), encoder.get_total_flops()
    return {"parameters": parameters, "GFLOP": flops / 1e9, "encoder_GFLOP": seen / 1e9, "milliseconds": 1000 * float(np.median(times)),
            "threads": torch.get_num_threads()}  # fmt: skip


@torch.no_grad()
def order(what: Subject, train: list[Window], rows: list[Window]) -> dict[str, np.ndarray]:
    """Is half of a latent half of the way?  The rank of the half-way frame among those at 0, 1/4, 1/2, 3/4 and all of the chunk.

    `noisy` decodes half of the latent and half noise, as the paper does, standardised over the changes of all parts of the chunk;
    `noise`, its control, half noise alone, which knows nothing of the window; `decoded` the mean of the latents of no change and of the
    whole.
    """
    model, ahead = cast("Residuals", what.model), what.horizons[-1]
    steps = (ahead // 4, ahead // 2, 3 * ahead // 4, ahead)
    windows = copy(what.windows)
    windows.needs = Needs(futures=steps)
    quarters, standard = replace(what, windows=windows), Standardiser(model.tokens, model.width)
    standard.fit(model.encode(what.tokens(batch, 0), what.tokens(batch, step)) for batch in quarters.batches(train) for step in steps)
    ranks: dict[str, list[Tensor]] = {"noisy": [], "noise": [], "decoded": []}
    for number, batch in enumerate(quarters.batches(rows)):
        frames = torch.stack([what.tokens(batch, step) for step in (0, *steps)], dim=1)
        now, latent = frames[:, 0], model.encode(frames[:, 0], frames[:, -1])
        noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(number))
        halves = {"noisy": standard.back((standard(latent) + noise) / 2), "noise": standard.back(noise / 2)}
        halves["decoded"] = (model.encode(now, now) + latent) / 2
        for name, half in halves.items():
            distance = (model.decode(now, half)[:, None] - frames).abs().mean(dim=(2, 3))
            ranks[name].append((distance < distance[:, 2:3]).sum(dim=1))
    return {name: torch.cat(parts).numpy() for name, parts in ranks.items()}


def evaluate(run: Path, tasks: tuple[str, ...] = (), data: str = "", count: int = 512, space: Path | None = None) -> dict[str, Any]:
    """Measure everything, write world.json, world.npz, world.png and horizon.png into the run, and return what world.json says.

    Of other tasks than its own: world-TASKS.*.
    """
    what, about = subject(run, tasks, data, space)
    rows = what.chosen(what.windows.validation, count)
    batches, task = what.batches(rows), np.array([row.task for row in rows])
    places = {folder: i for i, folder in enumerate(dict.fromkeys(row.episode.folder for row in rows))}
    episode, start = (np.array(each) for each in zip(*((places[row.episode.folder], row.episode.attempt) for row in rows), strict=True))
    lpips = registry.module("models", "perceptual").lpips_or("auto")
    horizons: dict[str, Any] = {}
    kept: dict[str, np.ndarray] = {}
    asked = [(way, ahead) for way in what.ways for ahead in what.horizons]
    for way, ahead in tqdm(asked, desc="predicting", unit="horizon"):
        values = measure(what, batches, way, ahead, lpips)
        horizons.setdefault(way, {})[str(ahead)] = line(values, start)
        kept |= {f"{way}/{ahead}/{name}": value.astype(np.float32) for name, value in values.items()}
    result = {
        **about,
        "asked": count,
        "n": len(rows),
        "episodes": len({row.episode.folder for row in rows}),
        "lpips": not isinstance(lpips, str),
    }
    result |= {"ways": horizons, "cost": cost(what, batches[0])}
    if isinstance(what.model, WorldModel):
        result["listens"] = listening(what, batches, what.model.horizon, start)
        few = np.arange(0, len(batches[0]), max(1, len(batches[0]) // TRIED))[:TRIED]  # of all tasks, in whose order a batch is
        error, spread = recovered(what, batches[0][torch.from_numpy(few)], what.horizons[0])
        tried = {"recovers/row": few, "recovers/error": error, "recovers/spread": spread}
        kept |= tried
        part = explained([tried | {"start": start}])
        ends = [round(part[end], 4) for end in ("low", "high")]
        result["recovers"] = {"r2": part["mean"], "interval": ends, "n": len(few), "steps": what.horizons[0]}
        if isinstance(what.model, Implicit):
            result["own_space"] = own(what.model, batches, start)
            result["untrained"] = listening(what, batches, what.model.horizon, start, UNTRAINED)
        if isinstance(what.model, FourModes):
            result["inverse"] = inverse(what.model, what.model.horizon, batches)
            save_picture(
                run / f"{named(tasks).replace('world', 'modes')}.png", four(what.model, what, what.gather(moving_most(what, rows)[:4]))
            )
    elif len(what.ways) > 1:
        ranks = order(what, what.chosen(what.windows.labelled, count), rows)
        result["order"] = {
            name: {"mean_rank": float(r.mean()), "nearest": float((r == 0).mean()), "n": len(r)} for name, r in ranks.items()
        }
        kept |= {f"order/{name}": rank for name, rank in ranks.items()}
    name = named(tasks)
    shots = photographs(what, rows)
    (run / f"{name}.json").unlink(missing_ok=True)  # what it said of other windows; killed now, this is asked again
    write_atomically(run / f"{name}.npz", lambda draft: _savez(draft, {**kept, **shots, "task": task, "episode": episode, "start": start}))
    if shots:
        write_atomically(run / f"{name}.gif", lambda draft: write_gif(draft, film(what, rows)))
        save_picture(run / f"{name}.png", strip({"now": shots["now"], "later": shots["later"], "later, decoded": shots["seen"],
                                             about["arm"]: shots["predicted"]}))  # fmt: skip
    write_json(run / f"{name}.json", result)  # last: what it names is there
    if isinstance(what.model, WorldModel) and not tasks:
        save_picture(run / "horizon.png", curves(summarised([run])[0]))
    return result


def named(tasks: tuple[str, ...]) -> str:
    """What the files of a measurement are called: "world", or after the tasks that were named."""
    return "-".join(["world", *tasks])


def _savez(draft: Path, arrays: dict[str, np.ndarray]) -> None:
    with open(draft, "wb") as file:
        np.savez_compressed(file, **arrays)  # pyright: ignore
