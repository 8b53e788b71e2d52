"""Residual latents: what changed between two frames of a frozen feature space, in a few numbers that rebuild the second frame.

RLA-WM 2026, arXiv:2605.07079.
    z     = T_enc(s_{t+h} - s_t)                                       wmzoo.models.rla.Autoencoder.encode
    s_hat = T_dec(s_t, z), in one pass                                 wmzoo.models.rla.Autoencoder.decode
    L     = mean |s_hat - s_{t+h}| + mean (s_hat - s_{t+h})^2          distances
    w_p   = (1 + m |s_{t+h} - s_t|_p / mean over p) / (1 + m)          motion_weight
m = 0 is the paper's plain mean; background that moves can swamp a small object, which m > 0 counts more.
h is drawn uniformly; no action is read, so video counts like demonstrations; pairs past the end of an episode do not count.
`control` "no_latent" has the decoder do without: what it then reaches is what the present frame alone tells.
"""

from dataclasses import dataclass
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor

from wmzoo.batch import Batch, Needs
from wmzoo.errors import UserError
from wmzoo.features import frame_tokens
from wmzoo.interfaces import Blueprint, Objective, Residuals, Sizes
from wmzoo.question import Hidden, Question, Score
from wmzoo.shapes import checked

from .foresight import column_within

Control = Literal["none", "no_latent"]


@checked
def distances(
    written: Float[Tensor, "B P E"], future: Float[Tensor, "B P E"], weight: Float[Tensor, "B P"]
) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"]]:
    """Absolute and squared error averaged over the numbers of each window, patches weighed; units of the features."""
    error = (written - future).float()
    return (error.abs().mean(dim=2) * weight).mean(dim=1), (error.square().mean(dim=2) * weight).mean(dim=1)


@checked
def motion_weight(now: Float[Tensor, "B P E"], future: Float[Tensor, "B P E"], motion: float) -> Float[Tensor, "B P"]:
    """How much each patch counts; the mean over the patches of a window is 1, and 1 / (1 + m) where nothing moves at all."""
    change = (future - now).float().abs().mean(dim=2)
    return (1 + motion * change / change.mean(dim=1, keepdim=True).clamp(min=1e-8)) / (1 + motion)


@checked
def copied_ratio(now: Float[Tensor, "B P E"], written: Float[Tensor, "B P E"], future: Float[Tensor, "B P E"]) -> Float[Tensor, ""]:
    """Absolute error over that of the present frame, summed over the windows that change more than the median window.

    Where none does, as when all change alike, over those that change as much; NaN where nothing changes.
    """
    error, copied = ((x - future).float().abs().mean(dim=(1, 2)) for x in (written, now))
    median = copied.median()
    moving = torch.where((copied > median).any(), copied > median, copied >= median)
    return torch.where(moving, error, 0.0).sum() / torch.where(moving, copied, 0.0).sum()


class Rla(Objective):
    """Trains the autoencoder, without trunk, streams or labels.

    Args:
        residuals: the autoencoder.
        gaps: smallest and largest h, in control steps.
        motion: m.
        control: "none" or "no_latent".
    """

    def __init__(self, residuals: Residuals, gaps: tuple[int, int], motion: float, control: Control) -> None:
        super().__init__()
        if not 1 <= gaps[0] <= gaps[1]:
            raise UserError(f"frames lie 1 step or more ahead, the nearest first: not {gaps[0]} to {gaps[1]}")
        if motion < 0:
            raise UserError(f"motion cannot weigh less than nothing: {motion}")
        self.residuals, self.gaps, self.motion, self.control = residuals, gaps, motion, control

    def needs(self) -> Needs:
        return Needs(futures=(self.gaps,))

    def forward(self, batch: Batch) -> Question:
        model, column = self.residuals, column_within(batch, *self.gaps)
        valid, now = batch.has_future[:, column], frame_tokens(batch, model.encoder, model.view)
        future = torch.where(valid[:, None, None], frame_tokens(batch, model.encoder, model.view, column), now)
        latent = model.encode(now, future)
        written = model.decode(now, 0 * latent if self.control == "no_latent" else latent)

        def score(_: Hidden) -> dict[str, Score]:
            l1, mse = distances(written, future, motion_weight(now, future, self.motion))
            return {"l1": Score(l1, valid), "mse": Score(mse, valid)}

        def watch(_: Hidden) -> dict[str, Tensor]:
            if valid.sum() < 2:
                return {}
            return {"moving_ratio": copied_ratio(now[valid], written[valid], future[valid]), "latent_std": latent[valid].std(dim=0).mean()}

        return Question({}, frozenset(), score, watch)


@dataclass(frozen=True)
class Config(Blueprint):
    """The autoencoder by itself.

    Attributes:
        residuals: models/rla.py.
        gaps: smallest and largest distance of the frames, in control steps; the paper draws 1 to 99.
        motion: how much more moving patches count; 0 is the paper.
        control: "no_latent" is the control arm.
    """

    residuals: Blueprint
    gaps: tuple[int, int] = (1, 99)
    motion: float = 0.0
    control: Control = "none"

    def build(self, sizes: Sizes) -> Rla:
        return Rla(cast("Residuals", self.residuals.build(sizes)), self.gaps, self.motion, self.control)
