"""Is it the agreement?  LARA against the policy and its own controls, on the cells of implicit_vs_explicit.

wmzoo study lara_controls
"""

from dataclasses import replace

from wmzoo.config import Scale
from wmzoo.study import Study

from . import implicit_vs_explicit

ROWS = ("policy", "lara", "lara_off", "lara_align", "lara_frozen", "lara_current", "lara_shuffled", "lapa")


def study(scale: Scale = "small") -> Study:
    """The same arms, steps, settings and handles; the differences are to LARA instead of the policy."""
    whole = implicit_vs_explicit.study(scale)
    question = "Does LARA owe what it reaches to the agreement, to its model's own loss, or to training both together?"
    return replace(whole, question=question, rows={name: whole.rows[name] for name in ROWS}, baseline="lara")
