"""Control: BC-RLA whose target is the latent of another window."""

from wmzoo.config import Experiment, Scale

from . import bc_rla
from .bc_rla_current import altered


def config(scale: Scale = "small") -> Experiment:
    return altered(bc_rla.config(scale), "bc_rla_shuffled", "shuffled")
