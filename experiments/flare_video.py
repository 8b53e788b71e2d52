"""FLARE with videos: demonstrations train everything, further episodes without actions train the alignment alone."""

from dataclasses import replace

from wmzoo.config import Experiment, Scale

from . import flare


def config(scale: Scale = "small") -> Experiment:
    """`--data.demos k --data.videos n`: k demonstrations and n videos a task; half of each batch is video."""
    arm = flare.config(scale)
    return replace(arm, name="flare_video", data=replace(arm.data, demos=4 if scale == "tiny" else 10, videos=4 if scale == "tiny" else 40))
