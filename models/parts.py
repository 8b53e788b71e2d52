"""How does a part of a network start from a finished run?  By its name in that run, whichever arm and objective it was part of."""

import re

from torch import nn

from wmzoo.errors import UserError
from wmzoo.files import exported

from .backbones import located, one_line
from .vit_mae import run_export


def take(part: nn.Module, name: str, weights: str, what: str) -> None:
    """Give `part` the weights that an objective of a finished run calls `name`.

    Args:
        weights: the run's folder, or its export.
        what: the part in words, for the message.

    Raises:
        UserError: that run has no such part, or one of another architecture.
    """
    run = located(weights)
    export = run_export(run)
    if export is None:
        raise UserError(f"{run} is no run folder: it has no config.yaml")
    with one_line(str(run), f"this {what.partition(';')[0]}"):
        named = re.compile(rf"objectives\.\w+\.{name}\.(.*)")
        found = {match[1]: value for key, value in exported(export).items() if (match := named.match(key))}
        if not found:
            raise ValueError(f"it has no {what}")
        part.load_state_dict(found)


def require_frozen(encoder: nn.Module, user: str) -> None:
    """Raise UserError if this encoder changes while it trains."""
    if not hasattr(encoder, "fingerprint"):
        raise UserError(f"{user} live in a frozen feature space: set the encoder's `frozen` to True")
