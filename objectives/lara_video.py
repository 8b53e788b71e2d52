"""LARA from video too: where no action was recorded, the tokens of a chunk that is all noise agree with the latent.

Liu et al. 2026, LARA, arXiv:2606.07100, trains on windows with actions alone; nobody has published this.
    L_lara = 1 - cos(f(h_tap[last action]), flat(z)), over all windows that have a future      wmzoo.objectives.lara.agreement
    the last action is that of the whole chunk where none was recorded                         LaraVideo.recorded
Such a chunk stands at t = 0 (objectives/flow.py), where the policy begins to play: what agrees is what the observation alone tells of
the motion to come.  The rest is objectives/lara.py.
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Bool
from torch import Tensor

from wmzoo.batch import Batch

from . import lara


class LaraVideo(lara.Lara):
    """Agreement for windows without actions too."""

    def recorded(self, batch: Batch) -> Bool[Tensor, "B H"]:
        """All actions of a chunk of which none was recorded; of the others those that were."""
        return super().recorded(batch) | ~batch.has_action[:, None]


@dataclass(frozen=True)
class Config(lara.Config):
    """As LARA's."""

    kind: ClassVar[type[lara.Lara]] = LaraVideo
