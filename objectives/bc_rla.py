"""BC-RLA, the minimalist world-action model: cloning, and one more head that predicts the residual latent of the own chunk.

RLA-WM 2026, arXiv:2605.07079.
    zbar  = sg[(T_enc(s_{t+H} - s_t) - mean) / deviation]                        wmzoo.objectives.ahead.ResidualTarget
    L     = mean (a_hat - A)^2 on windows with actions                           wmzoo.objectives.bc.clone_loss
          + 0.05 mean |z_hat - zbar| + 0.05 mean (z_hat - zbar)^2 on all         latent_errors
Video teaches everything but the action head; where no state is known a learned token stands for it.  The latent head, the
autoencoder and its encoder are gone when it plays.
We differ: latents are standardised number by number (`scaling` "tenth" divides by ten, as published).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

from jaxtyping import Float
from torch import Tensor, nn

from wmzoo.batch import Batch, Needs
from wmzoo.interfaces import Blueprint, Residuals, Sizes
from wmzoo.question import Score
from wmzoo.shapes import checked
from wmzoo.standard import Scaling

from .ahead import Control, ResidualTarget
from .bc import Bc


@checked
def latent_errors(predicted: Float[Tensor, "B K Z"], target: Float[Tensor, "B K Z"]) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"]]:
    """Absolute and squared error averaged over the numbers of each window; no gradient reaches the target."""
    error = predicted - target.detach()
    return error.abs().mean(dim=(1, 2)), error.square().mean(dim=(1, 2))


class BcRla(Bc):
    """Cloning with a second head on the same features."""

    auxiliary = ("latent_head", "target")

    def __init__(self, target: ResidualTarget, queries: int, sizes: Sizes, hidden: int, dropout: float) -> None:
        super().__init__(queries, sizes, hidden, dropout)
        self.target = target
        self.latent_head = nn.Linear(hidden, target.tokens * target.width)

    def needs(self) -> Needs:
        return Needs(futures=self.target.gaps)

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
