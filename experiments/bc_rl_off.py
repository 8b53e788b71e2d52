"""Control: WMRL's networks, started from the same policy, with weight 0: it plays as it was cloned, so one round is enough."""

from dataclasses import replace

from wmzoo.config import Experiment, Scale

from . import bc_rl


def config(scale: Scale = "small") -> Experiment:
    arm = bc_rl.config(scale)
    optim = replace(arm.optim, steps=4, chapter=4)
    return replace(arm, name="bc_rl_off", objectives={"bc": replace(arm.objectives["bc"], weight=0.0)}, optim=optim)
