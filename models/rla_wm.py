"""The world model in residual latents: the present and the actions are read once, the latent is denoised step by step.

RLA-WM 2026, arXiv:2605.07079.
    c_a = last state of a GRU over the actions                            wmzoo.models.world.ActionVector
    m   = blocks over the tokens of s_t, modulated by c_a; once           wmzoo.models.rla_wm.LatentFlow.condition
    v   = blocks over the K latent tokens, modulated by the clock, each attending to m; every step   wmzoo.models.rla_wm.LatentFlow.velocity
We differ: the K slots have a place table (`places`; the published network knows a slot by its values alone), and keys and values of
the memory are kept between steps.
"""

from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from wmzoo.errors import UserError
from wmzoo.interfaces import Blueprint, ConditionalFlow, Residuals, Sizes

from .world import ActionVector, ClockVector, ModulatedBlock, xavier

Kept = list[tuple[Tensor, Tensor]]


class LatentFlow(ConditionalFlow):
    """Condition stage and flow stage.

    Args:
        residuals: the frozen autoencoder; where the width of its feature space is not that of the blocks, tokens are projected.
        action: numbers of an action.
        width, heads: of the blocks; `before` and `after` are how many the two stages have.
        places: the slots have a place table.
    """

    def __init__(self, residuals: Residuals, action: int, width: int, before: int, after: int, heads: int, places: bool) -> None:
        super().__init__()
        seen, latent = residuals.encoder.width, residuals.width
        self.action = ActionVector(action, 64, width)
        self.project = nn.Linear(seen, width) if seen != width else nn.Identity()
        self.before = nn.ModuleList(ModulatedBlock(width, heads, projected=True) for _ in range(before))
        self.clock = ClockVector(width)
        self.embed = nn.Linear(latent, width)
        self.place = nn.Parameter(0.02 * torch.randn(residuals.tokens, width)) if places else None
        self.after = nn.ModuleList(ModulatedBlock(width, heads, remembers=True) for _ in range(after))
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, latent)
        self._start()
        self.residuals = residuals  # it has started already

    def _start(self) -> None:
        """As published: Glorot's weights; the clock's from N(0, .02); gates and the output are 0."""
        xavier(self)
        for layer in (self.clock.body[0], self.clock.body[2]):
            nn.init.normal_(cast("nn.Linear", layer).weight, std=0.02)
        for part in (self.out, *(block.modulation for block in self.modules() if isinstance(block, ModulatedBlock))):
            nn.init.zeros_(cast("nn.Linear", part).weight)
            nn.init.zeros_(cast("nn.Linear", part).bias)

    def condition(self, now: Float[Tensor, "B P E"], action: Float[Tensor, "B H A"], keep: Bool[Tensor, "B H"]) -> Kept:
        """Keys and values of the condition, for each block of the flow stage."""
        vector, x = self.action(action, keep), self.project(now)
        for block in self.before:
            x = block(x, vector)
        return [cast("ModulatedBlock", block).cross.remember(x) for block in self.after]  # pyright: ignore

    def velocity(self, noisy: Float[Tensor, "B K Z"], clock: Float[Tensor, "B"], condition: Kept) -> Float[Tensor, "B K Z"]:
        """From noise to data, at a clock."""
        vector, x = self.clock(clock), self.embed(noisy)
        if self.place is not None:
            x = x + self.place
        for block, kept in zip(self.after, condition, strict=True):
            x = block(x, vector, kept)
        return self.out(self.norm(x)).float()


@dataclass(frozen=True)
class Config(Blueprint):
    """RLA-WM's network; the defaults are the paper's on ManiSkill.

    Attributes:
        residuals: the frozen autoencoder whose latents are predicted.
        width, heads: of the blocks.
        before, after: blocks of the condition stage and of the flow stage.
        places: the slots have a place table; the published network has none.
    """

    residuals: Blueprint
    width: int = 1024
    before: int = 8
    after: int = 8
    heads: int = 16
    places: bool = True

    def build(self, sizes: Sizes) -> LatentFlow:
        if self.width % self.heads:
            raise UserError(f"a world model of width {self.width} cannot have {self.heads} heads: choose a divisor of the width")
        residuals = cast("Residuals", self.residuals.build(sizes))
        residuals.freeze()
        return LatentFlow(residuals, sizes.action, self.width, self.before, self.after, self.heads, self.places)
