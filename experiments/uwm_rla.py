"""UWM-RLA, which nobody has published: one trunk as policy, dynamics, inverse model and predictor, in residual latents.

wmzoo train uwm_rla --out runs/uwm_rla
wmzoo eval runs/uwm_rla              plays
wmzoo eval runs/uwm_rla --predict    foresees
"""

from dataclasses import replace

from wmzoo.config import Experiment, Scale, Term
from wmzoo.models import observer
from wmzoo.objectives import uwm_rla

from . import feature_space, policy, rla


def config(scale: Scale = "small") -> Experiment:
    """Both clocks uniform and independent, as in UWM; the observer reads the feature space that is predicted."""
    arm = policy.config("base" if scale == "paper" else scale)
    flow, eye = arm.objectives["flow"], arm.observer
    term = uwm_rla.Config(rla.model(scale, "none" if scale == "paper" else "stage:rla"), feature_space.look(scale))
    space = feature_space.data(scale)
    return replace(
        arm,
        name="uwm_rla",
        observer=observer.Config(feature_space.encoder(scale), eye.text),
        objectives={
            "flow": replace(flow, config=replace(flow.config, sampler="uniform")),
            "uwm_rla": Term(term, weights={"velocity": 1.0}),
        },
        data=replace(arm.data, size=space.size, shift=0),
        stages={} if scale == "paper" else rla.stages(scale),
    )
