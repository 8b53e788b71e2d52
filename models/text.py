"""How does an instruction become a token?  Bytes, two small transformer layers, a masked mean; no vocabulary files."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from wmzoo.errors import UserError
from wmzoo.interfaces import Blueprint, Sizes

from .attention import MLP, Attention, key_mask

BYTES = 384  # ByT5's table: padding, end, unknown, 256 bytes, 125 spare


class Layer(nn.Module):
    """Plain pre-norm attention and MLP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_attn, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn, self.mlp = Attention(width, heads), MLP(width, 4 * width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = x + self.attn(self.norm_attn(x), mask=mask)
        return x + self.mlp(self.norm_mlp(x))


class ByteText(nn.Module):
    """Byte tokens (0 is padding) to one vector.  Each distinct instruction of a batch is encoded once."""

    def __init__(self, width: int, depth: int, heads: int, longest: int) -> None:
        super().__init__()
        self.width = width
        self.bytes = nn.Embedding(BYTES, width)
        self.place = nn.Parameter(0.02 * torch.randn(longest, width))
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    @torch.compiler.disable
    def forward(self, text: Int[Tensor, "B N"]) -> Float[Tensor, "B 1 E"]:
        if text.is_meta:  # for counting alone: nothing is known to be equal
            distinct, which = text, torch.arange(len(text))
        else:
            distinct, which = text.unique(dim=0, return_inverse=True)
        if distinct.shape[1] > len(self.place):
            raise UserError(f"an instruction has {distinct.shape[1]} bytes, the reader of this arm takes {len(self.place)} at most")
        keep = distinct > 0
        x = self.bytes(distinct) + self.place[: distinct.shape[1]]
        for layer in self.layers:
            x = layer(x, key_mask(keep))
        pooled = (self.norm(x) * keep[..., None]).sum(dim=1) / keep.sum(dim=1, keepdim=True).clamp(min=1)
        return pooled[which][:, None]


@dataclass(frozen=True)
class Config(Blueprint):
    """The default reader of instructions."""

    width: int = 64
    depth: int = 2
    heads: int = 2
    longest: int = 96

    def build(self, sizes: Sizes) -> ByteText:
        if min(self.width, self.heads, self.longest) < 1 or self.width % self.heads:
            raise UserError(f"a reader of instructions of width {self.width} cannot have {self.heads} heads: choose a divisor of the width")
        return ByteText(self.width, self.depth, self.heads, self.longest)
