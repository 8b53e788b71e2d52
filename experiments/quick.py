"""One seed of each family on three real tasks, in half an hour on two cores: what `make demo` runs.

wmzoo study quick          then open runs/studies/quick/report.html
"""

from wmzoo.config import Scale
from wmzoo.study import Row, Study

STAGES = {"embedding": 300, "vit_mae": 400, "rla": 400, "lam": 400, "codec": 400}  # steps; their own recipes are longer


def study(scale: Scale = "small") -> Study:
    """Short recipes at small scale; at others the arms' own."""

    def row(arm: str, *stages: str, videos: int = 0) -> Row:
        """With as many demonstrations as the others, and these videos for the arm and its stages."""
        if scale != "small":
            return Row(arm)
        watched = {"data.demos": 40, "data.videos": videos, **{f"stages.{stage}.data.videos": videos for stage in stages}}
        return Row(arm, {**{f"stages.{stage}.optim.steps": STAGES[stage] for stage in stages}, **(watched if videos else {})})

    return Study(
        question="Does a world model help a policy, and must it be explicit?  A first look, with one training seed.",
        rows={
            "policy": row("policy"),
            "flare": row("flare", "embedding"),
            "uwm": row("uwm", "codec"),
            "lara": row("lara", "vit_mae", "lam"),
            "bc_rla": row("bc_rla", "vit_mae", "rla", videos=14),
        },
        baseline="policy",
        settings={"": {"optim.steps": 400} if scale == "small" else {}},
        seeds=(0,),
        handles=10,
    )
