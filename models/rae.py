"""Diffusion in a feature space needs a wide head: RAE's DiT-DH, adapted to a present frame and actions.

Zheng et al. 2025, Diffusion Transformers with Representation Autoencoders, arXiv:2510.11690; RLA-WM 2026, arXiv:2605.07079, adapts it as
its weakest baseline.
    s = SiLU(e(t) + trunk(x, SiLU(e(t) + e(y)))), y a class or here the actions    wmzoo.models.rae.WideHead.trunk_output
    v = head(x, s), every token modulated by its own s   wmzoo.models.rae.WideHead.velocity
RMS norms, SwiGLU of 2/3 of 4 widths, rotary positions in two dimensions.  The head must be at least as wide as a token to fit noise.
The adaptation: the present frame is joined to the noisy one, channel by channel, at the trunk's input alone; no class.
"""

from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import rms_norm, silu

from wmzoo.errors import UserError
from wmzoo.interfaces import Blueprint, ConditionalFlow, Encoder, Sizes
from wmzoo.kernels import attend

from .parts import require_frozen
from .world import ActionVector, grid_places


class Rotary(nn.Module):
    """Turns pairs of channels by angles of the row (first half of a head) and of the column (second half)."""

    cosine: Tensor
    sine: Tensor

    def __init__(self, head: int, grid: tuple[int, int]) -> None:
        super().__init__()
        rate = 10_000 ** -(torch.arange(0, head // 2, 2) / (head // 2))
        row, column = (torch.arange(side, dtype=torch.float32)[:, None] * rate for side in grid)
        angle = torch.cat([row[:, None].expand(-1, grid[1], -1), column[None].expand(grid[0], -1, -1)], dim=-1).flatten(0, 1)
        self.register_buffer("cosine", angle.cos().repeat_interleave(2, dim=-1), persistent=False)
        self.register_buffer("sine", angle.sin().repeat_interleave(2, dim=-1), persistent=False)

    def forward(self, x: Float[Tensor, "B h P C"]) -> Float[Tensor, "B h P C"]:
        even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
        return (x * self.cosine + torch.stack([-odd, even], dim=-1).flatten(-2) * self.sine).to(x.dtype)


class RmsNorm(nn.RMSNorm):
    """With the weight in the precision of what it scales: torch has no fused form for two."""

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class Block(nn.Module):
    """adaLN-zero with RMS norms, rotary attention and SwiGLU; the condition is one vector, or one for each token."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        hidden = int(4 * width * 2 / 3)
        self.heads = heads
        self.norm_attn, self.norm_mlp = RmsNorm(width, eps=1e-6), RmsNorm(width, eps=1e-6)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.gate_up, self.down = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Float[Tensor, "B P D"], condition: Float[Tensor, "B #P D"], rotary: Rotary) -> Float[Tensor, "B P D"]:
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.modulation(silu(condition)).chunk(6, dim=-1)
        h = self.norm_attn(x) * (1 + scale_a) + shift_a
        q, k, v = self.qkv(h).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + gate_a * self.out(attend(rotary(q), rotary(k), v, None).transpose(1, 2).flatten(2))
        gate, up = self.gate_up(self.norm_mlp(x) * (1 + scale_m) + shift_m).chunk(2, dim=-1)
        return x + gate_m * self.down(silu(gate) * up)


class FourierClock(nn.Module):
    """A clock as a vector: fixed random frequencies, sine and cosine, two layers.  The clock is RAE's, where 1 is noise."""

    def __init__(self, width: int, frequencies: int = 256) -> None:
        super().__init__()
        self.frequencies = nn.Parameter(torch.randn(frequencies), requires_grad=False)
        self.body = nn.Sequential(nn.Linear(2 * frequencies, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, clock: Float[Tensor, "B"]) -> Float[Tensor, "B C"]:
        angle = 2 * torch.pi * clock[:, None] * self.frequencies
        return self.body(torch.cat([angle.sin(), angle.cos()], dim=-1))


class WideHead(ConditionalFlow):
    """Trunk and wide head.

    Args:
        channels, grid: of the frame's tokens.
        action: numbers of an action; 0 is RAE itself, with `classes` and no present frame.
        classes: of images; 0 is none.
        width, depth, heads: of the trunk; the head has `head_width`, `head_depth`, `head_heads`.
    """

    def __init__(
        self, channels: int, grid: tuple[int, int], action: int, classes: int, width: int, depth: int, heads: int, head_width: int,
        head_depth: int, head_heads: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.trunk_in = nn.Linear(channels * (2 if action else 1), width)
        self.place = nn.Parameter(grid_places(grid, width)[None], requires_grad=False)
        self.clock = FourierClock(width)
        self.classes = nn.Embedding(classes + 1, width) if classes else None  # the last one is "any"
        self.action = ActionVector(action, 64, width) if action else None
        self.trunk = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.bridge = nn.Linear(width, head_width)
        self.head_in = nn.Linear(channels, head_width)
        self.head = nn.ModuleList(Block(head_width, head_heads) for _ in range(head_depth))
        self.norm, self.modulation = RmsNorm(head_width, eps=1e-6), nn.Linear(head_width, 2 * head_width)
        self.out = nn.Linear(head_width, channels)
        self.trunk_rotary, self.head_rotary = Rotary(width // heads, grid), Rotary(head_width // head_heads, grid)
        for layer in (self.modulation, self.out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def condition(
        self, now: Float[Tensor, "B P E"], action: Float[Tensor, "B H A"], keep: Bool[Tensor, "B H"]
    ) -> tuple[Tensor | None, Tensor]:
        assert self.action is not None
        return now, self.action(action, keep)

    def of_class(self, label: Int[Tensor, "B"]) -> tuple[None, Tensor]:
        """The condition of RAE itself."""
        assert self.classes is not None
        return None, self.classes(label)

    def trunk_output(self, x: Tensor, time: Float[Tensor, "B C"], condition: tuple[Tensor | None, Tensor]) -> Float[Tensor, "B P C"]:
        """What modulates the head, token by token."""
        now, vector = condition
        c = silu(time + vector)[:, None]
        s = self.trunk_in(x if now is None else torch.cat([x, now], dim=-1)) + self.place
        for block in self.trunk:
            s = block(s, c, self.trunk_rotary)
        return silu(time[:, None] + s)

    def velocity(
        self, noisy: Float[Tensor, "B P E"], clock: Float[Tensor, "B"], condition: tuple[Tensor | None, Tensor]
    ) -> Float[Tensor, "B P E"]:
        s = self.bridge(self.trunk_output(noisy, self.clock(1 - clock), condition))
        x = self.head_in(noisy)
        for block in self.head:
            x = block(x, s, self.head_rotary)
        shift, scale = self.modulation(silu(s)).chunk(2, dim=-1)
        return self.out(self.norm(x) * (1 + scale) + shift).float()


class RaeFlow(WideHead):
    """The adaptation: in a frozen feature space, given a present frame and actions."""

    def __init__(self, encoder: Encoder, action: int, **sizes: int) -> None:
        super().__init__(encoder.width, encoder.grid, action, 0, **sizes)
        self.encoder = encoder


@dataclass(frozen=True)
class Config(Blueprint):
    """RAE adapted to a present frame and actions; the defaults are the zoo's reading of RLA-WM's baseline.

    Attributes:
        encoder: the frozen feature space.
        width, depth, heads: of the trunk.
        head_width, head_depth, head_heads: of the head; its width must be at least that of a token.
    """

    encoder: Blueprint
    width: int = 1024
    depth: int = 14
    heads: int = 16
    head_width: int = 2048
    head_depth: int = 2
    head_heads: int = 16

    def build(self, sizes: Sizes) -> RaeFlow:
        for width, heads in ((self.width, self.heads), (self.head_width, self.head_heads)):
            if width % (4 * heads):
                raise UserError(f"rotary positions in two dimensions: a width of {width} must divide by 4 times its {heads} heads")
        encoder = cast("Encoder", self.encoder.build(sizes))
        require_frozen(encoder, "world models")
        if self.head_width < encoder.width:
            raise UserError(f"a head of width {self.head_width} cannot fit noise on tokens of {encoder.width}: it must be at least as wide")
        trunk = {"width": self.width, "depth": self.depth, "heads": self.heads}
        head = {"head_width": self.head_width, "head_depth": self.head_depth, "head_heads": self.head_heads}
        return RaeFlow(encoder, sizes.action, **trunk, **head)
