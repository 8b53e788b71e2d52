"""UWM: one trunk as policy, dynamics, inverse model and video model, in the latents of a codec.

wmzoo train uwm --out runs/uwm
wmzoo eval runs/uwm                          plays
wmzoo eval runs/uwm --predict                foresees, in the codec's latents and in pixels
wmzoo eval runs/uwm --predict --space RUN    also in the feature space of another world model's run
"""

from dataclasses import replace
from typing import Any

from wmzoo.config import Experiment, Optim, Play, Scale, Shape, Term
from wmzoo.data import Data
from wmzoo.models import backbones, text
from wmzoo.models import uwm as parity
from wmzoo.objectives import ddpm, uwm

from . import codec, policy


def config(scale: Scale = "small") -> Experiment:
    """The policy's eye, trunk and data; both clocks uniform and independent; at paper scale the published network."""
    if scale == "paper":
        return paper()
    arm = policy.config(scale)
    flow = arm.objectives["flow"]
    term = uwm.Config(codec.frozen(scale), gaps=(arm.data.horizon,))
    return replace(
        arm,
        name="uwm",
        objectives={
            "flow": replace(flow, config=replace(flow.config, sampler="uniform")),
            "uwm": Term(term, weights={"velocity": 1.0}),
        },
        stages=codec.stages(scale),
    )


def paper() -> Experiment:
    """Three cameras, two frames seen, two generated; noise is predicted, on windows without actions too, and DDIM plays.

    We differ: the rate rises and falls (published: constant), the eye starts from noise (ImageNet) and sees frames moved by up to four
    pixels (a crop of 224 of a larger frame, and other colours).
    """
    encoder = backbones.Config("resnet18", "none", size=224, frozen=False, group_norm=True)
    term = uwm.Config(codec.CODECS["paper"], gaps=(16, 17), path="epsilon", drop=0.0, registers=0, scaling="none", history=2)
    actions = ddpm.Config(parity.InConfig(), parity.OutConfig(), history=1, idle=True)
    return Experiment(
        name="uwm",
        shape=Shape(width=768, depth=12),
        trunk=parity.Config(),
        observer=parity.ObserverConfig(encoder, text.Config()),
        objectives={"ddpm": Term(actions, weights={"denoise": 1.0}), "uwm": Term(term, weights={"noise": 1.0})},
        data=Data(tasks=("mw10",), size=224, batch=144),
        optim=Optim(steps=100_000, lr=1e-4, betas=(0.9, 0.999), decay=1e-6, clip=float("inf"), ema=0.0),
        play=Play(steps=10),
    )


def joined(arm: Experiment, name: str, scale: Scale) -> Experiment:
    """An arm that generates the frame too; sealed, as what is aligned with the future must not read it off the video."""
    explicit = config(scale)
    both = replace(arm, objectives={**arm.objectives, **explicit.objectives}, stages={**arm.stages, **explicit.stages})
    return sealed(both, name)


def altered(arm: Experiment, name: str, **fields: Any) -> Experiment:
    """The same arm under another name with some fields of its video changed."""
    term = arm.objectives["uwm"]
    return replace(arm, name=name, objectives={**arm.objectives, "uwm": replace(term, config=replace(term.config, **fields))})


def sealed(arm: Experiment, name: str) -> Experiment:
    """The leak rule of hybrids: nobody but the video looks at the video, not even through others, and half of the windows have none.

    What is aligned with the future must not read it off the video.  The price: actions cannot be asked for a given future.
    """
    flow, eye = arm.objectives["flow"], arm.observer
    arm = altered(arm, name, blind=("video",), drop=0.5)
    return replace(
        arm,
        observer=replace(eye, state_blind=("video",)),
        objectives={**arm.objectives, "flow": replace(flow, config=replace(flow.config, blind=("video",)))},
    )
