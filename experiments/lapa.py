"""LAPA: a policy whose trunk first learnt to name latent actions from video.  The older way, LARA's baseline."""

from dataclasses import replace

from wmzoo.config import Experiment, Scale

from . import lapa_codes, policy


def config(scale: Scale = "small") -> Experiment:
    """The policy itself; only where its weights start differs."""
    before = lapa_codes.config(scale)
    return replace(policy.config(scale), name="lapa", start="stage:codes", stages={**before.stages, "codes": replace(before, stages={})})
