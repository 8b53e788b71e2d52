"""UWM whose second stream is the change of the frame, not the frame: explicit in pixels, residual as RLA is in features.

Nobody has published it; it joins Zhu et al. 2025, Unified World Models (UWM), arXiv:2504.02792 (two clocks, drawn independently) to the
differences of RLA-WM 2026, arXiv:2605.07079.
    z = (codec(o_{t+H}) - codec(o_t) - mean) / deviation     wmzoo.objectives.ahead.ChangeTarget
    o_{t+H} = paint(codec(o_t) + mean + deviation z)          wmzoo.objectives.ahead.ChangeTarget.arrive
Everything else is objectives/uwm.py.
"""

from dataclasses import dataclass
from typing import cast

from wmzoo.interfaces import Encoder, Sizes

from . import uwm
from .ahead import ChangeTarget


@dataclass(frozen=True)
class Config(uwm.Config):
    """The video stream of UWM with the change as its target."""

    def target(self, sizes: Sizes) -> ChangeTarget:
        return ChangeTarget(cast("Encoder", self.codec.build(sizes)), self.gaps, sizes.views, self.scaling, self.control)
