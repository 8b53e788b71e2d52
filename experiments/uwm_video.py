"""UWM with co-training: half of each batch is video without actions, which teaches the frames alone.

wmzoo train uwm_video --data.demos 10 --data.videos 40 --out runs/uwm_video
"""

from dataclasses import replace

from wmzoo.config import Experiment, Scale

from . import uwm


def config(scale: Scale = "small") -> Experiment:
    """`--data.demos k --data.videos n`: k demonstrations and n videos a task."""
    arm = uwm.config(scale)
    few = {"demos": 4, "videos": 4} if scale == "tiny" else {"demos": 10, "videos": 40}
    return replace(arm, name="uwm_video", data=replace(arm.data, **few))
