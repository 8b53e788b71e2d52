"""What does Diffusion Policy's transformer look like, and how does it play in a hybrid?

Chi et al. 2023, Diffusion Policy, arXiv:2303.04137 (TransformerForDiffusion of the public code, names included).
Actions are tokens that look back at each other and across at [diffusion index, frame 0, frame 1, ...]; action i sees the index
and the frames up to i.  8,975,362 parameters for 10 actions of 2 numbers, 2 frames of 66 numbers (64 of the image, 2 of
the state), 8 layers, 4 heads, width 256: the public Push-T configuration.
torch's own decoder layers are used, as in the reference: nothing is tapped here, and the names are the checkpoint's (whose masks
"mask" and "memory_mask" and empty "_dummy_variable" are not parameters here).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from wmzoo.interfaces import Blueprint, Sizes
from wmzoo.shapes import checked

from .unet1d import ChunkTrunk, step_sinusoid


def later(actions: int) -> Bool[Tensor, "H H"]:
    """True where an action may not look: at those behind it."""
    return torch.ones(actions, actions, dtype=torch.bool).triu(diagonal=1)


def unseen(actions: int, frames: int) -> Bool[Tensor, "H M"]:
    """True where action i may not look at the memory [index, frame 0, ...]: at frames behind the i-th."""
    return torch.ones(actions, 1 + frames, dtype=torch.bool).triu(diagonal=2)


class DiffusionTransformer(nn.Module):
    """Predicts the noise in a chunk of actions, given a diffusion index and what is known of each frame.

    Args:
        action, horizon: numbers per action, and the longest chunk.
        condition, frames: numbers per frame, and frames.
        width, depth, heads: of the decoder.
        dropout: inside attention and feed-forward; embeddings have none.
    """

    mask: Tensor
    memory_mask: Tensor

    def __init__(self, action: int, horizon: int, condition: int, frames: int, width: int, depth: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.input_emb, self.cond_obs_emb = nn.Linear(action, width), nn.Linear(condition, width)
        self.pos_emb = nn.Parameter(torch.zeros(1, horizon, width))
        self.cond_pos_emb = nn.Parameter(torch.zeros(1, 1 + frames, width))
        self.encoder = nn.Sequential(nn.Linear(width, 4 * width), nn.Mish(), nn.Linear(4 * width, width))
        layer = nn.TransformerDecoderLayer(width, heads, 4 * width, dropout, "gelu", batch_first=True, norm_first=True)
        self.decoder = nn.TransformerDecoder(layer, depth)
        self.ln_f, self.head = nn.LayerNorm(width), nn.Linear(width, action)
        self.register_buffer("mask", later(horizon), persistent=False)
        self.register_buffer("memory_mask", unseen(horizon, frames), persistent=False)
        self._start()

    def _start(self) -> None:
        """All matrices and tables from 0.02 N(0, 1), biases 0, norms the identity."""
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    @checked
    def forward(self, noisy: Float[Tensor, "B H A"], index: Int[Tensor, "B"], condition: Float[Tensor, "B T C"]) -> Float[Tensor, "B H A"]:
        """The predicted noise, without unit.

        Raises:
            TypeCheckError: the three differ in the number of windows.
            ValueError: another number of frames than the network was built for, or a longer chunk.
        """
        (horizon, memory), (actions, frames) = self.memory_mask.shape, (noisy.shape[1], condition.shape[1])
        if frames + 1 != memory or actions > horizon:
            raise ValueError(f"this transformer takes {memory - 1} frames and up to {horizon} actions, not {frames} and {actions}")
        known = self.cond_obs_emb(condition)
        step = step_sinusoid(index, known.shape[-1]).to(known.dtype)[:, None]
        seen = self.encoder(torch.cat([step, known], dim=1) + self.cond_pos_emb)
        x = self.input_emb(noisy) + self.pos_emb[:, :actions]
        for layer in self.decoder.layers:
            x = layer(x, seen, tgt_mask=self.mask[:actions, :actions], memory_mask=self.memory_mask[:actions])
        return self.head(self.ln_f(x))


class TransformerTrunk(ChunkTrunk):
    """The transformer, conditioned on one token per frame."""

    def __init__(self, network: DiffusionTransformer, action: int) -> None:
        super().__init__(action)
        self.network = network

    def denoise(self, noisy: Float[Tensor, "B H A"], index: Int[Tensor, "B"], frames: Float[Tensor, "B T C"]) -> Float[Tensor, "B H A"]:
        return self.network(noisy, index, frames)


@dataclass(frozen=True)
class Config(Blueprint):
    """Diffusion Policy's transformer as a trunk, at the paper's size; the observer and the raw layers are those of unet1d.

    Attributes:
        width, depth, heads, dropout: of the decoder; the arm's own shape plays no part.
        context_width: numbers that the observer gives for each frame and camera.
    """

    width: int = 256
    depth: int = 8
    heads: int = 4
    dropout: float = 0.3
    context_width: int = 64

    def build(self, sizes: Sizes) -> TransformerTrunk:
        condition = sizes.views * sizes.context + sizes.state
        shape = self.width, self.depth, self.heads, self.dropout
        return TransformerTrunk(DiffusionTransformer(sizes.action, sizes.horizon, condition, sizes.history, *shape), sizes.action)
