"""Is this machine fit?  Every finding is measured now, on this machine."""

import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import torch

from . import tasks
from .collect import record
from .errors import UserError
from .interfaces import Task
from .kernels import bf16_is_fast
from .tasks.metaworld import choose_gl

PACKAGES = (
    "torch",
    "torchvision",
    "lightning",
    "diffusers",
    "transformers",
    "timm",
    "vector-quantize-pytorch",
    "torchmetrics",
    "lpips",
    "wandb",
    "metaworld",
    "mujoco",
)


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    ok: bool
    found: str

    def __str__(self) -> str:
        return f"{'ok ' if self.ok else 'BAD'}  {self.name:24} {self.found}"


def examine() -> list[Finding]:
    """Everything, the cheap things first; what cannot be looked at is a finding that is not ok."""
    findings = [_packages(), Finding("machine", True, f"{platform.machine()}, {os.cpu_count()} cores, {_device()}"), _products()]
    for name in ("toy-red", "drawer-open"):
        try:
            findings += _simulator(name, tasks.make(name, 96))
        except (UserError, ImportError) as error:
            findings.append(Finding(name, False, str(error)))
    return findings


def _packages() -> Finding:
    found, missing = [], []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            missing.append(package)
    said = ", ".join(found) + (f"; missing: {', '.join(missing)}; type: pip install {' '.join(missing)}" if missing else "")
    return Finding("packages", not missing, said)


def _device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else torch.backends.cpu.get_cpu_capability()


def _products() -> Finding:
    fp32, bf16 = (matmul_speed(dtype) for dtype in (torch.float32, torch.bfloat16))
    use = "bf16" if torch.cuda.is_available() or bf16_is_fast() else "fp32"
    agrees = (bf16 > fp32) == (use == "bf16")
    return Finding("matrix products", agrees, f"fp32 {fp32:.0f}, bf16 {bf16:.0f} GFLOP/s; training uses {use}")


def matmul_speed(dtype: torch.dtype, size: int = 2048, repeats: int = 5) -> float:
    """The best of a few products of square matrices, in GFLOP/s, on the device that training would use."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    a, b = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
    return 2 * size**3 / best_time(lambda: a @ b, repeats) / 1e9


def best_time(function: Callable[[], object], repeats: int) -> float:
    """The shortest of a few calls, in seconds, after one that does not count."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def _simulator(name: str, task: Task) -> Iterator[Finding]:
    if not name.startswith("toy"):
        task.reset(0)
        speed = 1 / best_time(task.look, 20)
        yield Finding("drawing", speed > 50, f"{choose_gl()}, {speed:.0f} frames/s at 96 pixels (wanted: above 50)")

    def start(seed: int) -> np.ndarray:
        task.reset(seed)
        return task.look().frame

    first, other, again = start(0), start(1), start(0)
    seeds = bool((first == again).all() and (first != other).any())
    yield Finding(
        f"seeds of {name}", seeds, "two seeds, two start states; one seed, one" if seeds else "a seed does not name a start state"
    )
    solved = sum(record(task, seed)[0] is not None for seed in range(900_000, 900_005))
    yield Finding(f"expert of {name}", solved >= 4, f"succeeds in {solved} of 5")
    task.close()
