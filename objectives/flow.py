"""Flow matching on the action chunk: the policy of GR00T N1 and pi0, and the trunk's own task in most arms.

Lipman et al. 2023, Flow Matching for Generative Modeling, arXiv:2210.02747;
Bjorck et al. 2025, GR00T N1, arXiv:2503.14734; Black et al. 2024, pi0, arXiv:2410.24164.
    x_t = (1 - t) eps + t A                          wmzoo.clock.interpolate
    v   = A - eps                                    wmzoo.clock.velocity
    L   = mean over valid numbers of (V(x_t, t) - v)^2   flow_loss
    t   ~ 0.999 (1 - b), b ~ Beta(1.5, 1)            wmzoo.clock.draw
    A   <- A + V / K, t = 0, 1/K, ..., (K-1)/K       wmzoo.sample.euler
We differ: each window's loss is the mean over its own valid numbers, so long chunks do not weigh more ("window"); GR00T's
mean over all valid numbers of the batch is `reduction="element"`.  pi0 also averages over padded numbers; we never do.
FLARE prints the velocity with the opposite sign, which cannot be integrated forward: we follow its pseudocode.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from wmzoo.batch import Batch
from wmzoo.clock import SAMPLERS, draw, interpolate, velocity
from wmzoo.errors import unknown
from wmzoo.interfaces import Blueprint, Denoiser, Sizes
from wmzoo.question import Hidden, Question, Score, Stream
from wmzoo.sample import INTEGRATORS, integrate
from wmzoo.shapes import checked

Reduction = Literal["window", "element"]


@checked
def flow_loss(prediction: Float[Tensor, "B H A"], target: Float[Tensor, "B H A"], mask: Bool[Tensor, "B H A"]) -> Float[Tensor, "B"]:
    """Squared error averaged over the valid numbers of each window; 0 where there is none.

    Args:
        prediction: the network's velocity.
        target: data minus noise; what stands under a False of the mask is never read, not even NaN.

    Returns:
        One number for each window, in squared units of the normalised action.

    Raises:
        TypeCheckError: the three differ in shape; nothing is broadcast.
    """
    error = torch.where(mask, prediction - torch.where(mask, target, 0.0), 0.0)
    return error.square().sum(dim=(1, 2)) / mask.sum(dim=(1, 2)).clamp(min=1)


class Flow(Denoiser):
    """Generates the stream "action" by following a learned velocity from noise.

    Args:
        encode: (noisy chunk, clock, embodiment) -> tokens.
        decode: (final tokens, embodiment) -> velocity.
        sampler: how training clocks are drawn.
        integrator: how the velocity is followed when the policy plays.
        reduction: "window" or GR00T's "element".
        blind: streams that actions may not look at.
        hide: nobody looks at the actions of a window without recorded actions (PAD); otherwise they are noise at t = 0.
    """

    stream = "action"

    def __init__(
        self, encode: nn.Module, decode: nn.Module, sampler: str, integrator: str, reduction: Reduction, blind: frozenset[str], hide: bool
    ) -> None:
        super().__init__()
        for kind, name, known in (("clock sampler", sampler, SAMPLERS), ("integrator", integrator, INTEGRATORS)):
            if name not in known:
                raise unknown(kind, name, known)
        self.encode, self.decode = encode, decode
        self.sampler, self.integrator, self.reduction, self.blind, self.hide = sampler, integrator, reduction, blind, hide

    def forward(self, batch: Batch) -> Question:
        mask = batch.action_mask
        action = torch.where(mask, batch.action, 0.0)
        noise = torch.randn_like(action)
        clock = torch.where(batch.has_action, draw(self.sampler, len(batch), action.device), 0.0)
        recorded = batch.has_action[:, None, None]
        noisy = torch.where(recorded, interpolate(noise, action, clock), noise)

        def score(hidden: Hidden) -> dict[str, Score]:
            loss = flow_loss(self.read(hidden, batch), velocity(noise, action), mask)
            weight = batch.has_action if self.reduction == "window" else mask.sum(dim=(1, 2)).to(loss.dtype)
            return {"velocity": Score(loss, weight)}

        streams = self.embed(noisy, clock, batch)
        if self.hide:
            keep = batch.has_action[:, None].expand(-1, noisy.shape[1])
            streams = {self.stream: replace(streams[self.stream], keep=keep)}
        return Question(streams, frozenset(), score)

    def embed(self, noisy: Tensor, clock: Tensor, batch: Batch) -> dict[str, Stream]:
        return {self.stream: Stream(self.encode(noisy, clock, batch.embodiment), clock, blind=self.blind)}

    def read(self, hidden: Hidden, batch: Batch) -> Tensor:
        return self.decode(hidden.final[self.stream], batch.embodiment).float()

    def sample(self, predict: Callable[[Tensor, Tensor], Tensor], noise: Tensor, steps: int) -> Tensor:
        return integrate(self.integrator, predict, noise, steps)

    @property
    def rule(self) -> str:
        return f"velocity, {self.integrator}"


@dataclass(frozen=True)
class Config(Blueprint):
    """Flow matching on actions.

    Attributes:
        encode, decode: the layers between actions and trunk.
        sampler: groot, legacy_n15, pi0, uniform or logit_normal.
        integrator: euler or heun.
        reduction: window (default) or element (GR00T).
        blind: streams that actions may not look at.
        hide: nobody looks at the actions of a window without recorded actions.
    """

    encode: Blueprint
    decode: Blueprint
    sampler: str = "groot"
    integrator: str = "euler"
    reduction: Reduction = "window"
    blind: tuple[str, ...] = ()
    hide: bool = False

    def build(self, sizes: Sizes) -> Flow:
        networks = self.encode.build(sizes), self.decode.build(sizes)
        return Flow(*networks, self.sampler, self.integrator, self.reduction, frozenset(self.blind), self.hide)
