"""LARA as post-training: a policy that was trained without it goes on with it."""

from dataclasses import replace

from wmzoo.config import Experiment, Scale

from . import lara, policy


def config(scale: Scale = "small") -> Experiment:
    """Half the policy's steps after all of them, 20,000 as in the paper; any finished run can take the stage's place: `--start runs/a`."""
    before, arm = policy.config(scale), lara.config(scale)
    optim = replace(arm.optim, steps=20_000 if scale == "paper" else max(1, before.optim.steps // 2))
    return replace(arm, name="lara_posttrain", start="stage:policy", optim=optim, stages={"policy": before, **arm.stages})
