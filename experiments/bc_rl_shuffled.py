"""Control: WMRL whose dreams are compared with another dream's demonstration."""

from dataclasses import replace

from wmzoo.config import Experiment, Scale

from . import bc_rl


def config(scale: Scale = "small") -> Experiment:
    arm = bc_rl.config(scale)
    term = arm.objectives["bc"]
    return replace(arm, name="bc_rl_shuffled", objectives={"bc": replace(term, config=replace(term.config, control="shuffled"))})
