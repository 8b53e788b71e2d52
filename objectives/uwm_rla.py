"""UWM-RLA: the policy's trunk with a stream of residual latents on its own clock, so that one network is four.

Nobody has published it; it joins Zhu et al. 2025, Unified World Models (UWM), arXiv:2504.02792 (two clocks, drawn independently) to the
latents of RLA-WM 2026, arXiv:2605.07079.  A stream at t = 0 is noise and says nothing; at t = 1 it is given.
    policy     p(a | o):     the latent stays at 0, actions go from 0 to 1        wmzoo.compose.Hybrid.act
    dynamics   p(z | o, a):  actions at 1, the latent goes from 0 to 1            wmzoo.objectives.uwm.Dynamics
    inverse    p(a | o, z):  the latent at 1, actions go from 0 to 1              wmzoo.compose.Hybrid.generate
    predictor  p(z | o):     actions stay at 0, the latent goes from 0 to 1       wmzoo.compose.Hybrid.generate
    L = mean over valid numbers of (V_z - (zbar - eps))^2, t_z ~ U(0, 1), 0 in `drop` of the windows     wmzoo.objectives.uwm.stream_loss
Windows past the end of their episode have no latent: noise at t = 0, and no loss.  Action-free video teaches the latent alone.
"""

from dataclasses import dataclass
from typing import cast

from jaxtyping import Float
from torch import Tensor

from wmzoo.interfaces import Blueprint, Freezable, Residuals, Sizes
from wmzoo.standard import Scaling

from .ahead import ResidualTarget
from .uwm import Plan, SecondStream


class UwmRla(SecondStream):
    """Owns the stream "rla".

    Args:
        ahead: latents of the frame at the end of the chunk.
        pixels: frozen decoder, for looking.
        plan, width, out: as in SecondStream.
    """

    stream = "rla"
    auxiliary = ("ahead", "pixels")

    def __init__(self, ahead: ResidualTarget, pixels: Freezable, plan: Plan, width: int, out: int) -> None:
        super().__init__(ahead, plan, width, out)
        self.pixels = pixels
        pixels.freeze()

    def paint(self, tokens: Float[Tensor, "B P E"]) -> Float[Tensor, "B 3 Y X"]:
        return self.pixels(tokens)


@dataclass(frozen=True)
class Config(Blueprint):
    """The latent stream of UWM-RLA.

    Attributes:
        residuals: models/rla.py, trained by the stage "rla".
        pixels: models/pixels.py.
        drop: part of the windows whose latent says nothing.
        steps: of sampling a latent.
        scaling: of the latents.
    """

    residuals: Blueprint
    pixels: Blueprint
    drop: float = 0.5
    steps: int = 10
    scaling: Scaling = "measured"

    def build(self, sizes: Sizes) -> UwmRla:
        target = ResidualTarget(cast("Residuals", self.residuals.build(sizes)), sizes.horizon, self.scaling)
        plan = Plan("flow", self.drop, self.steps)
        return UwmRla(target, cast("Freezable", self.pixels.build(sizes)), plan, sizes.width, sizes.out)
