"""The latent action model alone: what changed between two frames, in a few codes from which the second can be painted.

Chen et al. 2024, Moto, arXiv:2412.04445; LARA's first stage.
    L_LAM     = L_pixels + L_perceptual + L_code                       experiments/lam.py
    L_pixels  = mean over pixels of (D(o_0, c) - o_g)^2, in [0, 1]     pixel_loss
    L_perceptual = LPIPS(D(o_0, c), o_g), or a distance of features    wmzoo.models.perceptual.feature_distance
    L_code    = what the bottleneck asks for                           wmzoo.models.quantise.commitment
Watched at every validation:
    exp(-sum p ln p), p = use of each code                             perplexity
    error of the painted frame / error of the present frame, over the windows that move more than the median   moving_ratio
No action is read, so video counts like demonstrations; windows whose second frame lies past the end do not count at all.
Some copies of the published code stop the gradient of the perceptual term, which makes it a constant: `gradient` is for them.
"""

from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from wmzoo.batch import Batch, Needs
from wmzoo.errors import UserError
from wmzoo.interfaces import RARE, Blueprint, LatentActions, Objective, Quantised, Sizes
from wmzoo.question import Hidden, Question, Score
from wmzoo.shapes import checked


@checked
def pixel_loss(painted: Float[Tensor, "B 3 S S"], frame: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B"]:
    """Squared error averaged over the pixels of each window; images in [0, 1]."""
    return (painted - frame).square().mean(dim=(1, 2, 3))


@checked
def perplexity(number: Int[Tensor, "n"], codes: int) -> Float[Tensor, ""]:
    """How many codes are in use, each counted by how often: 1 if it is always the same, `codes` if all are used alike."""
    share = torch.bincount(number, minlength=codes).float() / max(1, len(number))
    return torch.exp(-torch.xlogy(share, share).sum())


@checked
def moving_ratio(error: Float[Tensor, "B"], copied: Float[Tensor, "B"]) -> Float[Tensor, ""]:
    """Error over the error of copying the present frame, summed over the windows that change more than the median window."""
    moving = copied > copied.median()
    return error[moving].sum() / copied[moving].sum().clamp(min=1e-12)


class Painting:
    """One pass of a latent action model over a batch: the second frame as it is and as it was painted.

    Args:
        lam: the model.
        batch: needs a future frame at `gap`.
        latent: before the bottleneck, of the same batch and gap.
        gradient: of the perceptual term.
    """

    def __init__(self, lam: LatentActions, batch: Batch, gap: int, latent: Float[Tensor, "B K Z"], gradient: bool) -> None:
        self.lam, self.batch, self.gap, self.now = lam, batch, gap, lam.seen(batch.image[:, -1, lam.view])
        column = batch.column(gap)
        self.valid = batch.has_future[:, column]
        self.frame = torch.where(self.valid[:, None, None, None], lam.seen(batch.future[:, column, lam.view]), self.now)
        self.quantised: Quantised = lam.quantise(latent, self.valid)
        self.painted = lam.decode(batch, self.quantised.value)
        self.gradient = gradient

    def parts(self) -> dict[str, Float[Tensor, "B"]]:
        """Every part of L_LAM for each window."""
        seen = self.painted if self.gradient else self.painted.detach()
        return {
            "pixels": pixel_loss(self.painted, self.frame),
            "perceptual": self.lam.distance(self.batch, self.gap, seen),
            "code": self.quantised.penalty,
        }

    def watch(self) -> dict[str, Tensor]:
        """Use of the codes, and how much better than a copy the painted frame is."""
        if self.valid.sum() < 2:
            return {}
        error, copied = (pixel_loss(x, self.frame)[self.valid] for x in (self.painted, self.now))
        seen = {"moving_ratio": moving_ratio(error, copied), "perceptual_is_lpips": error.new_tensor(float(self.lam.by_lpips))}
        if self.lam.codes and self.quantised.codes is not None:
            number = self.quantised.codes[self.valid].flatten()
            use = torch.bincount(number, minlength=self.lam.codes).bool().float().mean()
            rare = use < RARE * min(1.0, len(number) / self.lam.codes)
            seen |= {
                "perplexity": perplexity(number, self.lam.codes),
                "codes_in_use": use,
                "alarm: less than a quarter of the codes is in use": rare.float(),
            }
        return seen


class Lam(Objective):
    """Trains a latent action model without trunk, streams or labels.

    Args:
        lam: the model.
        gap: control steps between the frames.
        gradient: of the perceptual term.
    """

    def __init__(self, lam: LatentActions, gap: int, gradient: bool) -> None:
        super().__init__()
        if gap < 1:
            raise UserError(f"the second frame is at least 1 control step ahead, not {gap}")
        self.lam, self.gap, self.gradient = lam, gap, gradient

    def needs(self) -> Needs:
        return Needs(futures=(self.gap,))

    def forward(self, batch: Batch) -> Question:
        painting = Painting(self.lam, batch, self.gap, self.lam.encode(batch, self.gap), self.gradient)

        def score(_: Hidden) -> dict[str, Score]:
            return {name: Score(value, painting.valid) for name, value in painting.parts().items()}

        def watch(_: Hidden) -> dict[str, Tensor]:
            return painting.watch()

        return Question({}, frozenset(), score, watch)


@dataclass(frozen=True)
class Config(Blueprint):
    """A latent action model by itself.

    Attributes:
        lam: models/lam.py.
        gap: control steps between the frames.
        gradient: the perceptual term teaches; False only measures.
    """

    lam: Blueprint
    gap: int = 16
    gradient: bool = True

    def build(self, sizes: Sizes) -> Lam:
        return Lam(cast("LatentActions", self.lam.build(sizes)), self.gap, self.gradient)
