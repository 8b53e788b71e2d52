"""What is in a frame that matters for acting?  The action-aware vision-language embedding of FLARE, in M tokens.

Zheng et al. 2025, FLARE: Robot Learning with Implicit World Modeling, arXiv:2505.15659; Li et al. 2023, BLIP-2 (the Q-Former),
arXiv:2301.12597.
Patch tokens of all cameras and the tokens of the instruction are fused by self-attention; M learned queries read the result.
It is the policy's eye (`Observer`), it is trained by acting (experiments/embedding.py), and a copy of it is FLARE's target.
The paper does not say how deep the Q-former is nor whether the image encoder is trained: here two blocks, and a field.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wmzoo.batch import Batch
from wmzoo.errors import UserError
from wmzoo.features import encoded
from wmzoo.interfaces import Blueprint, Encoder, Sizes
from wmzoo.question import Stream

from .attention import MLP, OBSERVATION, Attention
from .backbones import located, on_meta, one_line, read_weights
from .state import GrootState, StateTokens
from .text import Layer
from .vit_mae import run_export

PLACE = "observer.embedding."  # where it stands in an exported run


class Reader(nn.Module):
    """A block of the Q-former: the queries look at each other, then at the fused tokens.  Pre-norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_self, self.norm_cross, self.norm_mlp = (nn.LayerNorm(width) for _ in range(3))
        self.self_attn, self.cross_attn = Attention(width, heads), Attention(width, heads, width)
        self.mlp = MLP(width, 4 * width)

    def forward(self, x: Float[Tensor, "n M E"], fused: Float[Tensor, "n N E"]) -> Float[Tensor, "n M E"]:
        x = x + self.self_attn(self.norm_self(x))
        x = x + self.cross_attn(self.norm_cross(x), self.cross_attn.remember(fused))
        return x + self.mlp(self.norm_mlp(x))


class Embedding(nn.Module):
    """Frames of all cameras and an instruction to M tokens a moment.

    Args:
        encoder, text: of images and instructions.
        width: of its tokens; `tokens` is M.
        views: cameras.
        fusion, readers: blocks of self-attention, blocks of the Q-former.
        heads: of all of them.
    """

    def __init__(
        self, encoder: Encoder, text: nn.Module, width: int, tokens: int, views: int, fusion: int, readers: int, heads: int
    ) -> None:
        super().__init__()
        self.encoder, self.text, self.width, self.tokens = encoder, text, width, tokens
        self.project = nn.Linear(encoder.width, width)
        self.project_text = nn.Linear(cast("int", text.width), width)
        self.place = nn.Parameter(0.02 * torch.randn(views * encoder.grid[0] * encoder.grid[1], width))
        self.fusion = nn.ModuleList(Layer(width, heads) for _ in range(fusion))
        self.norm_fused = nn.LayerNorm(width)
        self.queries = nn.Parameter(0.02 * torch.randn(tokens, width))
        self.readers = nn.ModuleList(Reader(width, heads) for _ in range(readers))
        self.norm = nn.LayerNorm(width)

    def forward(self, batch: Batch, which: Literal["now", "future"]) -> Float[Tensor, "B T M E"]:
        """The tokens of every frame up to now, or of every future frame."""
        frames = (batch.image if which == "now" else batch.future).shape[1]
        image = encoded(batch, self.encoder, which).unflatten(1, (frames, -1)).flatten(0, 1)
        text = self.project_text(self.text(batch.text)).repeat_interleave(frames, dim=0)
        fused = torch.cat([self.project(image) + self.place, text], dim=1)
        for layer in self.fusion:
            fused = layer(fused)
        fused = self.norm_fused(fused)
        x = self.queries.expand(len(fused), -1, -1)
        for reader in self.readers:
            x = reader(x, fused)
        return self.norm(x).unflatten(0, (len(batch), frames))


class Observer(nn.Module):
    """The streams "observation", which is the embedding of every frame up to now, and "state".  Nothing here reads the future.

    Args:
        embedding: what sees.
        state: reads the robot's own state.
        sizes: of the data and the trunk.
        state_blind: streams that the state may not look at.
    """

    def __init__(self, embedding: Embedding, state: StateTokens | GrootState, sizes: Sizes, state_blind: frozenset[str]) -> None:
        super().__init__()
        self.embedding, self.state, self.state_blind = embedding, state, state_blind
        self.project = nn.Linear(embedding.width, sizes.context)
        self.frame = nn.Parameter(0.02 * torch.randn(sizes.history, 1, sizes.context))

    def forward(self, batch: Batch) -> dict[str, Stream]:
        seen = self.project(self.embedding(batch, "now")) + self.frame
        state = Stream(self.state(batch), blind=self.state_blind, read=False)
        return {OBSERVATION: Stream(seen.flatten(1, 2), read=False), "state": state}


@dataclass(frozen=True)
class Config(Blueprint):
    """The observer whose eye is the action-aware embedding.

    Attributes:
        encoder, text: of images and instructions.
        weights: none, or the folder of a run whose observer has this embedding (a warm start); "stage:NAME" is a stage of the arm.
        tokens, width: M queries of the Q-former, and how wide each is.
        fusion, readers, heads: blocks of self-attention, blocks of the Q-former, and heads of all.
        state_blind: streams that the state may not look at.
    """

    encoder: Blueprint
    text: Blueprint
    weights: str = "none"
    tokens: int = 32
    width: int = 2048
    fusion: int = 4
    readers: int = 2
    heads: int = 32
    state_blind: tuple[str, ...] = ()

    def build(self, sizes: Sizes) -> Observer:
        if self.tokens < 1:
            raise UserError(f"an embedding needs at least one token, not {self.tokens}")
        if self.width % self.heads:
            raise UserError(f"an embedding of width {self.width} cannot have {self.heads} heads: choose a divisor of the width")
        encoder, text = cast("Encoder", self.encoder.build(sizes)), self.text.build(sizes)
        embedding = Embedding(encoder, text, self.width, self.tokens, sizes.views, self.fusion, self.readers, self.heads)
        if self.weights != "none" and not on_meta():
            warm_start(embedding, located(self.weights))
        return Observer(embedding, self.reads_state(sizes), sizes, frozenset(self.state_blind))

    def started(self, part: nn.Module) -> nn.Module:
        return cast("Observer", part).embedding

    def reads_state(self, sizes: Sizes) -> StateTokens | GrootState:
        """What reads the robot's own state."""
        return StateTokens(sizes)


@dataclass(frozen=True)
class GrootConfig(Config):
    """The same with GR00T's state encoder: FLARE at paper scale.

    Attributes:
        hidden: between the two layers of the state encoder.
        action, state: as in groot.ObserverConfig.
    """

    action: ClassVar[int] = 32
    state: ClassVar[int] = 64
    hidden: int = 1024

    def reads_state(self, sizes: Sizes) -> GrootState:
        return GrootState(sizes, self.hidden)


def warm_start(embedding: Embedding, run: Path) -> None:
    """Give an embedding the weights that it has in a finished run.

    Raises:
        UserError: that run has no embedding, or one of another architecture.
    """
    export = run_export(run)
    if export is None:
        raise UserError(f"{run} is no run folder: it has no config.yaml")
    with one_line(str(run), "this embedding"):
        state = read_weights(export / "weights.safetensors")
        found = {name.removeprefix(PLACE): value for name, value in state.items() if name.startswith(PLACE)}
        if not found:
            raise ValueError("its observer has no embedding; train the arm `embedding`")
        embedding.load_state_dict(found)
