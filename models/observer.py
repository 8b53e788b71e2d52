"""What does the policy see?  Frames of all cameras and the instruction as one stream, its own state as another."""

from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from wmzoo.batch import Batch
from wmzoo.features import encoded
from wmzoo.interfaces import Blueprint, Encoder, Sizes
from wmzoo.question import Stream

from .attention import OBSERVATION
from .state import StateTokens


class Observer(nn.Module):
    """The streams "observation" (image tokens of every frame and camera, instruction) and "state" (one token per frame).

    Nothing here reads the future.  Where the state is unknown a learned null token stands in its place.

    Args:
        encoder, text: of the images and of the instruction.
        blind, state_blind: streams that the observation, and the state, may not look at.
    """

    def __init__(self, encoder: Encoder, text: nn.Module, sizes: Sizes, blind: frozenset[str], state_blind: frozenset[str]) -> None:
        super().__init__()
        self.encoder, self.text, self.blind, self.state_blind = encoder, text, blind, state_blind
        tokens = sizes.history * sizes.views * encoder.grid[0] * encoder.grid[1]
        self.project = nn.Linear(encoder.width, sizes.context)
        self.norm = nn.LayerNorm(sizes.context)
        self.place = nn.Parameter(0.02 * torch.randn(tokens, sizes.context))
        self.project_text = nn.Linear(cast("int", text.width), sizes.context)
        self.state = StateTokens(sizes)

    def forward(self, batch: Batch) -> dict[str, Stream]:
        image = self.norm(self.project(encoded(batch, self.encoder, "now")) + self.place)
        observation = torch.cat([image, self.project_text(self.text(batch.text))], dim=1)
        state = Stream(self.state(batch), blind=self.state_blind, read=False)
        return {OBSERVATION: Stream(observation, blind=self.blind, read=False), "state": state}


@dataclass(frozen=True)
class Config(Blueprint):
    """The observer of an arm: an image encoder and a reader of instructions.

    Attributes:
        encoder, text: the two.
        blind, state_blind: streams that the observation, and the state, may not look at (pi0's prefix).
    """

    encoder: Blueprint
    text: Blueprint
    blind: tuple[str, ...] = ()
    state_blind: tuple[str, ...] = ()

    def build(self, sizes: Sizes) -> Observer:
        networks = cast("Encoder", self.encoder.build(sizes)), self.text.build(sizes)
        return Observer(*networks, sizes, frozenset(self.blind), frozenset(self.state_blind))
