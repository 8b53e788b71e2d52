"""Can a world model act?  Those in features plan their way along an expert's film; what they know of actions decides.

wmzoo study planning
"""

from wmzoo.config import Scale
from wmzoo.study import Row, Study

from . import world_models, world_models_play

PLANNERS = ("dino_wm_one_shot", "dino_wm_untold", "dino_wm", "fm_wm", "rla_wm")


def study(scale: Scale = "small") -> Study:
    """Trained on demonstrations and on play, asked to do the same tasks; one that is never told the actions is the control."""
    rows: dict[str, Row] = {name: world_models.study(scale).rows[name] for name in PLANNERS}
    play = world_models_play.study(scale).settings[""]
    return Study(
        question="Which world model can act, and what must it have seen?",
        rows=rows,
        baseline="dino_wm_untold",
        settings={"demonstrations": {}, "play": play},
        handles=10,
        measures=("plan",),
        elsewhere=("toy",) if scale == "tiny" else ("mw3",),
    )
