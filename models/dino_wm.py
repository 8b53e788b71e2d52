"""The next frame's tokens from a few past frames and their actions: DINO-WM's predictor, causal from frame to frame.

Zhou et al. 2024, DINO-WM: World Models on Pre-trained Visual Features enable Zero-shot Planning, arXiv:2411.04983.
Every patch token carries its frame's action and proprioception: [patch | state | action] on channels.  Tokens see all tokens of
their own frame and of the frames before it.
We differ: the place table starts at a deviation of 0.02 (published: 1, which dominates early); see `place`.  There is no dropout
(published: 0.1 in every layer).  At paper scale it is trained as our other world models, AdamW 1e-4 and 100,000 steps of 64 windows
(published: AdamW 5e-4, 100 epochs in batches of 32).
"""

from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu

from wmzoo.errors import UserError
from wmzoo.interfaces import Blueprint, Encoder, Sizes
from wmzoo.kernels import attend

from .parts import require_frozen


class Layer(nn.Module):
    """Pre-norm attention with an inner width of its own and no bias on queries, keys and values; GELU."""

    def __init__(self, width: int, heads: int, head: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attn, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * heads * head, bias=False), nn.Linear(heads * head, width)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "B N D"], mask: Tensor) -> Float[Tensor, "B N D"]:
        q, k, v = self.qkv(self.norm_attn(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + self.out(attend(q, k, v, mask).transpose(1, 2).flatten(2))
        return x + self.down(gelu(self.up(self.norm_mlp(x))))


class Predictor(nn.Module):
    """Tokens of T frames to those of the T frames that follow each, at most `frames`.

    Args:
        encoder: the frozen feature space.
        state, action: numbers of proprioception and of all actions between two frames.
        extra: numbers that each of the two becomes on every patch; `proprio` False leaves the state out.
        frames: of the longest sequence.
        depth, heads, head, hidden: of the layers; `head` is the width of a head.
        place: deviation with which the place table starts.
    """

    past: Tensor

    def __init__(
        self, encoder: Encoder, state: int, action: int, extra: int, proprio: bool, frames: int, depth: int, heads: int, head: int,
        hidden: int, place: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.encoder, self.frames, self.patches = encoder, frames, encoder.grid[0] * encoder.grid[1]
        self.state = nn.Linear(state, extra) if proprio else None
        self.action = nn.Linear(action, extra)
        self.extra = extra * (2 if proprio else 1)
        width = encoder.width + self.extra
        self.place = nn.Parameter(place * torch.randn(frames * self.patches, width))
        self.layers = nn.ModuleList(Layer(width, heads, head, hidden) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        frame = torch.arange(frames).repeat_interleave(self.patches)
        self.register_buffer("past", (frame[:, None] >= frame[None])[None, None], persistent=False)

    def embed(
        self, tokens: Float[Tensor, "B T P E"], state: Float[Tensor, "B T S"], action: Float[Tensor, "B T C"]
    ) -> Float[Tensor, "B T P D"]:
        """Every patch with what its frame's robot is and does."""
        extra = [self.action(action)] if self.state is None else [self.state(state), self.action(action)]
        return torch.cat([tokens, torch.cat(extra, dim=-1)[:, :, None].expand(-1, -1, self.patches, -1)], dim=-1)

    def forward(self, embedded: Float[Tensor, "B T P D"]) -> Float[Tensor, "B T P D"]:
        n = embedded.shape[1] * self.patches
        x = embedded.flatten(1, 2) + self.place[:n]
        for layer in self.layers:
            x = layer(x, self.past[..., :n, :n])
        return self.norm(x).unflatten(1, (-1, self.patches)).float()


@dataclass(frozen=True)
class Config(Blueprint):
    """DINO-WM's predictor; the defaults are the paper's, behind DINOv2-S at 196 pixels.

    Attributes:
        encoder: the frozen feature space.
        every: control steps between two frames.
        frames: of the past that it looks at.
        extra: numbers that state and actions become on every patch.
        proprio: the state is read too.
        depth, heads, head, hidden: of the layers.
        place: deviation with which the place table starts; 1 is the published code's.
    """

    encoder: Blueprint
    every: int = 5
    frames: int = 3
    extra: int = 10
    proprio: bool = True
    depth: int = 6
    heads: int = 16
    head: int = 64
    hidden: int = 2048
    place: float = 0.02

    def build(self, sizes: Sizes) -> Predictor:
        if min(self.every, self.frames, self.extra, self.depth) < 1:
            raise UserError("a predictor needs at least one step between frames, one frame, one number of action and one layer")
        encoder = cast("Encoder", self.encoder.build(sizes))
        require_frozen(encoder, "world models")
        return Predictor(
            encoder, sizes.state, self.every * sizes.action, self.extra, self.proprio, self.frames, self.depth, self.heads, self.head,
            self.hidden, self.place,
        )  # fmt: skip
