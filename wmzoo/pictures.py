"""What does a prediction look like?  A strip, a film over the horizons, and the four modes of one trunk on a page."""

from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from .batch import Batch
from .data import Window
from .interfaces import FourModes, WorldModel
from .subject import Subject

SHOWN = 6  # windows in a picture


def moving_most(what: Subject, rows: list[Window]) -> list[Window]:
    """A few windows that change more than the median one within a chunk, evenly spaced among those."""
    batch = what.gather(rows)
    column = batch.column(cast("WorldModel", what.model).horizon)
    moved = (batch.future[:, column, what.view] - batch.image[:, -1, what.view]).square().mean(dim=(1, 2, 3))
    half = max(1, len(rows) // 2)
    return [rows[i] for i in moved.argsort(descending=True)[: half : max(1, half // SHOWN)][:SHOWN].tolist()]


@torch.no_grad()
def photographs(what: Subject, rows: list[Window]) -> dict[str, np.ndarray]:
    """A few windows that move, a chunk ahead: frames, the decoder with the true tokens, and with the predicted ones; uint8."""
    if what.paint is None:
        return {}
    few, ahead = what.gather(moving_most(what, rows)), cast("WorldModel", what.model).horizon
    predicted = next(iter(what.ways.values()))(few, what.tokens(few, 0), ahead, torch.Generator().manual_seed(0))
    images = {"now": few.image[:, -1, what.view], "later": few.future[:, few.column(ahead), what.view]}
    images |= {"seen": what.paint(what.tokens(few, ahead)), "predicted": what.paint(predicted)}
    return {name: (255 * image.clamp(0, 1)).round().byte().movedim(1, -1).numpy() for name, image in images.items()}


@torch.no_grad()
def film(what: Subject, rows: list[Window]) -> np.ndarray:
    """The same windows over all horizons, (frames, height, width, 3): above as it was, below as it was foreseen."""
    assert what.paint is not None
    few = what.gather(moving_most(what, rows))
    now, shown = what.tokens(few, 0), [(few.image[:, -1, what.view], few.image[:, -1, what.view])]
    for ahead in what.horizons:
        predicted = next(iter(what.ways.values()))(few, now, ahead, torch.Generator().manual_seed(0))
        shown.append((few.future[:, few.column(ahead), what.view], what.paint(predicted).clamp(0, 1)))
    pages = [torch.cat([torch.cat(list(row), dim=2) for row in pair], dim=1) for pair in shown]
    return (255 * torch.stack(pages).movedim(1, -1)).round().byte().numpy()


def write_gif(path: Path, frames: np.ndarray) -> None:
    """Twice as large, one frame a second."""
    import imageio.v3 as imageio

    imageio.imwrite(path, np.repeat(np.repeat(frames, 2, axis=1), 2, axis=2), extension=".gif", duration=1000, loop=0)


@torch.no_grad()
def four(model: FourModes, what: Subject, batch: Batch) -> Figure:
    """One page, a column for each window: the frame told the actions, and not; the actions told the frame, and not (the policy)."""
    world, paint = cast("WorldModel", model), cast("Callable[[Tensor], Tensor]", what.paint)
    now, ahead = what.tokens(batch, 0), world.horizon
    frames = {
        "now": batch.image[:, -1, what.view],
        "later": batch.future[:, batch.column(ahead), what.view],
        "dynamics:\ntold the actions": paint(next(iter(what.ways.values()))(batch, now, ahead, torch.Generator().manual_seed(0))),
        "video:\ntold nothing": paint(model.video(batch, now, torch.Generator().manual_seed(0))),
    }
    actions = {
        "inverse, told the frame": model.inverse(batch, torch.Generator().manual_seed(0)),
        "policy, told nothing": model.inverse(batch, torch.Generator().manual_seed(0), told=False),
    }
    figure = Figure(figsize=(2.1 * len(batch) + 1.6, 10.5), layout="constrained")
    axes = figure.subplots(6, len(batch), squeeze=False)
    for row, (name, images) in zip(axes, frames.items(), strict=False):
        row[0].set_ylabel(name, fontsize=8)
        for axis, image in zip(row, images.clamp(0, 1).movedim(1, -1), strict=True):
            axis.imshow(image.float().numpy())
            axis.set(xticks=[], yticks=[])
    for row, (name, drawn) in zip(axes[4:], actions.items(), strict=True):
        row[0].set_ylabel(name, fontsize=8)
        for axis, mine, true in zip(row, drawn, batch.action[:, :ahead], strict=True):
            for part in range(min(3, true.shape[1])):
                axis.plot(true[:, part], color=f"C{part}", ls=":")
                axis.plot(mine[:, part], color=f"C{part}")
            axis.set(ylim=(-1.1, 1.1))
            axis.tick_params(labelsize=6)
    figure.supxlabel("actions of the chunk, the first three numbers; dotted: as recorded", fontsize=8)
    return figure
