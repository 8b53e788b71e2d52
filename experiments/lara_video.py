"""LARA with videos: the latent action model learns from them, and what the policy knows of a chunk before it is drawn agrees with it.

wmzoo train lara_video --data.demos 10 --data.videos 40 --out runs/lara_video
"""

from dataclasses import replace

from wmzoo.config import Experiment, Scale
from wmzoo.objectives import lara_video

from . import lara


def config(scale: Scale = "small") -> Experiment:
    """`--data.demos k --data.videos n`: k demonstrations and n videos a task; half of each batch is video."""
    arm = lara.config(scale, lara_video.Config)
    few = {"demos": 4, "videos": 4} if scale == "tiny" else {"demos": 10, "videos": 40}
    return replace(arm, name="lara_video", data=replace(arm.data, **few))
