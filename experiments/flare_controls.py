"""Is it the future?  FLARE against its own controls, on the cells of implicit_vs_explicit.

wmzoo study flare_controls
"""

from dataclasses import replace

from wmzoo.config import Scale
from wmzoo.study import Study

from . import implicit_vs_explicit

ROWS = (
    "flare",
    "policy_embedding",
    "flare_off",
    "flare_current",
    "flare_shuffled",
    "flare_frozen",
    "flare_video",
    "flare_video, twice the steps",
)


def study(scale: Scale = "small") -> Study:
    """The same arms, steps, settings and handles; the differences are to FLARE instead of the policy."""
    whole = implicit_vs_explicit.study(scale)
    question = "Does FLARE owe what it reaches to the future, to any target, to its tokens, or to its embedding?"
    return replace(whole, question=question, rows={name: whole.rows[name] for name in ROWS if name in whole.rows}, baseline="flare")
