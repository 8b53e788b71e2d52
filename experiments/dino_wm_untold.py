"""Control: DINO-WM in one pass without the actions; what it foresees is what the present frame says alone."""

from dataclasses import replace

from wmzoo.config import Experiment, Scale
from wmzoo.objectives import dino_wm

from . import dino_wm_one_shot


def config(scale: Scale = "small") -> Experiment:
    arm = dino_wm_one_shot.config(scale)
    term = arm.objectives["dino_wm_one_shot"]
    untold = replace(term, config=dino_wm.UntoldConfig(**vars(term.config)))
    return replace(arm, name="dino_wm_untold", objectives={"dino_wm_untold": untold})
