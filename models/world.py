"""What do world models share?  A reader of action chunks, blocks that a vector modulates, places of a grid.

RLA-WM 2026, arXiv:2605.07079 (GRU over a chunk of any length; blocks); Peebles and Xie 2023, DiT, arXiv:2212.09748 (adaLN-zero).
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import gelu

from .attention import Attention, sinusoid


class ActionVector(nn.Module):
    """A chunk of any length as one vector: two layers for each action, then the last state of a GRU; 0 where no action is known.

    Args:
        action: numbers of an action.
        hidden: numbers of the two layers; `width` of the vector.
    """

    def __init__(self, action: int, hidden: int, width: int) -> None:
        super().__init__()
        self.each = nn.Sequential(nn.Linear(action, hidden), nn.GELU(), nn.Linear(hidden, hidden))
        self.along = nn.GRU(hidden, width, batch_first=True)

    def forward(self, action: Float[Tensor, "B H A"], keep: Bool[Tensor, "B H"]) -> Float[Tensor, "B C"]:
        """The vectors.

        Raises:
            ValueError: there is not one flag for each action; nothing is broadcast.
        """
        if keep.shape != action.shape[:2]:
            raise ValueError(f"actions {tuple(action.shape)} have {tuple(action.shape[:2])} flags, one for each, not {tuple(keep.shape)}")
        if action.is_meta:  # the fused GRU has no kernel there; its operations are those of its two products
            states = _counted(self.along, self.each(action))
        else:
            with torch.autocast(action.device.type, enabled=False):
                states = self.along(self.each(torch.where(keep[..., None], action, 0.0).float()))[0]
        length = keep.sum(dim=1)
        last = (torch.arange(keep.shape[1], device=keep.device) == length[:, None] - 1).to(states.dtype)
        return torch.einsum("bh,bhc->bc", last, states)  # no row is chosen where nothing is kept


def _counted(gru: nn.GRU, x: Tensor) -> Tensor:
    inner = x @ gru.weight_ih_l0.T + gru.bias_ih_l0
    outer = inner[..., : gru.hidden_size] @ gru.weight_hh_l0.T + gru.bias_hh_l0
    return (inner + outer)[..., : gru.hidden_size]


class ModulatedBlock(nn.Module):
    """adaLN-zero: attention over the tokens, over a memory if there is one, and GELU; the identity at the start but for the memory.

    Args:
        width, heads: heads must divide the width.
        projected: a linear layer stands before the modulation (RLA-WM's condition stage).
        remembers: attends to a memory of the same width, with norms of its own and no gate (RLA-WM's flow stage).
    """

    def __init__(self, width: int, heads: int, projected: bool = False, remembers: bool = False) -> None:
        super().__init__()
        self.norm_attn, self.norm_mlp = nn.LayerNorm(width, elementwise_affine=False), nn.LayerNorm(width, elementwise_affine=False)
        self.attn = Attention(width, heads)
        self.cross = Attention(width, heads, width) if remembers else None
        self.norm_cross = nn.LayerNorm(width) if remembers else None
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.before = nn.Linear(width, width) if projected else nn.Identity()
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor, memory: tuple[Tensor, Tensor] | None = None) -> Tensor:
        shifts = self.modulation(nn.functional.silu(self.before(condition)))[:, None].chunk(6, dim=-1)
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = shifts
        x = x + gate_a * self.attn(self.norm_attn(x) * (1 + scale_a) + shift_a)
        if self.cross is not None and self.norm_cross is not None:
            x = x + self.cross(self.norm_cross(x), memory)
        h = self.norm_mlp(x) * (1 + scale_m) + shift_m
        return x + gate_m * self.down(gelu(self.up(h)))


class ClockVector(nn.Module):
    """A clock as a vector: sinusoid of 1000 t, two layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, clock: Float[Tensor, "B"]) -> Float[Tensor, "B C"]:
        return self.body(sinusoid(1000 * clock, 256, last=128).to(self.body[0].weight.dtype))


def grid_places(grid: tuple[int, int], width: int) -> Float[Tensor, "P D"]:
    """Fixed sines and cosines of the row and of the column, a quarter of the width each."""
    row, column = (sinusoid(torch.arange(side, dtype=torch.float32), width // 2, last=width / 4) for side in grid)
    return torch.cat([row[:, None].expand(-1, grid[1], -1), column[None].expand(grid[0], -1, -1)], dim=-1).flatten(0, 1)


def xavier(network: nn.Module) -> None:
    """The authors' start: every matrix uniform after Glorot, every bias 0; before anything is set to zero."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
