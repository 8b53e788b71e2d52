"""What does a small causal video model look like?  A transformer over the tokens of frames, blind to later frames, a clock for each.

In the manner of Huang et al. 2025, Vid2World, arXiv:2505.14357, which makes a causal world model of a pretrained video network;
Chen et al. 2024, Diffusion Forcing, arXiv:2407.01392 (a clock for each frame); Peebles and Xie 2023, DiT, arXiv:2212.09748.
The actions before a frame are added to what its clock says; a frame whose actions are dropped, and the first one, hear none.
`causal_taps` is Vid2World's transfer of a temporal convolution with taps (-1, 0, +1) to taps (-2, -1, 0).
"""

from dataclasses import dataclass
from typing import Literal, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import gelu, silu

from wmzoo.errors import UserError, unknown
from wmzoo.interfaces import Blueprint, Encoder, Sizes
from wmzoo.kernels import attend

from .attention import Attention, sinusoid
from .parts import require_frozen
from .world import ClockVector, grid_places

Transfer = Literal["shift", "masked", "extrapolative"]
Past = list[tuple[Tensor, Tensor]]  # keys and values of the frames so far, in each block


def causal_taps(weight: Float[Tensor, "o i *rest"], how: Transfer) -> Float[Tensor, "o i *rest"]:
    """A kernel of three taps over time (axis 2), made causal; the bias stays.

    Args:
        weight: taps at -1, 0 and +1.
        how: "shift" uses them at -2, -1 and 0; "masked" leaves +1 out; "extrapolative" writes the frame after as
            z_{+1} = 2 z_0 - z_{-1}, which is exact where frames change linearly.

    Returns:
        Taps at -2, -1 and 0.

    Raises:
        UserError: another number of taps, or an unknown way.
    """
    if weight.ndim < 3 or weight.shape[2] != 3:
        raise UserError(f"a temporal convolution of three taps is asked for, this kernel is {tuple(weight.shape)}")
    before, here, after = weight.unbind(dim=2)
    ways = {
        "shift": (before, here, after),
        "masked": (torch.zeros_like(before), before, here),
        "extrapolative": (torch.zeros_like(before), before - after, here + 2 * after),
    }
    if how not in ways:
        raise unknown("transfer", how, ways)
    return torch.stack(ways[how], dim=2)


class FrameBlock(nn.Module):
    """adaLN-zero with a vector for each frame; tokens look at their own and at earlier frames.  The identity at the start."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_attn, self.norm_mlp = (nn.LayerNorm(width, eps=1e-6, elementwise_affine=False) for _ in range(2))
        self.attn = Attention(width, heads)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(
        self, x: Float[Tensor, "B T P D"], vector: Float[Tensor, "B T D"], mask: Tensor | None, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Float[Tensor, "B T P D"], tuple[Tensor, Tensor]]:
        """The tokens, and keys and values of all frames so far."""
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.modulation(silu(vector))[:, :, None].chunk(6, dim=-1)
        h = (self.norm_attn(x) * (1 + scale_a) + shift_a).flatten(1, 2)
        q, k, v = self.attn.split(self.attn.qkv(h), 3)
        if past is not None:
            k, v = torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2)
        seen = self.attn.out(attend(q, k, v, mask).transpose(1, 2).flatten(2))
        x = x + gate_a * seen.unflatten(1, x.shape[1:3])
        h = self.norm_mlp(x) * (1 + scale_m) + shift_m
        return x + gate_m * self.down(gelu(self.up(h))), (k, v)


class CausalVideo(nn.Module):
    """Noisy frames to what their noise is asked for; zero at the start.

    Args:
        encoder: the frozen codec.
        action: numbers of an action; `every` of them lie between two frames.
        width, depth, heads: of the blocks.
    """

    place: Tensor

    def __init__(self, encoder: Encoder, action: int, every: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.encoder, self.every = encoder, every
        self.embed = nn.Linear(encoder.width, width)
        self.register_buffer("place", grid_places(encoder.grid, width), persistent=False)
        self.clock = ClockVector(width)
        self.action = nn.Sequential(nn.Linear(every * action, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(FrameBlock(width, heads) for _ in range(depth))
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, encoder.width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(
        self,
        noisy: Float[Tensor, "B T P E"],
        clock: Float[Tensor, "B T"],
        action: Float[Tensor, "B T C"],
        keep: Bool[Tensor, "B T"],
        past: Past | None = None,
    ) -> tuple[Float[Tensor, "B T P E"], Past]:
        """What every frame is asked for, and the keys and values of all frames so far.

        Args:
            noisy: frames; with a `past` those that follow it.
            clock: of each frame.
            action: those that lead to each frame; where `keep` is False they are not heard.
            past: from an earlier call; its frames are not computed again.

        Raises:
            ValueError: the frames are not the codec's, clock, action and keep are not of them, or more than one frame follows a past.
        """
        each, frame = noisy.shape[:2], (len(self.place), self.embed.in_features)
        if noisy.shape[2:] != frame:
            raise ValueError(f"a frame is {frame[0]} tokens of {frame[1]} numbers, not {tuple(noisy.shape[2:])}")
        if not clock.shape == keep.shape == action.shape[:2] == each:
            told = ", ".join(f"{name} {tuple(x.shape)}" for name, x in {"clock": clock, "keep": keep, "action": action}.items())
            raise ValueError(f"{each[0]} windows of {each[1]} frames have a clock, a keep and a row of actions for each frame, not {told}")
        first = 0 if past is None else past[0][0].shape[2] // noisy.shape[2]
        number = torch.arange(first, first + noisy.shape[1], device=noisy.device)
        when = sinusoid(number.float(), self.place.shape[1], last=self.place.shape[1] / 2)[:, None]
        x = self.embed(noisy) + self.place + when
        heard = torch.where(keep[..., None], self.action(torch.where(keep[..., None], action, 0.0)), 0.0)
        vector = self.clock(clock.flatten()).unflatten(0, clock.shape) + heard
        mask = causal(noisy.shape[1], noisy.shape[2], noisy.device) if past is None and noisy.shape[1] > 1 else None
        if past is not None and noisy.shape[1] != 1:
            raise ValueError(f"one frame follows a past at a time, not {noisy.shape[1]}")
        kept: Past = []
        for i, block in enumerate(self.blocks):
            x, memory = block(x, vector, mask, None if past is None else past[i])
            kept.append(memory)
        return self.out(self.norm(x)).float(), kept


def causal(frames: int, tokens: int, device: torch.device) -> Bool[Tensor, "1 1 N N"]:
    """True where a token's frame is not earlier than the frame it looks at."""
    frame = torch.arange(frames, device=device).repeat_interleave(tokens)
    return (frame[:, None] >= frame[None, :])[None, None]


@dataclass(frozen=True)
class Config(Blueprint):
    """The causal video model.

    Attributes:
        encoder: models/codec.py, frozen.
        every: control steps between frames.
        width, depth, heads: of the blocks.
    """

    encoder: Blueprint
    every: int = 4
    width: int = 1024
    depth: int = 16
    heads: int = 16

    def build(self, sizes: Sizes) -> CausalVideo:
        if self.width % self.heads or self.width % 4:
            raise UserError(f"a network of width {self.width} and {self.heads} heads: the width must divide by the heads and by 4")
        encoder = cast("Encoder", self.encoder.build(sizes))
        require_frozen(encoder, "video models")
        return CausalVideo(encoder, sizes.action, self.every, self.width, self.depth, self.heads)
