"""FLARE toward a frozen encoder's tokens, pooled to a small grid: the target without actions (SigLIP 2 in the paper's ablation)."""

from dataclasses import replace

from wmzoo.config import Experiment, Scale
from wmzoo.models import targets

from . import flare, vit_mae

ROWS = {"tiny": 2, "small": 4, "base": 6, "paper": 8}  # 64 pooled tokens in the paper


def config(scale: Scale = "small") -> Experiment:
    """The in-domain ViT-MAE, trained as a stage; at paper scale SigLIP 2.  `--objectives.flare.config.target.rows` pools less or more."""
    arm, rows = flare.config(scale), ROWS[scale]
    encoder, stages = vit_mae.frozen(scale)
    arm = replace(arm, stages={**arm.stages, **stages})
    return flare.altered(arm, "flare_tokens", target=targets.FrozenConfig(encoder, rows), tokens=rows * rows)
