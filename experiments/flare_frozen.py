"""FLARE toward a target that never moves: rho = 1."""

from wmzoo.config import Experiment, Scale
from wmzoo.models import targets

from . import flare


def config(scale: Scale = "small") -> Experiment:
    """FLARE with the embedding as it was after its stage."""
    arm = flare.config(scale)
    return flare.altered(arm, "flare_frozen", target=targets.FollowingConfig(rho=1.0))
