"""What predicts, and which windows is it asked about?  The same recorded validation windows for every world model."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .batch import Batch, Needs
from .compose import Hybrid
from .config import Experiment, build, self_contained
from .data import Normaliser, Window, Windows
from .episodes import open_task
from .errors import UserError
from .features import frame_tokens
from .finished import load_hybrid
from .implicit import Implicit
from .interfaces import Aligned, Encoder, Residuals, Sizes, WorldModel
from .tasks import resolve

AMONG, FITTED = 64, 2048  # windows among which a future is sought, and those on which a linear map is fitted
GATE = 0.05  # deviation of what a fresh network has at 0, such as gates: at 0 the actions would reach nothing
Predict = Callable[[Batch, Tensor, int, torch.Generator], Tensor]  # batch, present tokens, steps ahead -> tokens


@dataclass
class Subject:
    """Something that predicts, and the windows it is asked about.

    Attributes:
        model: the world model, or the autoencoder; its encoder and camera.
        ways: what is asked for a prediction, by name; the first is the model itself.
        paint: tokens to pixels; None where there is no decoder.
        space: a frozen encoder in which painted predictions are scored too; None scores them in their own space alone.
        horizons: control steps ahead.
        span: frames that every window must have ahead of it, so that models with other horizons are asked about the same ones.
    """

    model: WorldModel | Residuals
    encoder: Encoder
    view: int
    ways: dict[str, Predict]
    paint: Callable[[Tensor], Tensor] | None
    horizons: tuple[int, ...]
    span: int
    windows: Windows
    space: Encoder | None = None

    def chosen(self, rows: list[Window], count: int) -> list[Window]:
        """Windows with all frames, evenly spaced, in an order that mixes episodes; a multiple of 64 if there are that many.

        Raises:
            UserError: there are fewer than two.
        """
        there = [row for row in rows if row.now + self.span <= row.episode.length]
        if len(there) < 2:
            raise UserError(f"hardly any episode of {', '.join(self.windows.names)} is {self.span} steps long")
        count = min(count, len(there))
        count -= count % AMONG if count > AMONG else 0
        picked = [there[i] for i in np.linspace(0, len(there) - 1, count).astype(int)]
        parts = max(1, count // AMONG)
        return [row for i in range(parts) for row in picked[i::parts]]

    def gather(self, rows: list[Window]) -> Batch:
        """Their frames as recorded."""
        return self.windows.gather(rows, np.zeros((len(rows), 2), int), np.random.default_rng(0))

    def batches(self, rows: list[Window]) -> list[Batch]:
        """64 at a time."""
        return [self.gather(rows[i : i + AMONG]) for i in range(0, len(rows), AMONG)]

    def tokens(self, batch: Batch, ahead: int) -> Float[Tensor, "B P E"]:
        """Of the present frame, or of the one so many steps ahead."""
        return frame_tokens(batch, self.encoder, self.view, batch.column(ahead) if ahead else None).float()


def predictor(model: WorldModel) -> Predict:
    """A world model asked with the recorded actions; farther than it can look, it goes on from its own prediction."""

    def predict(batch: Batch, now: Tensor, ahead: int, generator: torch.Generator) -> Tensor:
        for first in range(0, ahead, model.horizon):
            last = min(ahead, first + model.horizon)
            action = torch.zeros(len(now), model.horizon, batch.action.shape[2])
            action[:, : last - first] = batch.action[:, first:last]
            keep = (torch.arange(model.horizon) < last - first).expand(len(now), -1)
            now = model.predict(batch, now, action, keep, generator)
        return now

    return predict


def latents(model: Residuals, encoder: Encoder) -> dict[str, Predict]:
    """An autoencoder that is told the future: by its own latent, by none, by that of a window of another episode."""

    def told(change: Callable[[Tensor], Tensor]) -> Predict:
        def predict(batch: Batch, now: Tensor, ahead: int, _: torch.Generator) -> Tensor:
            future = frame_tokens(batch, encoder, model.view, batch.column(ahead)).float()
            return model.decode(now, change(model.encode(now, future)))

        return predict

    half_a_batch_away = told(lambda z: z.roll(len(z) // 2, dims=0))
    return {"own latent": told(lambda z: z), "no latent": told(torch.zeros_like), "another's latent": half_a_batch_away}


def predicting(run: Path) -> WorldModel | Residuals:
    """What predicts in a run, in whose frozen feature space others can be scored.

    Raises:
        UserError: nothing in this run predicts.
    """
    _, hybrid, _ = load_hybrid(run)
    found = [hybrid.world_model, *(part for part in hybrid.modules() if isinstance(part, Residuals))]
    models = [part for part in found if part is not None]
    if not models:
        raise UserError(f"{run} predicts nothing, so it has no feature space; --space is the run of another world model")
    return models[0]


def reader(run: Path, arm: Experiment, hybrid: Hybrid, sizes: Sizes, space: Path | None) -> Implicit | None:
    """A hybrid that aligns with the future, to be read in the feature space of another run; None where it does not.

    Raises:
        UserError: there is no such run, or it has no decoder.
    """
    names = [name for name, part in hybrid.objectives.items() if isinstance(part, Aligned) and part.gap > 0]
    if not names:
        return None
    judge = None if space is None else predicting(space)
    if not isinstance(judge, WorldModel):
        raise UserError(f"{run} foresees an embedding that nothing decodes: say --space and the run of a world model to read it there")
    return Implicit(hybrid, untrained(arm, sizes), names[0], judge, arm.data.horizon)


def untrained(arm: Experiment, sizes: Sizes) -> Hybrid:
    """The network of an arm with fresh weights, none of which are 0 throughout."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(arm.seed)
        fresh = build(self_contained(arm), sizes).eval()
        for weight in fresh.parameters():
            if weight.ndim > 1 and not weight.any():
                weight.normal_(0, GATE)
    return fresh


