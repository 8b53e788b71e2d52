"""UWM in residual form: the video stream generates what changes in the codec's latents, so that what rests costs nothing.

wmzoo train uwm_change --out runs/uwm_change
wmzoo eval runs/uwm_change --predict
"""

from dataclasses import replace

from wmzoo.config import Experiment, Scale
from wmzoo.objectives import uwm_change

from . import uwm


def config(scale: Scale = "small") -> Experiment:
    arm = uwm.config(scale)
    term = arm.objectives["uwm"]
    change = replace(term, config=uwm_change.Config(**vars(term.config)))
    return replace(arm, name="uwm_change", objectives={**arm.objectives, "uwm": change})
