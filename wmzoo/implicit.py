"""What does an arm foresee that has no decoder?  Its prediction in the embedding's own space, and through a linear map in a shared one.

An implicit world model is told the actions, as the others are: their clock is 1.  Its prediction is an embedding e of the frame at the
chunk's end.
    own space     cosine with the embedding of that frame, and whether it is the nearest of those of 64 windows     own
    shared space  s_hat = s + W e + b, s the present frame's tokens; W and b by ridge on training windows           Implicit.fit
Two controls tell what the map does by itself: the same from the embedding of the present frame, and the same from what the network
"foresees" with weights that nothing has trained.  That is told the actions too, and a ridge makes much of them: what is above it was
learnt.
Farther than one chunk it cannot look: nothing turns a prediction into a frame to go on from.
"""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from .batch import Batch, Needs
from .compose import Hybrid
from .errors import UserError
from .features import frame_tokens
from .interfaces import Aligned, Encoder, WorldModel
from .question import Question
from .regress import by_ridge, fifth
from .stats import over_windows

UNTRAINED = "untrained, mapped"


class Implicit(WorldModel):
    """A hybrid that aligns with the future, read by a linear map.

    Args:
        hybrid: with its target.
        fresh: the same with weights that nothing has trained (`untrained`, subject.py).
        name: of the objective that aligns.
        space: the world model in whose feature space it is read; it lends encoder, camera and decoder.
        horizon: actions of a chunk.

    Raises:
        UserError: the alignment does not look at the end of the chunk.
    """

    steps = 1

    def __init__(self, hybrid: Hybrid, fresh: Hybrid, name: str, space: WorldModel, horizon: int) -> None:
        super().__init__()
        self.hybrid, self.aligned = hybrid.requires_grad_(False), cast("Aligned", hybrid.objectives[name])
        self.fresh, self.name = (fresh.requires_grad_(False),), name  # in a tuple: it is no part of this model
        self.lent, self.view, self.painter = space.encoder, space.view, space.paint
        self.acting = next(name for name, part in hybrid.objectives.items() if part is hybrid.denoiser)
        self.horizon = self.every = self.aligned.gap
        if self.horizon != horizon:
            raise UserError(f"{name} looks {self.horizon} steps ahead and a chunk has {horizon} actions: only its end can be read")

    @property
    def encoder(self) -> Encoder:
        return self.lent

    @property
    def target(self) -> nn.Module:
        """What only training needs."""
        return cast("Any", self.aligned).target

    def needs(self) -> Needs:
        return self.hybrid.needs()

    def forward(self, batch: Batch) -> Question:
        raise NotImplementedError("the hybrid trains it")

    def paint(self, tokens: Float[Tensor, "B P E"]) -> Float[Tensor, "B 3 Y X"]:
        return self.painter(tokens)

    def foreseen(self, batch: Batch, action: Float[Tensor, "B H A"]) -> Float[Tensor, "B M E"]:
        """The embedding that it expects at the end of this chunk."""
        return self.aligned.predict(self.hybrid.told(batch, {self.acting: action}, frozenset({self.aligned.tap})))

    def imagined(self, batch: Batch, action: Float[Tensor, "B H A"]) -> Float[Tensor, "B M E"]:
        """What the same network says with weights that nothing has trained."""
        (fresh,) = self.fresh
        return cast("Aligned", fresh.objectives[self.name]).predict(fresh.told(batch, {self.acting: action}, frozenset({self.aligned.tap})))

    def present(self, batch: Batch, action: Float[Tensor, "B H A"]) -> Float[Tensor, "B M E"]:
        """The embedding of the present frame, whatever the actions."""
        return self.aligned.embed(batch, "now")

    @torch.no_grad()
    def fit(self, batches: list[Batch], episode: np.ndarray) -> None:
        """Ridge from every reading to the change of the tokens; the penalty is chosen on a fifth of the episodes."""
        columns = [self._change(batch) for batch in batches]
        change = torch.cat(columns).flatten(1).double().numpy()
        self.maps: dict[str, tuple[Tensor, Tensor]] = {}
        for name, read in self._readings().items():
            x = torch.cat([read(batch, batch.action[:, : self.horizon]) for batch in batches]).flatten(1).double().numpy()
            guess = by_ridge(x, change, fifth(episode))
            bias = guess(np.zeros((1, x.shape[1])))
            weight = guess(np.eye(x.shape[1])) - bias  # an affine map, read off at 0 and at the unit vectors
            self.maps[name] = torch.from_numpy(weight).float(), torch.from_numpy(bias).float()

    def _readings(self) -> dict[str, Callable[[Batch, Tensor], Tensor]]:
        return {"prediction": self.foreseen, "present, mapped": self.present, UNTRAINED: self.imagined}

    def _change(self, batch: Batch) -> Float[Tensor, "B P E"]:
        now, future = (frame_tokens(batch, self.encoder, self.view, column) for column in (None, batch.column(self.horizon)))
        return (future - now).float()

    def ways(self) -> dict[str, Callable[[Batch, Tensor, int, torch.Generator], Tensor]]:
        """What can be asked for the tokens ahead, by name."""

        def mapped(name: str) -> Callable[[Batch, Tensor, int, torch.Generator], Tensor]:
            return lambda batch, now, ahead, _: self._mapped(name, batch, now, batch.action[:, :ahead])

        return {name: mapped(name) for name in self.maps}

    def _mapped(self, name: str, batch: Batch, now: Tensor, action: Tensor) -> Tensor:
        if action.shape[1] != self.horizon:
            raise ValueError(f"this model looks {self.horizon} steps ahead, not {action.shape[1]}")
        weight, bias = self.maps[name]
        return now + (self._readings()[name](batch, action).flatten(1) @ weight + bias).unflatten(1, now.shape[1:])

    def predict(
        self,
        batch: Batch,
        now: Float[Tensor, "B P E"],
        action: Float[Tensor, "B H A"],
        keep: Bool[Tensor, "B H"],
        generator: torch.Generator,
    ) -> Float[Tensor, "B P E"]:
        if not bool(keep.all()):
            raise ValueError(f"this model looks {self.horizon} steps ahead, no less")
        return self._mapped("prediction", batch, now, action)


@torch.no_grad()
def own(model: Implicit, batches: list[Batch], start: np.ndarray) -> dict[str, Any]:
    """In the embedding's own space, for windows 64 at a time: cosine with the target, as the loss sees it, and the share found."""
    columns: dict[str, list[Tensor]] = {}
    for batch in batches:
        target, action = model.aligned.wanted(batch, "future"), batch.action[:, : model.horizon]
        rows = {
            "": model.foreseen(batch, action),
            "copy ": model.aligned.wanted(batch, "now"),
            "other's actions ": model.foreseen(batch, action.roll(len(batch) // 2, dims=0)),
        }
        for name, tokens in rows.items():
            likeness = torch.einsum("amd,bmd->ab", normalize(tokens, dim=-1), normalize(target, dim=-1)) / target.shape[1]
            columns.setdefault(f"{name}cosine", []).append(likeness.diagonal())
            columns.setdefault(f"{name}found", []).append((likeness.argmax(dim=1) == torch.arange(len(target))).float())
    result: dict[str, Any] = {"n": len(start), "steps": model.horizon}
    for name, parts in columns.items():
        values = torch.cat(parts).double().numpy()
        estimate = over_windows(values[None], start)
        result |= {name: estimate.mean, f"{name}_interval": [round(end, 4) for end in estimate.interval()]}
    return result
