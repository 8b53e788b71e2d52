"""REPA on a policy: the observation's own tokens are pulled toward a frozen encoder's.  FLARE's ancestor on the same base."""

from dataclasses import replace

from wmzoo.config import Experiment, Scale, Term
from wmzoo.models import backbones, targets
from wmzoo.objectives import repa

from . import pi0, vit_mae

ROWS = {"tiny": 4, "small": 6, "base": 3, "paper": 16}  # of the observation's grid


def config(scale: Scale = "small") -> Experiment:
    """On `pi0`, whose observation is part of the sequence, so that it has hidden states to pull; toward DINOv2-B at paper scale."""
    arm, rows = pi0.config(scale), ROWS[scale]
    encoder, stages = (
        vit_mae.frozen(scale) if scale != "paper" else (backbones.Config("vit_base_patch14_reg4_dinov2", "none", size=224), {})
    )
    align = repa.Config(targets.FrozenConfig(encoder, rows), tokens=rows * rows, hidden=2048 if scale == "paper" else 256)
    term = Term(align, weights={"align": 1.0}, weight=0.5)
    return replace(arm, name="repa", objectives={**arm.objectives, "repa": term}, stages=stages)
