"""GR-1: no diffusion; learned tokens foresee the frame at the end of the chunk by regression, beside a policy that regresses its actions.

Wu et al. 2023, GR-1, arXiv:2312.13139, as UWM (arXiv:2504.02792) compares with it.
    z_hat = Linear(queries after the trunk)                wmzoo.objectives.rla_head.RlaHead.forward
    L     = mean over numbers of (z_hat - z)^2             wmzoo.objectives.bc_rla.latent_errors
A regression foresees the mean of the possible frames.  The tokens stay in the sequence when the policy plays.  Video teaches them alone.
We differ: the frame is the codec's latents, not patches of pixels, so that every explicit model here foresees the same numbers; the
queries of the actions, which hold no action, are looked at in video too.
"""

from dataclasses import dataclass
from typing import cast

from wmzoo.interfaces import Blueprint, Encoder, Sizes
from wmzoo.standard import Scaling

from .ahead import Control, FrameTarget, end_of_chunk
from .rla_head import RlaHead


class Gr1(RlaHead):
    """Owns the stream "video", which here is learned queries."""

    stream = "video"


@dataclass(frozen=True)
class Config(Blueprint):
    """Frames by regression.

    Attributes:
        codec: models/codec.py.
        gaps, scaling, control: as in objectives/uwm.py.
    """

    codec: Blueprint
    gaps: tuple[int, ...] = (16,)
    scaling: Scaling = "measured"
    control: Control = "none"

    def build(self, sizes: Sizes) -> Gr1:
        end_of_chunk(self.gaps, sizes.horizon)
        target = FrameTarget(cast("Encoder", self.codec.build(sizes)), self.gaps, sizes.views, self.scaling, self.control)
        return Gr1(target, sizes.width, sizes.out)
