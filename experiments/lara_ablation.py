"""LARA's own choices, one at a time: tap, weights, which terms, which way the gradient goes.

wmzoo study lara_ablation
"""

from wmzoo.config import Scale
from wmzoo.study import Row, Study

LARA = "objectives.lara"
# L, -6, and what follows the default, -2; of the four blocks at tiny scale, where it is -1
TAPS: dict[Scale, tuple[int, ...]] = {"tiny": (4, -3), "small": (8, -6), "base": (12, -6), "paper": (16, -6)}


def study(scale: Scale = "small") -> Study:
    swept = {
        **{f"tap {tap}": Row("lara", {f"{LARA}.config.tap": tap}) for tap in TAPS[scale]},
        "weights .1": Row("lara", {f"{LARA}.weight": 10.0}),
        "weights 1": Row("lara", {f"{LARA}.weight": 100.0}),
        "align alone": Row("lara", {f"{LARA}.weights.lam": 0.0}),
        "detached": Row("lara", {f"{LARA}.config.detach": True}),
    }
    others = {name: Row(name) for name in ("policy", "lara_off", "lara_frozen", "lara_current", "lara_shuffled")}
    return Study(
        question="Which of LARA's choices matter?",
        rows={"lara": Row("lara"), **swept, **others},
        baseline="lara",
        settings={"": {"optim.steps": 1000} if scale == "small" else {}},
        measures=("play", "probe"),
    )
