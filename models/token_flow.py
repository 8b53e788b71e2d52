"""A transformer over the tokens of a frame, modulated by the actions and a clock: FM-WM's network, and DINO-WM's one-shot form.

The baselines that RLA-WM 2026, arXiv:2605.07079, compares with; it publishes neither, so this is our design from what it says: as many
blocks as its own model has, the action vector of its own model, the present frame joined to the noisy one channel by channel.
"""

from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from wmzoo.errors import UserError
from wmzoo.interfaces import Blueprint, ConditionalFlow, Encoder, Sizes

from .parts import require_frozen
from .world import ActionVector, ClockVector, ModulatedBlock, grid_places


class TokenFlow(ConditionalFlow):
    """Tokens in, as many tokens out; zero at the start.

    Args:
        encoder: the frozen feature space.
        action: numbers of an action.
        width, depth, heads: of the blocks.
        timed: there is a noisy frame and a clock; otherwise the present frame alone is read, as by a regression.
    """

    def __init__(self, encoder: Encoder, action: int, width: int, depth: int, heads: int, timed: bool) -> None:
        super().__init__()
        self.encoder = encoder
        self.embed = nn.Linear(encoder.width * (2 if timed else 1), width)
        self.register_buffer("place", grid_places(encoder.grid, width), persistent=False)
        self.action = ActionVector(action, 64, width)
        self.clock = ClockVector(width) if timed else None
        self.blocks = nn.ModuleList(ModulatedBlock(width, heads) for _ in range(depth))
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, encoder.width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def condition(self, now: Float[Tensor, "B P E"], action: Float[Tensor, "B H A"], keep: Bool[Tensor, "B H"]) -> tuple[Tensor, Tensor]:
        """The present frame as it is, and the actions as a vector."""
        return now, self.action(action, keep)

    def velocity(
        self, noisy: Float[Tensor, "B P E"], clock: Float[Tensor, "B"], condition: tuple[Tensor, Tensor]
    ) -> Float[Tensor, "B P E"]:
        now, vector = condition
        if self.clock is not None:
            vector, now = vector + self.clock(clock), torch.cat([noisy, now], dim=-1)
        x = self.embed(now) + self.place
        for block in self.blocks:
            x = block(x, vector)
        return self.out(self.norm(x)).float()


@dataclass(frozen=True)
class Config(Blueprint):
    """Sizes of the network; 16 blocks of 1024 at paper scale, from the operations that RLA-WM's paper gives.

    Attributes:
        encoder: the frozen feature space.
        width, depth, heads: of the blocks.
        timed: False for a regression.
    """

    encoder: Blueprint
    width: int = 1024
    depth: int = 16
    heads: int = 16
    timed: bool = True

    def build(self, sizes: Sizes) -> TokenFlow:
        if self.width % self.heads or self.width % 4:
            raise UserError(f"a network of width {self.width} and {self.heads} heads: the width must divide by the heads and by 4")
        encoder = cast("Encoder", self.encoder.build(sizes))
        require_frozen(encoder, "world models")
        return TokenFlow(encoder, sizes.action, self.width, self.depth, self.heads, self.timed)
