"""The action-aware embedding by itself: a policy that sees through it.  FLARE's first stage, and its policy-only baseline's eye.

wmzoo train embedding --out runs/embedding
replace(embedding.observer("small"), weights="runs/embedding")      a warm start of a later arm's eye
"""

from dataclasses import replace

from wmzoo.config import Experiment, Optim, Scale
from wmzoo.models import backbones, conv, embedding, siglip2, text

from . import policy

STEPS = {"tiny": 200, "small": 1000, "base": 20_000}


def config(scale: Scale = "small") -> Experiment:
    """The policy's trunk, data and objective; at paper scale eight blocks, and the 80,000 steps of the paper's in-domain embedding."""
    arm = policy.config(scale)
    if scale == "paper":
        return replace(
            arm, name="embedding", shape=replace(arm.shape, depth=8), observer=observer(scale), optim=Optim(80_000, lr=1e-4, ema=0)
        )
    return replace(arm, name="embedding", observer=observer(scale), optim=replace(arm.optim, steps=STEPS[scale]))


def observer(scale: Scale) -> embedding.Config:
    """The eye at each scale.  The paper's image encoder is frozen here (the paper does not say), the small ones are trained."""
    match scale:
        case "tiny":
            return embedding.Config(
                conv.Config(channels=(16, 32)), text.Config(width=32, depth=1), tokens=4, width=32, fusion=1, readers=1, heads=2
            )
        case "small":
            return embedding.Config(conv.Config(), text.Config(), tokens=4, width=64, fusion=1, readers=1, heads=2)
        case "base":
            resnet = backbones.Config("resnet18", "none", size=96, frozen=False, group_norm=True)
            return embedding.Config(resnet, text.Config(width=256, depth=4, heads=4), tokens=32, width=512, heads=8)
        case "paper":
            return embedding.GrootConfig(siglip2.VisionConfig("none"), siglip2.TextConfig("none", length=32))
