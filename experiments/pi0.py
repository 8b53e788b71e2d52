"""The policy in the manner of pi0: one sequence, in which the observation is a prefix that is blind to what follows.

The trunk's weights are shared between prefix and actions (pi0 has two sets); everything else is the arm `policy`.  At paper scale it is
as wide and deep as pi0's action expert and trains as LARA's post-training of pi0.5 does; a head has 128 numbers, not 256.
"""

from dataclasses import replace

from wmzoo.config import Experiment, Optim, Play, Scale, Shape, Term
from wmzoo.models import dit, embodiment, observer, siglip2, text
from wmzoo.objectives import flow

from . import policy


def config(scale: Scale = "small") -> Experiment:
    """The policy's sizes and data; at paper scale those of pi0's action expert, with chunks of 50."""
    arm = policy.config("base" if scale == "paper" else scale)
    assert isinstance(arm.observer, observer.Config)
    assert isinstance(arm.trunk, dit.Config)
    arm = replace(
        arm,
        name="pi0",
        trunk=replace(arm.trunk, conditioning="joint"),
        observer=replace(arm.observer, blind=("state", "action"), state_blind=("action",)),
        objectives={"flow": Term(flow.Config(embodiment.InConfig(), embodiment.OutConfig(), sampler="pi0"), weights={"velocity": 1.0})},
        play=Play(steps=10, execute=arm.play.execute),
    )
    if scale != "paper":
        return arm
    eyes = replace(arm.observer, encoder=siglip2.VisionConfig("none"), text=text.Config(width=1024, depth=4, heads=16))
    optim = Optim(steps=60_000, lr=5e-5, warmup=10_000 / 60_000, ema=0.999)
    return replace(arm, shape=Shape(1024, 18), observer=eyes, data=replace(arm.data, size=256, horizon=50, batch=16), optim=optim)
