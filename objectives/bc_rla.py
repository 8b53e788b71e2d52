"""BC-RLA, the minimalist world-action model: cloning, and one more head that predicts the residual latent of the own chunk.

RLA-WM 2026, arXiv:2605.07079.
    zbar  = sg[(T_enc(s_{t+H} - s_t) - mean) / deviation]                        wmzoo.objectives.bc_rla.ResidualTarget
    L     = mean (a_hat - A)^2 on windows with actions                           wmzoo.objectives.bc.clone_loss
          + 0.05 mean |z_hat - zbar| + 0.05 mean (z_hat - zbar)^2 on all         latent_errors
Video teaches everything but the action head; where no state is known a learned token stands for it.  The latent head, the
autoencoder and its encoder are gone when it plays.
We differ: latents are standardised number by number (`scaling` "tenth" divides by ten, as published).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from wmzoo.batch import Batch, Needs
from wmzoo.features import frame_tokens
from wmzoo.interfaces import Blueprint, Residuals, Sizes
from wmzoo.question import Score
from wmzoo.shapes import checked
from wmzoo.standard import Scaling, Standardiser

from .bc import Bc

Control = Literal["none", "current", "shuffled"]


@checked
def latent_errors(predicted: Float[Tensor, "B K Z"], target: Float[Tensor, "B K Z"]) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"]]:
    """Absolute and squared error averaged over the numbers of each window; no gradient reaches the target."""
    error = predicted - target.detach()
    return error.abs().mean(dim=(1, 2)), error.square().mean(dim=(1, 2))


class ResidualTarget(nn.Module):
    """The standardised residual latent of the frame at the end of a chunk, by a frozen autoencoder.

    Args:
        residuals: the autoencoder; frozen here.
        gap: control steps to that frame.
        scaling: "measured", or "tenth".
        control: "current" is the latent of no change, "shuffled" that of the next window in the batch.
    """

    def __init__(self, residuals: Residuals, gap: int, scaling: Scaling, control: Control = "none") -> None:
        super().__init__()
        residuals.freeze()
        self.residuals, self.gap, self.control = residuals, gap, control
        self.tokens, self.width = residuals.tokens, residuals.width
        self.standard = Standardiser(self.tokens, self.width, scaling=scaling)

    def settle(self, batches: Iterable[Batch]) -> None:
        """Measure mean and deviation."""

        def latents(batch: Batch) -> Tensor:
            latent, valid = self.raw(batch)
            return latent[valid]

        self.standard.fit(latents(batch) for batch in batches)

    @torch.no_grad()
    def raw(self, batch: Batch) -> tuple[Float[Tensor, "B K Z"], Bool[Tensor, "B"]]:
        """Latents, and where they mean something."""
        column = batch.column(self.gap)
        valid = batch.has_future[:, column]
        now = frame_tokens(batch, self.residuals.encoder, self.residuals.view).float()
        future = now if self.control == "current" else frame_tokens(batch, self.residuals.encoder, self.residuals.view, column).float()
        return self.residuals.encode(now, torch.where(valid[:, None, None], future, now)), valid

    def forward(self, batch: Batch) -> tuple[Float[Tensor, "B K Z"], Bool[Tensor, "B"]]:
        """Standardised latents, and where they mean something."""
        latent, valid = self.raw(batch)
        if self.control == "shuffled":
            latent, valid = latent.roll(1, dims=0), valid & valid.roll(1)
        return self.standard(latent), valid


class BcRla(Bc):
    """Cloning with a second head on the same features."""

    auxiliary = ("latent_head", "target")

    def __init__(self, target: ResidualTarget, queries: int, sizes: Sizes, hidden: int, dropout: float) -> None:
        super().__init__(queries, sizes, hidden, dropout)
        self.target = target
        self.latent_head = nn.Linear(hidden, target.tokens * target.width)

    def needs(self) -> Needs:
        return Needs(futures=(self.target.gap,))

    def settle(self, batches: Iterable[Batch]) -> None:
        self.target.settle(batches)

    def mark(self, features: Float[Tensor, "B F"], batch: Batch) -> dict[str, Score]:
        latent, valid = self.target(batch)
        l1, mse = latent_errors(self.latent_head(features).unflatten(1, latent.shape[1:]).float(), latent)
        return {**super().mark(features, batch), "latent_l1": Score(l1, valid), "latent_mse": Score(mse, valid)}


@dataclass(frozen=True)
class Config(Blueprint):
    """BC-RLA; the defaults are the paper's.

    Attributes:
        residuals: models/rla.py, trained by the stage "rla".
        queries, hidden, dropout: as in objectives/bc.py.
        scaling: of the latents.
        control: of the target.
    """

    residuals: Blueprint
    queries: int = 16
    hidden: int = 2048
    dropout: float = 0.1
    scaling: Scaling = "measured"
    control: Control = "none"

    def build(self, sizes: Sizes) -> BcRla:
        target = ResidualTarget(cast("Residuals", self.residuals.build(sizes)), sizes.horizon, self.scaling, self.control)
        return BcRla(target, self.queries, sizes, self.hidden, self.dropout)
