"""LARA's own choices, one at a time: tap, weights, which terms, which way the gradient goes.

wmzoo study lara_ablation
"""

from wmzoo.config import Scale
from wmzoo.study import Row, Study

LARA = "objectives.lara"
TAPS: dict[Scale, tuple[int, ...]] = {"tiny": (-2, -3)}  # of four blocks, where the default is -1; elsewhere -2


def study(scale: Scale = "small") -> Study:
    swept = {
        **{f"tap {tap}": Row("lara", {f"{LARA}.config.tap": tap}) for tap in TAPS.get(scale, (-1, -6))},
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
