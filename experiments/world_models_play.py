"""The comparison of world models on recordings in which a picture does not tell what is done next.

wmzoo study world_models_play
"""

from dataclasses import replace

from wmzoo.config import Scale
from wmzoo.study import Study

from . import world_models


def study(scale: Scale = "small") -> Study:
    """All rows of `world_models`, trained and asked on play."""
    question = "Which world model foresees best where experts and chance take turns, and who knows what actions do?"
    played = {"data.tasks": ("toy-play",) if scale == "tiny" else ("mw3-play",)}
    return replace(world_models.study(scale), question=question, settings={"": played})
