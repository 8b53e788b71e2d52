"""How does the robot's own state become tokens?  One for each frame up to now; a learned null token where it is unknown."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wmzoo.batch import Batch
from wmzoo.interfaces import Sizes

from .embodiment import CategoryMLP


def check_frames(batch: Batch, frames: int) -> None:
    """Raise ValueError if there are states of more or fewer frames than a network has places for: nothing is broadcast."""
    if batch.state.shape[1] != frames:
        raise ValueError(f"the states of {frames} frames are read here, not of {batch.state.shape[1]}; ask for that history")


def known_or_null(project: CategoryMLP, null: Float[Tensor, "T D"], batch: Batch) -> Float[Tensor, "B T D"]:
    """The states through layers of the window's own embodiment; the null tokens where they are unknown, whatever stands there.

    Raises:
        ValueError: there are states of more or fewer frames than there are null tokens.
    """
    check_frames(batch, len(null))
    known = batch.has_state[:, None, None]
    return torch.where(known, project(torch.where(known, batch.state, 0.0), batch.embodiment), null)


class StateTokens(nn.Module):
    """Proprioception of every frame as one token each, through layers of the window's own embodiment."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.project = CategoryMLP(sizes.embodiments, sizes.state, sizes.width, sizes.width)
        nn.init.normal_(self.project.first.weight, std=sizes.state**-0.5)
        nn.init.normal_(self.project.second.weight, std=sizes.width**-0.5)
        self.null = nn.Parameter(0.02 * torch.randn(sizes.history, sizes.width))
        self.place = nn.Parameter(0.02 * torch.randn(sizes.history, sizes.width))

    def forward(self, batch: Batch) -> Float[Tensor, "B T D"]:
        """One token a frame.

        Raises:
            ValueError: there are states of more or fewer frames than this network has places for.
        """
        return known_or_null(self.project, self.null, batch) + self.place


class GrootState(nn.Module):
    """GR00T's state encoder (models/groot.py): as published but for the null token, without a place.

    Args:
        hidden: numbers between its two layers; 1024 in the reference.
    """

    def __init__(self, sizes: Sizes, hidden: int) -> None:
        super().__init__()
        self.project = CategoryMLP(sizes.embodiments, sizes.state, hidden, sizes.width)
        self.null = nn.Parameter(0.02 * torch.randn(sizes.history, sizes.width))

    def forward(self, batch: Batch) -> Float[Tensor, "B T D"]:
        return known_or_null(self.project, self.null, batch)
