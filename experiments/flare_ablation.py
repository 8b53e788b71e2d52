"""FLARE's own choices, one at a time: tap, weight, averaging of the target, the target itself.

wmzoo study flare_ablation

Small arms have 1,000 steps: a target with the paper's rho of 0.995, which remembers 200 of them, remembers a fifth of the training;
one with 0.9 remembers a hundredth.
"""

from wmzoo.config import Scale
from wmzoo.study import Row, Study

FIELDS = {  # the default stands in the row `flare`
    "tap": ("objectives.flare.config.tap", (0.25, 0.5, 1.0)),
    "weight": ("objectives.flare.weight", (0.05, 0.1, 0.5, 1.0)),
    "rho": ("objectives.flare.config.target.rho", (0.9, 0.99, 1.0)),
}


GRID = {"tiny": 4, "small": 12, "base": 12, "paper": 16}  # rows of the frozen encoder's tokens


def study(scale: Scale = "small") -> Study:
    swept = {f"{name} {value}": Row("flare", {path: value}) for name, (path, values) in FIELDS.items() for value in values}
    others = {name: Row(name) for name in ("policy_embedding", "flare_off", "flare_current", "flare_shuffled", "flare_tokens")}
    align = "objectives.flare.config"
    others["flare_tokens, not pooled"] = Row("flare_tokens", {f"{align}.target.rows": GRID[scale], f"{align}.tokens": GRID[scale] ** 2})
    return Study(
        question="Which of FLARE's choices matter?",
        rows={"flare": Row("flare"), **swept, **others},
        baseline="flare",
        settings={"": {"data.demos": 10, "optim.steps": 1000} if scale == "small" else {}},
    )
