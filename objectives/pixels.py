"""A decoder from a frozen feature space to pixels, trained alone: every world model of that space is looked at through the same one.

RLA-WM 2026, arXiv:2605.07079, shows and measures its predictions so.
    L = mean |D(s) - o| + mean (D(s) - o)^2, images in [0, 1]    paint_loss
No gradient reaches the features, and no world model trains it.
"""

from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wmzoo.batch import Batch
from wmzoo.features import frame_tokens
from wmzoo.interfaces import Blueprint, Encoder, Objective, Sizes
from wmzoo.question import Hidden, Question, Score
from wmzoo.shapes import checked


@checked
def paint_loss(painted: Float[Tensor, "B 3 Y X"], frame: Float[Tensor, "B 3 Y X"]) -> Float[Tensor, "B"]:
    """Absolute plus squared error averaged over the pixels of each window; images in [0, 1]."""
    error = painted - frame
    return (error.abs() + error.square()).mean(dim=(1, 2, 3))


class ToPixels(Objective):
    """Paints the present frame from its tokens.

    Args:
        encoder: the frozen feature space.
        pixels: the decoder.
        view: camera.
    """

    def __init__(self, encoder: Encoder, pixels: nn.Module, view: int) -> None:
        super().__init__()
        self.encoder, self.pixels, self.view = encoder, pixels, view

    def forward(self, batch: Batch) -> Question:
        painted = self.pixels(frame_tokens(batch, self.encoder, self.view))

        def score(_: Hidden) -> dict[str, Score]:
            loss = paint_loss(painted, batch.image[:, -1, self.view])
            return {"paint": Score(loss, torch.ones(len(batch), dtype=torch.bool, device=loss.device))}

        return Question({}, frozenset(), score)


@dataclass(frozen=True)
class Config(Blueprint):
    """A decoder by itself.

    Attributes:
        encoder: the frozen feature space.
        pixels: models/pixels.py, of the same encoder.
        view: camera.
    """

    encoder: Blueprint
    pixels: Blueprint
    view: int = 0

    def build(self, sizes: Sizes) -> ToPixels:
        return ToPixels(cast("Encoder", self.encoder.build(sizes)), self.pixels.build(sizes), self.view)
