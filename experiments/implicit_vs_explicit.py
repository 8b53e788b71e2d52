"""The main comparison: policy alone, implicit and explicit world models, each with its controls, few and many demonstrations.

wmzoo study implicit_vs_explicit
wmzoo study implicit_vs_explicit --rows uwm flare lara --seeds 0      a part of it; the same cells
"""

from dataclasses import replace

from wmzoo import registry
from wmzoo.config import Scale
from wmzoo.study import Row, Study

ARMS = (
    *("policy", "policy_embedding", "diffusion_policy"),
    *("flare", "flare_off", "flare_current", "flare_shuffled", "flare_frozen"),
    *("lara", "lara_off", "lara_align", "lara_frozen", "lara_current", "lara_shuffled", "lapa"),
    *("policy_rla", "uwm_rla"),
    *("uwm", "uwm_off", "uwm_current", "uwm_shuffled", "uwm_change", "pad", "gr1"),
    *("flare_lara", "flare_rla", "uwm_flare", "uwm_lara"),
)
FEW, MANY = "10 demonstrations", "40 demonstrations"
ACTIONLESS = ("vit_mae", "lam", "codes", "rla", "pixels", "codec")  # stages that read no action


def study(scale: Scale = "small") -> Study:
    """At small scale every arm has 1,000 steps; the rows with twice the steps take about the time of `uwm`.

    With ten demonstrations, stages that read no action also see forty videos a task; with forty, fourteen episodes are left to be videos.
    FLARE also stands there with a quarter of the paper's weight, which validation windows prefer here (LOG.md).
    """
    steps = {"optim.steps": 1000} if scale == "small" else {}
    videos = 0 if scale == "tiny" else 40  # the toy has too few

    def watched(name: str) -> dict[str, int]:
        return {f"stages.{stage}.data.videos": videos for stage in registry.arm(name, scale).stages if videos and stage in ACTIONLESS}

    rows = {name: Row(name, within={FEW: watched(name)}) for name in ARMS}
    if scale == "small":
        rows |= {f"{name}, twice the steps": replace(rows[name], fields={"optim.steps": 2000}) for name in ("policy", "flare", "uwm")}
        rows["flare, weight 0.05"] = Row("flare", {"objectives.flare.weight": 0.05})
    for name in ("flare_video", "lara_video", "uwm_video"):
        rows[name] = Row(name, within={FEW: {"data.videos": 40, **watched(name)}, MANY: {"data.videos": 14}})
        if scale == "small":  # as many windows with actions as the other rows see
            rows[f"{name}, twice the steps"] = replace(rows[name], fields={"optim.steps": 2000})
    return Study(
        question="Does a world model help a policy, and must it be explicit (generate the future) or implicit (align with its embedding)?",
        rows=rows,
        baseline="policy",
        settings={FEW: {"data.demos": 10, **steps}, MANY: {"data.demos": 40, **steps}},
    )
