"""UWM-RLA: the policy's trunk with a stream of residual latents on its own clock, so that one network is four.

Nobody has published it; it joins Zhu et al. 2025, Unified World Models (UWM), arXiv:2504.02792 (two clocks, drawn independently) to the
latents of RLA-WM 2026, arXiv:2605.07079.  A stream at t = 0 is noise and says nothing; at t = 1 it is given.
    policy     p(a | o):     the latent stays at 0, actions go from 0 to 1        wmzoo.compose.Hybrid.act
    dynamics   p(z | o, a):  actions at 1, the latent goes from 0 to 1            wmzoo.objectives.uwm_rla.Dynamics
    inverse    p(a | o, z):  the latent at 1, actions go from 0 to 1              wmzoo.compose.Hybrid.generate
    predictor  p(z | o):     actions stay at 0, the latent goes from 0 to 1       wmzoo.compose.Hybrid.generate
    L = mean over valid numbers of (V_z - (zbar - eps))^2, t_z ~ U(0, 1), 0 in `drop` of the windows     latent_flow_loss
Windows past the end of their episode have no latent: noise at t = 0, and no loss.  Action-free video teaches the latent alone.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from wmzoo.batch import Batch, Needs
from wmzoo.clock import interpolate, velocity
from wmzoo.compose import Hybrid
from wmzoo.errors import UserError
from wmzoo.interfaces import Blueprint, Denoiser, Encoder, Freezable, Residuals, Sizes, WorldModel
from wmzoo.question import Hidden, Question, Score, Stream
from wmzoo.sample import euler
from wmzoo.shapes import checked
from wmzoo.standard import Scaling

from .bc_rla import ResidualTarget


@checked
def latent_flow_loss(prediction: Float[Tensor, "B K Z"], target: Float[Tensor, "B K Z"]) -> Float[Tensor, "B"]:
    """Squared error of the latent's velocity, averaged over the numbers of each window."""
    return (prediction - target).square().mean(dim=(1, 2))


class UwmRla(Denoiser):
    """Owns the stream "rla".

    Args:
        target: latents of the frame at the end of the chunk.
        pixels: frozen decoder, for looking.
        width, out: of the trunk's residual stream and of its final output.
        drop: part of the windows whose latent is noise at t = 0, as it is when the policy plays.
        steps: of sampling a latent.
    """

    stream = "rla"
    auxiliary = ("target", "pixels")

    def __init__(self, target: ResidualTarget, pixels: Freezable, width: int, out: int, drop: float, steps: int) -> None:
        super().__init__()
        if not 0 <= drop <= 1 or steps < 1:
            raise UserError(f"drop is from 0 to 1 and sampling takes at least one step, not {drop} and {steps}")
        self.target, self.pixels, self.drop, self.steps = target, pixels, drop, steps
        pixels.freeze()
        self.encode, self.decode = nn.Linear(target.width, width), nn.Linear(out, target.width)
        self.place = nn.Parameter(0.02 * torch.randn(target.tokens, width))
        self.register_buffer("idle", torch.randn(target.tokens, target.width))  # what says nothing says it always alike
        nn.init.zeros_(self.decode.weight)
        nn.init.zeros_(self.decode.bias)

    def needs(self) -> Needs:
        return Needs(futures=(self.target.gap,))

    def settle(self, batches: Iterable[Batch]) -> None:
        self.target.settle(batches)

    def forward(self, batch: Batch) -> Question:
        latent, valid = self.target(batch)
        noise = torch.randn_like(latent)
        clock = torch.rand(len(batch), device=latent.device)
        told = valid & (torch.rand(len(batch), device=latent.device) >= self.drop)
        clock = torch.where(told, clock, 0.0)
        noisy = interpolate(noise, latent, clock)

        def score(hidden: Hidden) -> dict[str, Score]:
            return {"velocity": Score(latent_flow_loss(self.read(hidden, batch), velocity(noise, latent)), valid)}

        return Question(self.embed(noisy, clock, batch), frozenset(), score)

    def standing(self, batch: Batch) -> dict[str, Stream]:
        silent = cast("Tensor", self.idle).expand(len(batch), -1, -1)
        return self.embed(silent, torch.zeros(len(batch), device=silent.device), batch)

    def embed(self, noisy: Tensor, clock: Tensor, batch: Batch) -> dict[str, Stream]:
        return {self.stream: Stream(self.encode(noisy) + self.place, clock)}

    def read(self, hidden: Hidden, batch: Batch) -> Tensor:
        return self.decode(hidden.final[self.stream]).float()

    def sample(self, predict: Callable[[Tensor, Tensor], Tensor], noise: Tensor, steps: int) -> Tensor:
        return euler(predict, noise, steps)

    def dynamics(self, hybrid: Hybrid) -> WorldModel:
        return Dynamics(hybrid, self)


class Dynamics(WorldModel):
    """The whole hybrid as a world model: actions given, the latent of the chunk's end sampled and decoded.

    Raises:
        UserError: the observer does not read the feature space that is predicted, so it cannot go on from a prediction.
    """

    def __init__(self, hybrid: Hybrid, objective: UwmRla) -> None:
        super().__init__()
        self.hybrid, self.pixels, self.target = hybrid, objective.pixels, objective.target
        self.view, self.steps = self.target.residuals.view, objective.steps
        self.horizon = self.every = self.target.gap
        self.name = next(name for name, part in hybrid.objectives.items() if part is objective)
        reader = getattr(hybrid.observer, "encoder", None)
        if getattr(reader, "fingerprint", None) != getattr(self.encoder, "fingerprint", ""):
            raise UserError("a policy is a world model where its observer reads the frozen feature space that it predicts")

    @property
    def encoder(self) -> Encoder:
        return self.target.residuals.encoder

    def forward(self, batch: Batch) -> Question:
        raise NotImplementedError("the hybrid trains it")

    def paint(self, tokens: Float[Tensor, "B P E"]) -> Float[Tensor, "B 3 Y X"]:
        return self.pixels(tokens)

    def predict(
        self,
        batch: Batch,
        now: Float[Tensor, "B P E"],
        action: Float[Tensor, "B H A"],
        keep: Bool[Tensor, "B H"],
        generator: torch.Generator,
    ) -> Float[Tensor, "B P E"]:
        if not (keep.is_meta or bool(keep.all())):
            raise ValueError(f"this model looks {self.horizon} steps ahead, no less")
        key = f"{cast('Any', self.encoder).fingerprint}/now"
        seen = replace(batch, features={key: now[:, None, None].expand(-1, 1, batch.image.shape[2], -1, -1)}, image=batch.image[:, -1:])
        shape = (len(now), self.target.tokens, self.target.width)
        noise = now.new_zeros(shape) if now.is_meta else torch.randn(shape, generator=generator, device=now.device)
        playing = next(name for name, part in self.hybrid.objectives.items() if isinstance(part, Denoiser) and part.stream == "action")
        latent = self.hybrid.generate(seen, self.name, {self.name: noise}, self.steps, {playing: action})
        return self.target.residuals.decode(now, self.target.standard.back(latent))


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
        return UwmRla(target, cast("Freezable", self.pixels.build(sizes)), sizes.width, sizes.out, self.drop, self.steps)
