"""The trunk learns to name the codes of what will happen, without any action: LAPA's second stage."""

from dataclasses import replace

from wmzoo.config import Experiment, Scale, Term
from wmzoo.objectives import lapa

from . import lam, policy


def config(scale: Scale = "small") -> Experiment:
    """Half of each batch is video, which has frames and instructions alone; of the rest the state is seen too, the actions are not."""
    arm = policy.config(scale)
    codes = Term(lapa.Config(lam.model(scale, "stage:lam"), gap=arm.data.horizon), weights={"code": 1.0})
    data, optim = replace(arm.data, videos=0 if scale == "tiny" else 10), replace(arm.optim, steps=max(1, arm.optim.steps // 2))
    return replace(arm, name="lapa_codes", objectives={"lapa": codes}, data=data, optim=optim, stages=lam.stages(scale))
