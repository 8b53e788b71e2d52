"""DINO-WM in one pass: the frame at the end of the chunk by regression, RLA-WM's baseline."""

from wmzoo.config import Experiment, Scale
from wmzoo.models import token_flow
from wmzoo.objectives import dino_wm

from . import feature_space, rla_wm


def config(scale: Scale = "small") -> Experiment:
    """Below paper scale the change of the present frame is written, as by the autoencoder of `rla`."""
    network = token_flow.Config(feature_space.encoder(scale), timed=False, **rla_wm.blocks(scale))
    writes = "frame" if scale == "paper" else "change"
    term = dino_wm.OneShotConfig(network, feature_space.look(scale), writes=writes)
    stages = {} if scale == "paper" else feature_space.stages(scale)
    return rla_wm.world_model("dino_wm_one_shot", scale, term, {"mse": 1.0}, stages)
