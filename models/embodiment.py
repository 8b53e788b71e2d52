"""How does one trunk serve several robots?  The first and the last layer have one set of weights per embodiment.

Bjorck et al. 2025, GR00T N1, arXiv:2503.14734: category-specific layers for state and action.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import one_hot

from wmzoo.interfaces import Blueprint, Sizes


class CategoryLinear(nn.Module):
    """A linear layer with one weight and bias per category: y = x W[id] + b[id]; W starts at 0.02 N(0, 1), b at 0.

    Raises:
        ValueError: there is not one id for each window, or a window has more or fewer numbers than the layer takes.
    """

    def __init__(self, categories: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.02 * torch.randn(categories, inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(categories, outputs))

    def forward(self, x: Float[Tensor, "B N i"], category: Int[Tensor, "B"]) -> Float[Tensor, "B N o"]:
        if category.shape != x.shape[:1]:
            raise ValueError(f"{len(x)} windows need {len(x)} ids, not ids of {tuple(category.shape)}")
        if x.shape[-1] != self.weight.shape[1]:
            raise ValueError(f"this layer takes {self.weight.shape[1]} numbers, not {x.shape[-1]}")
        # a product with one-hot rows, not an index: the backward pass of an index is a slow scatter on a CPU
        chosen = one_hot(category, len(self.weight)).to(self.weight.dtype)
        weight = (chosen @ self.weight.flatten(1)).unflatten(1, self.weight.shape[1:])
        return x @ weight + (chosen @ self.bias)[:, None]


class CategoryMLP(nn.Module):
    """Two category-specific layers around ReLU."""

    def __init__(self, categories: int, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.first = CategoryLinear(categories, inputs, hidden)
        self.second = CategoryLinear(categories, hidden, outputs)

    def forward(self, x: Float[Tensor, "B N i"], category: Int[Tensor, "B"]) -> Float[Tensor, "B N o"]:
        return self.second(self.first(x, category).relu(), category)


class ActionIn(nn.Module):
    """Noisy actions to tokens.  The clock enters through the trunk's modulation, not here.

    Every action has a place embedding: without it the chunk is a set, and what is played back is noise.

    Raises:
        ValueError: the chunk has more or fewer actions than there are places; nothing is repeated.
    """

    def __init__(self, embodiments: int, action: int, width: int, horizon: int) -> None:
        super().__init__()
        self.project = CategoryMLP(embodiments, action, width, width)
        self.place = nn.Parameter(0.02 * torch.randn(horizon, width))
        nn.init.normal_(self.project.first.weight, std=action**-0.5)
        nn.init.normal_(self.project.second.weight, std=width**-0.5)

    def forward(self, noisy: Float[Tensor, "B H A"], clock: Float[Tensor, "B"], embodiment: Int[Tensor, "B"]) -> Float[Tensor, "B H D"]:
        if noisy.shape[1] != len(self.place):
            raise ValueError(f"a chunk has {len(self.place)} actions here, not {noisy.shape[1]}")
        return self.project(noisy, embodiment) + self.place


class ActionOut(nn.Module):
    """Final tokens to a prediction per action.  Starts at zero, so the first prediction is 0."""

    def __init__(self, embodiments: int, width: int, action: int) -> None:
        super().__init__()
        self.project = CategoryLinear(embodiments, width, action)
        nn.init.zeros_(self.project.weight)

    def forward(self, final: Float[Tensor, "B H D"], embodiment: Int[Tensor, "B"]) -> Float[Tensor, "B H A"]:
        return self.project(final, embodiment)


@dataclass(frozen=True)
class InConfig(Blueprint):
    """Actions into the default trunk."""

    def build(self, sizes: Sizes) -> ActionIn:
        return ActionIn(sizes.embodiments, sizes.action, sizes.width, sizes.horizon)


@dataclass(frozen=True)
class OutConfig(Blueprint):
    """Actions out of the default trunk."""

    def build(self, sizes: Sizes) -> ActionOut:
        return ActionOut(sizes.embodiments, sizes.out, sizes.action)
