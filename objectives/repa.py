"""REPA: pull hidden patch tokens toward a frozen encoder's tokens of the same frame.  FLARE's ancestor, on the same base.

Yu et al. 2024, Representation Alignment for Generation: Training Diffusion Transformers Is Easier Than You Think, arXiv:2410.06940.
    L_repa = -mean over tokens of cos(MLP(h_tap[n]), sg[E(x)]_n)   wmzoo.objectives.align.align_loss (we log 1 + L_repa)
    L      = L_velocity + 0.5 L_repa                                experiments/repa.py
    MLP    = Linear(SiLU(Linear(SiLU(Linear(h)))))                  projector
    tap    = block 8 of 28, the nearest to 0.3 of the depth         Config
The paper denoises the very image whose features are the target; its tokens are those of a stream that generates images.  On a
policy the tokens are those of the observation, which is clean: that is what experiments/repa.py does, and a deviation.  Of an
observation of several frames the last one's are pulled, of all cameras, patch by patch: its grid must be the target's.
No token is added, no future is read, and no gradient flows into the target.
"""

from dataclasses import dataclass
from functools import partial
from typing import cast

from jaxtyping import Float
from torch import Tensor, nn

from wmzoo.errors import UserError
from wmzoo.interfaces import Blueprint, Encoder, Sizes, Target

from .align import Align, Plan


def projector(width: int, hidden: int, out: int) -> nn.Sequential:
    """Three layers around SiLU; the paper's are 2048 wide."""
    return nn.Sequential(nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, out))


class Repa(Align):
    """Alignment with the present, of the observation or of a stream that generates images.

    Args:
        plan, depth, target, tokens: as in Align.
        width, hidden: of the trunk, and of the projector.
        frames, views: up to now, and cameras.
    """

    def __init__(self, plan: Plan, depth: int, target: Target, tokens: int, width: int, hidden: int, frames: int, views: int) -> None:
        super().__init__(plan, depth, target, partial(projector, width, hidden), tokens)
        self.frames, self.views = frames, views

    def join(self, observer: nn.Module) -> None:
        super().join(observer)
        if self.plan.stream == "observation":
            encoder = getattr(observer, "encoder", None)
            if not isinstance(encoder, Encoder):
                raise UserError(
                    "this observer's tokens are no grid of patches: take the observer of models/observer.py, or another `stream`"
                )
            rows, columns = encoder.grid
            if rows != columns or self.views * rows * columns != self.tokens:
                raise UserError(
                    f"a target of {self.tokens} tokens is not the observation's grid of {rows} x {columns} patches in "
                    f"{self.views} camera(s): set `tokens` and the target's `rows` to these"
                )

    def pulled(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B M D"]:
        """The last frame's patches; the instruction follows them."""
        return tokens[:, (self.frames - 1) * self.tokens : self.frames * self.tokens] if self.plan.stream == "observation" else tokens


@dataclass(frozen=True)
class Config(Blueprint):
    """Alignment with the present.

    Attributes:
        target: models/targets.py; Frozen in the paper.
        tokens: as many as the target has.
        stream: "observation", or one whose tokens are those of the target.
        tap: depth as a part of the trunk.
        hidden: width of the projector.
    """

    target: Blueprint
    tokens: int
    stream: str = "observation"
    tap: float = 0.3
    hidden: int = 2048

    def build(self, sizes: Sizes) -> Repa:
        target = cast("Target", self.target.build(sizes))
        plan = Plan(self.stream, self.tap, "now", 0, "none", "none")
        return Repa(plan, sizes.depth, target, self.tokens, sizes.width, self.hidden, sizes.history, sizes.views)
