"""Control: BC-RLA with its head, its video and weight 0 on the latent."""

from dataclasses import replace

from wmzoo.config import Experiment, Scale

from . import bc_rla


def config(scale: Scale = "small") -> Experiment:
    arm = bc_rla.config(scale)
    term = arm.objectives["bc"]
    return replace(arm, name="bc_rla_off", objectives={"bc": replace(term, weights={"action": 1.0, "latent_l1": 0.0, "latent_mse": 0.0})})