def subject(run: Path, tasks: tuple[str, ...], data: str, space: Path | None = None) -> tuple[Subject, dict[str, Any]]:
    """What a run predicts with, on the data it was trained on, or on other tasks or from another folder; and what it is.

    Args:
        space: the run of another world model, in whose feature space painted predictions are scored too, or embeddings are read.

    Raises:
        UserError: nothing in this run predicts, or it cannot read this data, or it does not paint.
    """
    arm, hybrid, facts = load_hybrid(run)
    model = hybrid.world_model or reader(run, arm, hybrid, Sizes(**facts["sizes"]), space)
    residuals = next((part for part in hybrid.modules() if isinstance(part, Residuals)), None)
    if model is None and residuals is None:
        raise UserError(f"{run} is a run of {arm.name}: nothing in it predicts a future frame")
    horizon, history = arm.data.horizon, hybrid.needs().history
    horizons = tuple(dict.fromkeys((max(1, horizon // 4), max(1, horizon // 2), horizon)))
    ways, paint = {}, None
    if model is not None:
        ways, encoder, view, paint = {"prediction": predictor(model)}, model.encoder, model.view, model.paint
        horizons = tuple(dict.fromkeys(ahead - ahead % model.every for ahead in (*horizons, 2 * horizon) if ahead >= model.every))
        if residuals is not None:
            ways["own latent"] = latents(residuals, encoder)["own latent"]
    else:
        encoder, view = cast("Residuals", residuals).encoder, cast("Residuals", residuals).view
        ways = latents(cast("Residuals", residuals), encoder)
        if any(getattr(objective, "control", "") == "no_latent" for objective in hybrid.objectives.values()):
            ways = {"no latent": ways["no latent"]}
    settings = replace(arm.data, tasks=tasks or arm.data.tasks, root=data or arm.data.root, videos=0, horizon=max(horizons), shift=0)
    if tasks or data:  # as many episodes as there are, at most as many as the run has read
        recorded = [open_task(Path(settings.root) / str(settings.size), name) for name in resolve(settings.tasks)]
        settings = replace(settings, demos=min(arm.data.demos, *(len(r.episodes) - len(r.validation) for r in recorded)))
    windows = Windows(settings, Needs(history=history, futures=horizons), arm.seed)
    while len(horizons) > 1 and sum(row.now + horizons[-1] <= row.episode.length for row in windows.validation) < 2:
        horizons = horizons[:-1]  # episodes are shorter than two chunks
    beyond = [
        gap for gap in hybrid.needs().futures if isinstance(gap, int) and gap not in horizons
    ]  # frames it must see, but is not asked for
    windows.needs = Needs(history=history, futures=(*horizons, *beyond))
    shape, sizes = (windows.views, windows.action_size), facts["sizes"]
    if shape != (sizes["views"], sizes["action"]):
        wanted = f"{sizes['views']} cameras and {sizes['action']} numbers of action"
        raise UserError(f"{run} reads {wanted}; the episodes of {', '.join(windows.names)} in {settings.root} have {shape}")
    windows.normaliser = Normaliser(**{name: tuple(row) for name, row in facts["normaliser"].items()})
    windows.cache(model if isinstance(model, Implicit) else hybrid)
    about = {"run": run.resolve().name, "arm": arm.name, "seed": arm.seed, "kind": "autoencoder" if model is None else "world model"}
    about |= {"tasks": list(windows.names), "data": windows.provenance, "trained_on": facts["data"]}
    about |= {"feature_space": getattr(encoder, "fingerprint", ""), "sampling_steps": getattr(model, "steps", 1)}
    judge = None if space is None else predicting(space).encoder
    if judge is not None and getattr(judge, "fingerprint", "") == about["feature_space"]:
        judge = None  # it predicts in that space, so nothing need be painted
    if judge is not None:
        if paint is None:
            raise UserError(f"{run} does not paint what it predicts, so it has no frames to be scored in the space of {space}")
        about["space"] = getattr(judge, "fingerprint", "")
    span, horizons = max(horizons + tuple(beyond)), horizons[:1] if isinstance(model, Implicit) else horizons
    found = Subject(model or cast("Residuals", residuals), encoder, view, ways, paint, horizons, span, windows, judge)
    if isinstance(model, Implicit):
        rows = found.chosen(windows.labelled, FITTED)
        folders = {folder: i for i, folder in enumerate(dict.fromkeys(row.episode.folder for row in rows))}
        model.fit(found.batches(rows), np.array([folders[row.episode.folder] for row in rows]))
        found.ways = model.ways()
        about["fitted"] = len(rows)
    return found, about
