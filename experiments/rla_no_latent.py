"""Control: the autoencoder's decoder without a latent; what it reaches is what the present frame alone tells."""

from dataclasses import replace

from wmzoo.config import Experiment, Scale

from . import rla


def config(scale: Scale = "small") -> Experiment:
    arm = rla.config(scale)
    term = arm.objectives["rla"]
    return replace(arm, name="rla_no_latent", objectives={"rla": replace(term, config=replace(term.config, control="no_latent"))})
