"""FM-WM: flow matching from the tokens of the present frame to those of the future frame."""

from wmzoo.config import Experiment, Scale
from wmzoo.models import token_flow
from wmzoo.objectives import fm_wm

from . import feature_space, rla_wm


def config(scale: Scale = "small") -> Experiment:
    network = token_flow.Config(feature_space.encoder(scale), **rla_wm.blocks(scale))
    term = fm_wm.Config(network, feature_space.look(scale))
    stages = {} if scale == "paper" else feature_space.stages(scale)
    return rla_wm.world_model("fm_wm", scale, term, {"mse": 1.0, "l1": 1.0}, stages)
