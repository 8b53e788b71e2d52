"""The world models that foresee in a frozen feature space, alone: on the cells of world_models.

wmzoo study feature_models
"""

from dataclasses import replace

from wmzoo.config import Scale
from wmzoo.study import Study

from . import world_models

FAMILIES = ("rla_wm", "dino_wm", "dino_wm_one_shot", "fm_wm", "rae")


def study(scale: Scale = "small") -> Study:
    """The paper's comparison: one feature space, one budget of time, trunks of one size."""
    whole = world_models.study(scale)
    question = "In one frozen feature space, trained as long: does a latent of the change foresee better than the tokens themselves?"
    return replace(whole, question=question, rows={name: whole.rows[name] for name in FAMILIES})
