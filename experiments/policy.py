"""The policy alone: flow matching on action chunks with a DiT (GR00T N1, pi0).  The baseline of every comparison."""

from wmzoo.config import Experiment, Optim, Scale, Shape, Term
from wmzoo.data import Data
from wmzoo.models import conv, dit, embodiment, observer, text
from wmzoo.objectives import flow


def config(scale: Scale = "small") -> Experiment:
    return Experiment(
        name="policy",
        shape=Shape(width=128, depth=8),
        trunk=dit.Config(),
        observer=observer.Config(conv.Config(), text.Config()),
        objectives={"flow": Term(flow.Config(embodiment.InConfig(), embodiment.OutConfig()), weights={"velocity": 1.0})},
        data=Data(),
        optim=Optim(steps=4000),
    )
