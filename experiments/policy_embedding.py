"""The policy alone with FLARE's eye, warm-started like FLARE's: the baseline that differs from `flare` in nothing but FLARE.

A deviation: the paper's policy-only baseline starts from the embedding and from the trunk that was trained with it, FLARE from the
embedding alone.  Here both have a fresh trunk, so the baseline is weaker than the paper's and the comparison is of one thing.
"""

from dataclasses import replace

from wmzoo.config import Experiment, Scale

from . import embedding, policy


def config(scale: Scale = "small") -> Experiment:
    """The eye starts from the stage `embedding`, the trunk is fresh."""
    stage, arm = embedding.config(scale), policy.config(scale)
    eye = replace(embedding.observer(scale), weights="stage:embedding")
    return replace(arm, name="policy_embedding", shape=stage.shape, observer=eye, stages={"embedding": stage})
