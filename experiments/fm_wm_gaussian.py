"""FM-WM in its other reading: from noise to the tokens of the future frame."""

from dataclasses import replace

from wmzoo.config import Experiment, Scale

from . import fm_wm


def config(scale: Scale = "small") -> Experiment:
    arm = fm_wm.config(scale)
    term = arm.objectives["fm_wm"]
    return replace(arm, name="fm_wm_gaussian", objectives={"fm_wm": replace(term, config=replace(term.config, source="gaussian"))})
