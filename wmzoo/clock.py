"""What time is it?  Zoo time: t = 0 is noise (or any source), t = 1 is data; every foreign convention is translated here.

x_t = (1 - t) source + t data          interpolate
v   = data - source                    velocity
t   = 1 - s,  v = -u                   to_zoo_time      (foreign networks with s = 1 at noise)
t   ~ 0.999 (1 - b), b ~ Beta(1.5, 1)  draw("groot")    (GR00T N1.6 and N1.7, FLARE, LARA; pi0 is the same in zoo time)
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from .errors import unknown
from .shapes import checked

NOISE_AT_ONE = {"pi0", "repa", "rae", "rla_wm", "uwm_flow"}  # x_s = (1 - s) data + s noise, u = noise - data
DATA_AT_ONE = {"zoo", "groot", "flare", "lara"}
Field = Callable[[Tensor, Tensor], Tensor]  # (value (B, ...), clock (B,)) -> velocity like value


def spread(clock: Tensor, like: Tensor) -> Tensor:
    """A clock (B,) or (B, N) with trailing axes of 1 so that it multiplies `like` (B, N, ...)."""
    return clock.reshape(*clock.shape, *(1,) * (like.ndim - clock.ndim))


@checked
def interpolate(
    source: Float[Tensor, "B *rest"], data: Float[Tensor, "B *rest"], clock: Float[Tensor, "B"] | Float[Tensor, "B N"]
) -> Float[Tensor, "B *rest"]:
    """The noisy value at a clock: the source at 0, the data at 1.

    Raises:
        TypeCheckError: source and data differ in shape; nothing is broadcast.
        ValueError: the clock is neither one for each window nor one for each token.
    """
    if clock.shape != data.shape[: clock.ndim]:
        raise ValueError(f"a clock for {tuple(data.shape)} is {tuple(data.shape[: clock.ndim])}, not {tuple(clock.shape)}")
    t = spread(clock, data)
    return (1 - t) * source + t * data


@checked
def velocity(source: Float[Tensor, "B *rest"], data: Float[Tensor, "B *rest"]) -> Float[Tensor, "B *rest"]:
    """The constant velocity of the straight path from source to data."""
    return data - source


def to_zoo_time(kind: str, net: Field) -> Field:
    """A velocity field in zoo time from a foreign network, which keeps seeing its own time.

    Args:
        kind: whose convention `net` was trained in, e.g. "pi0" or "groot".
        net: the network as it was trained, (x, s) -> u.

    Raises:
        UserError: a convention nobody told us about.
    """
    if kind in DATA_AT_ONE:
        return net
    if kind in NOISE_AT_ONE:
        return lambda x, t: -net(x, 1 - t)
    raise unknown("time convention", kind, NOISE_AT_ONE | DATA_AT_ONE)


@checked
def shift(clock: Float[Tensor, "*any"], factor: float) -> Float[Tensor, "*any"]:
    """RAE's dimension-dependent time shift, a t / (1 + (a - 1) t); fixes 0 and 1, and pushes toward 1 where a > 1.

    The clock is RAE's own, where 1 is noise; factor = sqrt(numbers per sample / 4096).
    """
    return factor * clock / (1 + (factor - 1) * clock)


def _beta(n: int, device: torch.device | str) -> Tensor:
    """Beta(1.5, 1): its distribution function is b^1.5, so a uniform number to the power 2/3."""
    return torch.rand(n, device=device) ** (2 / 3)


SAMPLERS: dict[str, Callable[[int, torch.device | str], Tensor]] = {
    "groot": lambda n, d: 0.999 * (1 - _beta(n, d)),
    "legacy_n15": lambda n, d: (0.999 - _beta(n, d)) / 0.999,  # P(t < 0) = .0015, as in GR00T N1.5; `draw` clamps at 0
    "pi0": lambda n, d: 1 - (0.999 * _beta(n, d) + 0.001),
    "uniform": lambda n, d: torch.rand(n, device=d),
    "logit_normal": lambda n, d: torch.sigmoid(torch.randn(n, device=d)),
}


def draw(kind: str, n: int, device: torch.device | str = "cpu") -> Float[Tensor, "n"]:
    """n training clocks in zoo time from the named sampler, clamped to [0, 1].

    Raises:
        UserError: no sampler has that name.
    """
    if kind not in SAMPLERS:
        raise unknown("clock sampler", kind, SAMPLERS)
    return SAMPLERS[kind](n, device).clamp(0, 1)
