"""The policy alone with FLARE's eye, warm-started like FLARE's: the baseline that differs from `flare` in nothing but FLARE."""

from dataclasses import replace

from wmzoo.config import Experiment, Scale

from . import embedding, policy


def config(scale: Scale = "small") -> Experiment:
    """The eye starts from the stage `embedding`, the trunk is fresh (in the paper too both arms are warm-started)."""
    stage, arm = embedding.config(scale), policy.config(scale)
    eye = replace(embedding.observer(scale), weights="stage:embedding")
    return replace(arm, name="policy_embedding", shape=stage.shape, observer=eye, stages={"embedding": stage})
