"""REPA: pull hidden patch tokens toward a frozen encoder's tokens of the same frame.  FLARE's ancestor, on the same base.

Yu et al. 2024, Representation Alignment for Generation: Training Diffusion Transformers Is Easier Than You Think, arXiv:2410.06940.
    L_repa = -mean over tokens of cos(MLP(h_tap[n]), sg[E(x)]_n)   wmzoo.objectives.align.align_loss (we log 1 + L_repa)
    L      = L_velocity + 0.5 L_repa                                experiments/repa.py
    MLP    = Linear(SiLU(Linear(SiLU(Linear(h)))))                  projector
    tap    = block 8 of 28                                          Config
The paper denoises the very image whose features are the target; its tokens are those of a stream that generates images.  On a
policy the tokens are those of the observation, which is clean: that is what experiments/repa.py does, and a deviation.
No token is added, no future is read, and no gradient flows into the target.
"""

from dataclasses import dataclass
from functools import partial
from typing import cast

from torch import nn

from wmzoo.interfaces import Blueprint, Sizes, Target

from .align import Align, Plan


def projector(width: int, hidden: int, out: int) -> nn.Sequential:
    """Three layers around SiLU; the paper's are 2048 wide."""
    return nn.Sequential(nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, out))


@dataclass(frozen=True)
class Config(Blueprint):
    """Alignment with the present.

    Attributes:
        target: models/targets.py; Frozen in the paper.
        tokens: as many as the target has.
        stream: whose first tokens are pulled.
        tap: depth as a part of the trunk.
        hidden: width of the projector.
    """

    target: Blueprint
    tokens: int
    stream: str = "observation"
    tap: float = 8 / 28
    hidden: int = 2048

    def build(self, sizes: Sizes) -> Align:
        target = cast("Target", self.target.build(sizes))
        plan = Plan(self.stream, self.tap, "now", 0, "none", "none")
        return Align(plan, sizes.depth, target, partial(projector, sizes.width, self.hidden), self.tokens)
