"""The main comparison with ten demonstrations a task alone, on the cells of implicit_vs_explicit: where a world model should help most.

wmzoo study low_data --rows policy_embedding flare lara lapa
"""

from dataclasses import replace

from wmzoo.config import Scale
from wmzoo.study import Study

from . import implicit_vs_explicit


def study(scale: Scale = "small") -> Study:
    """All rows of the main comparison in its first setting."""
    whole = implicit_vs_explicit.study(scale)
    question = "With ten demonstrations a task, does a world model help a policy, and must it be explicit?"
    return replace(whole, question=question, settings={implicit_vs_explicit.FEW: whole.settings[implicit_vs_explicit.FEW]})
