"""How does noise become data?  Integrate the velocity over the clock from 0 to 1."""

from collections.abc import Callable

import torch
from torch import Tensor

from .clock import Field
from .errors import unknown


def slope(field: Field, x: Tensor, clock: Tensor) -> Tensor:
    """The velocity at a value (B, ...) and a clock (B,).

    Raises:
        ValueError: the field gives another shape than it was asked at; nothing is broadcast.
    """
    v = field(x, clock)
    if v.shape != x.shape:
        raise ValueError(f"a velocity has the shape of its value {tuple(x.shape)}, not {tuple(v.shape)}")
    return v


def euler(field: Field, start: Tensor, steps: int) -> Tensor:
    """Forward Euler at t = 0, 1/K, ..., (K-1)/K; the field is never evaluated at 1.

    Raises:
        ValueError: as in `slope`.
    """
    x = start
    for i in range(steps):
        x = x + slope(field, x, torch.full((len(x),), i / steps, device=x.device)) / steps
    return x


def heun(field: Field, start: Tensor, steps: int) -> Tensor:
    """Heun's second-order rule; the last step is Euler's, since the field has no meaning at 1.

    Raises:
        ValueError: as in `slope`.
    """
    x = start
    for i in range(steps):
        now = torch.full((len(x),), i / steps, device=x.device)
        first = slope(field, x, now)
        if i + 1 < steps:
            first = (first + slope(field, x + first / steps, now + 1 / steps)) / 2
        x = x + first / steps
    return x


INTEGRATORS: dict[str, Callable[[Field, Tensor, int], Tensor]] = {"euler": euler, "heun": heun}


def integrate(kind: str, field: Field, start: Tensor, steps: int) -> Tensor:
    """The named integrator.

    Raises:
        UserError: no integrator has that name.
    """
    if kind not in INTEGRATORS:
        raise unknown("integrator", kind, INTEGRATORS)
    return INTEGRATORS[kind](field, start, steps)
