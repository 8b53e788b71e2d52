"""World models in features and in pixels, on the same windows: how well do they foresee, do they listen, and what does it cost?

wmzoo study world_models
"""

from wmzoo.config import Scale
from wmzoo.study import Row, Study


def study(scale: Scale = "small") -> Study:
    """Frames that are painted are scored in the feature space of the others."""
    arms = ("rla_wm", "dino_wm", "dino_wm_one_shot", "fm_wm", "fm_wm_gaussian", "rae", "uwm", "uwm_change", "video")
    return Study(
        question="Which world model foresees best, in a frozen feature space and in pixels, and at what cost?",
        rows={name: Row(name) for name in arms},
        baseline="rla_wm",
        measures=("foresee",),
        space="rla_wm",
    )
