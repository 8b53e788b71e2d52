"""The latent action model by itself, from frames alone: LARA's first stage and LAPA's.

wmzoo train lam --data.videos 10 --out runs/lam
wmzoo probe runs/lam
"""

from dataclasses import replace

from wmzoo.config import Absent, Experiment, Optim, Scale, Shape, Term
from wmzoo.models import lam, quantise
from wmzoo.models import vit_mae as network
from wmzoo.objectives import lam as objective

from . import vit_mae

# "small" reads 36 patches a frame: its own encoder has 31 MFLOP a frame (vit_mae: 877), since it cannot be cached where
# frames are moved at random; a joint step may cost two steps of the policy.
ENCODERS = {**vit_mae.ENCODERS, "small": network.Config("none", image=96, patch=16, width=96, depth=3, heads=3)}
OPTIMS = {
    "tiny": Optim(steps=200, lr=2e-3, ema=0.0, chapter=50),
    "small": Optim(steps=1500, ema=0.0),
    "base": Optim(steps=40_000, lr=3e-4, ema=0.0),
    "paper": Optim(steps=350_000, lr=1e-4, decay=1e-5, ema=0.0),
}


def config(scale: Scale = "small") -> Experiment:
    """Demonstrations and ten videos a task, none of whose actions is read."""
    before = stages(scale)
    arm = before.pop("lam")
    return replace(arm, stages=before)


def stages(scale: Scale) -> dict[str, Experiment]:
    """What an arm with a latent action model is preceded by: the encoder and the model itself, "lam"."""
    encoder = {} if scale == "paper" else {"vit_mae": vit_mae.staged(scale, ENCODERS[scale])}
    data = replace(vit_mae.DATA[scale], **({"batch": 512} if scale == "paper" else {}))
    return {
        **encoder,
        "lam": Experiment(
            name="lam",
            shape=Shape(width=1, depth=0),
            trunk=Absent(),
            observer=Absent(),
            objectives={
                "lam": Term(objective.Config(model(scale), gap=data.horizon), weights={"pixels": 1.0, "perceptual": 1.0, "code": 1.0})
            },
            data=replace(data, videos=0 if scale == "tiny" else 10),
            optim=OPTIMS[scale],
        ),
    }


def model(scale: Scale, weights: str = "none") -> lam.Config:
    """The model at each scale; Moto's at paper scale."""
    encoder = ENCODERS[scale] if scale == "paper" else replace(ENCODERS[scale], weights="stage:vit_mae")
    match scale:
        case "tiny":
            small = {"tokens": 4, "latent": 8, "width": 32, "heads": 2, "depth": 1, "painter": 1, "patch": 8, "paint": "change"}
            return lam.Config(encoder, quantise.Config(codes=16), weights, **small)
        case "small":
            return lam.Config(encoder, weights=weights, width=96, heads=3, depth=2, painter=3, paint="change")
        case "base":
            return lam.Config(encoder, weights=weights, width=384, heads=6, depth=4, painter=6, patch=8, paint="change")
        case "paper":
            return lam.SizedConfig(encoder, quantise.Config("legacy"), weights)
