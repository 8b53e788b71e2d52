"""Control: BC-RLA whose target is the latent of no change at all."""

from dataclasses import replace

from wmzoo.config import Experiment, Scale

from . import bc_rla


def config(scale: Scale = "small") -> Experiment:
    return altered(bc_rla.config(scale), "bc_rla_current", "current")


def altered(arm: Experiment, name: str, control: str) -> Experiment:
    """The same arm with another target."""
    term = arm.objectives["bc"]
    return replace(arm, name=name, objectives={"bc": replace(term, config=replace(term.config, control=control))})
