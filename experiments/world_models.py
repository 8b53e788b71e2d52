"""World models in features and in pixels, on the same windows: how well do they foresee, do they listen, and what does it cost?

wmzoo study world_models
"""

from wmzoo.config import Scale
from wmzoo.study import Row, Study

STEPS = {  # in features the same time for all (330 s on one thread, reckoned from a few steps); in pixels those of implicit_vs_explicit
    "rla_wm": 1290, "dino_wm": 370, "dino_wm_one_shot": 1310, "dino_wm_untold": 1310, "fm_wm": 1160, "fm_wm_gaussian": 1160, "rae": 720,
    "uwm": 1000, "uwm_change": 1000, "video": 1000, "flare": 1000, "flare_off": 1000,
}  # fmt: skip


def study(scale: Scale = "small") -> Study:
    """Frames that are painted are scored in the feature space of the others; FLARE's prediction is read there by a linear map."""
    return Study(
        question="Which world model foresees best, in a frozen feature space and in pixels, and at what cost?",
        rows={name: Row(name, {"optim.steps": steps} if scale == "small" else {}) for name, steps in STEPS.items()},
        baseline="rla_wm",
        measures=("foresee",),
        space="rla_wm",
    )
