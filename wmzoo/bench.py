"""How fast is it?  Ratios within one run on this machine, never figures to be compared with another day's."""

import resource
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from . import registry, tasks
from .batch import Batch
from .collect import FIRST_SEED, collect, record
from .compose import Hybrid
from .config import Experiment, build_for, needs_of, self_contained
from .data import Data, Windows
from .doctor import matmul_speed
from .interfaces import Denoiser, Sizes, Trunk
from .kernels import Kernel, attention_kernel, bf16_is_fast, keep_freed_memory
from .module import Average, parameter_groups
from .question import Stream
from .rollout import evaluate
from .run import export

TRUNKS = ((128, 6, 4), (256, 8, 8))  # width, depth, heads
POLICY_TOKENS, CONDITION_TOKENS = 33, 37


@dataclass(frozen=True)
class Way:
    """One way to do the same arithmetic."""

    name: str
    dtype: torch.dtype
    kernel: Kernel
    compiled: bool = False


PLAIN = Way("fp32, fused attention", torch.float32, "fused")
FAMILIES = ("policy", "policy_embedding", "flare", "lara", "lara_frozen", "uwm")  # the first is the reference
EAGER = Way("bf16, written-out attention", torch.bfloat16, "auto")
COMPILED = Way("bf16, written-out attention, compiled", torch.bfloat16, "auto", compiled=True)


def measure(seconds: float, compiled: bool) -> dict[str, Any]:
    """Everything the table shows.  Each timing takes about `seconds`; ways of doing one thing are timed in turns.

    Args:
        seconds: time for each thing that is timed.
        compiled: also torch.compile, which takes minutes before it is timed.
    """
    keep_freed_memory()
    fast = torch.bfloat16 if torch.cuda.is_available() or bf16_is_fast() else torch.float32
    peak = {"fp32": matmul_speed(torch.float32), "bf16": matmul_speed(torch.bfloat16)}
    result: dict[str, Any] = {"matmul GFLOP/s": peak}
    result["trunk"] = [trunk_row(*shape, seconds, compiled) for shape in TRUNKS]
    with tempfile.TemporaryDirectory() as folder:
        arm = registry.arm("policy")
        arm = replace(arm, data=replace(arm.data, root=folder, demos=4))
        names = tasks.resolve(arm.data.tasks)
        collect(names, Path(folder), arm.data.size, 5, processes=1)
        windows = Windows(arm.data, needs_of(arm), seed=0)
        result["step"] = step_rows(arm, windows, seconds, peak["bf16" if fast == torch.bfloat16 else "fp32"], compiled)
        result["collecting frames/s, one process"] = collecting_speed(names[0], arm.data.size, seconds)
        drawn = _median(lambda: windows.train(1), seconds / 4)
        result["drawing"] = {"milliseconds": 1000 * drawn, "share of a step": drawn / result["step"]["ways"][-1]["seconds"]}
        hybrid = build_for(arm, windows)
        result["chunk"] = chunk_rows(arm, hybrid, windows, seconds)
        result["arms"] = arm_rows(arm.data, seconds)
        export(arm, hybrid, windows, Path(folder) / "run" / "export", [])
        played = evaluate(Path(folder) / "run", windows.names, 20, 2, tuning=True, videos=False)
        result["60 episodes, seconds"] = played["seconds"]
    result["peak memory GB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return result


def measure_arms(names: Sequence[str], seconds: float) -> dict[str, Any]:
    """Training step and chunk of these arms and of `policy`, on a few episodes recorded for it."""
    keep_freed_memory()
    arms = {name: registry.arm(name) for name in dict.fromkeys((FAMILIES[0], *names))}
    with tempfile.TemporaryDirectory() as folder:
        data = replace(arms[FAMILIES[0]].data, root=folder, demos=4)
        collect(tasks.resolve(data.tasks), Path(folder), data.size, 5, processes=1)
        return {"arms": arm_rows(data, seconds, tuple(arms))}


def collecting_speed(name: str, size: int, seconds: float) -> float:
    """Frames a second of one process that records expert episodes of a task, the simulator's start left out."""
    task, frames, seed = tasks.make(name, size), 0, FIRST_SEED
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        arrays, _ = record(task, seed)
        frames, seed = frames + (0 if arrays is None else len(arrays["frames"])), seed + 1
    speed = frames / (time.perf_counter() - start)
    task.close()
    return speed


def step_rows(arm: Experiment, windows: Windows, seconds: float, peak: float, compiled: bool) -> dict[str, Any]:
    """The whole training step of an arm (draw excluded) in several ways, and how far their gradients are apart."""
    batch = windows.train(0)
    ways = (PLAIN, EAGER, COMPILED) if compiled else (PLAIN, EAGER)
    steps, gradients, operations = [], [], 0
    for way in ways:
        torch.manual_seed(0)
        hybrid = build_for(arm, windows)
        if way is PLAIN:
            with FlopCounterMode(display=False) as counter:
                _loss(hybrid, batch, arm, way).backward()
            operations = counter.get_total_flops()
            hybrid.zero_grad(set_to_none=True)
        generator = torch.Generator().manual_seed(1)
        for parameter in hybrid.parameters():  # away from the zero-initialised layers, so that every gradient is there
            parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator)
        _loss(hybrid, batch, arm, way).backward()
        gradients.append(torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in hybrid.parameters()]))
        steps.append(_stepper(hybrid, batch, arm, way))
    times = _in_turns(steps, seconds)
    rows = [
        {
            "way": way.name,
            "seconds": t,
            "speed-up": times[0] / t,
            "share of matmul peak": operations / t / 1e9 / peak,
            "gradient cosine": float(nn.functional.cosine_similarity(gradient, gradients[0], dim=0)),
        }
        for way, t, gradient in zip(ways, times, gradients, strict=True)
    ]
    return {"GFLOP": operations / 1e9, "batch": len(batch), "ways": rows}


def _loss(net: Callable[[Batch], Any], batch: Batch, arm: Experiment, way: Way) -> Tensor:
    torch.manual_seed(0)
    batch.features.clear()
    with attention_kernel(way.kernel), torch.autocast("cpu", way.dtype, enabled=way.dtype != torch.float32):
        scores = net(batch)
    return torch.stack([arm.weights[term] * score.mean() for term, score in scores.items()]).sum()


def _stepper(hybrid: Hybrid, batch: Batch, arm: Experiment, way: Way) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(parameter_groups(hybrid, arm.optim.decay), lr=1e-6, fused=True)
    average, net = Average(hybrid, 0.999), torch.compile(hybrid) if way.compiled else hybrid

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        _loss(net, batch, arm, way).backward()
        nn.utils.clip_grad_norm_(hybrid.parameters(), arm.optim.clip)
        optimizer.step()
        hybrid.after_step()
        average.update(hybrid, 1)

    return step


def arm_rows(data: Data, seconds: float, names: Sequence[str] = FAMILIES) -> list[dict[str, Any]]:
    """Training step (draw excluded, targets and their EMA included) and chunk of each arm on the same data and batch; ratios to the first.

    What has no policy has no chunk.
    """
    arms = [replace(self_contained(registry.arm(name)), data=data) for name in names]
    steps, chunks = [], {}
    for arm in arms:
        windows = Windows(arm.data, needs_of(arm), seed=0)
        hybrid, batch = build_for(arm, windows), windows.train(0)
        player = build_for(arm, windows).strip().eval()
        steps.append(_stepper(hybrid, batch, arm, EAGER))
        noise = torch.randn(1, windows.config.horizon, windows.action_size)
        if any(isinstance(objective, Denoiser) and objective.stream == "action" for objective in player.objectives.values()):
            chunks[arm.name] = partial(player.act, batch[:1], noise, arm.play.steps)
    times, latencies = _in_turns(steps, seconds), dict(zip(chunks, _in_turns([*chunks.values()], seconds / 4), strict=True))
    rows: list[dict[str, Any]] = []
    for arm, t in zip(arms, times, strict=True):
        rows.append({"arm": arm.name, "milliseconds": 1000 * t, "ratio": t / times[0]})
        if (chunk := latencies.get(arm.name)) is not None:
            rows[-1] |= {"chunk": 1000 * chunk, "chunk ratio": chunk / latencies[arms[0].name]}
    return rows


def trunk_row(width: int, depth: int, heads: int, seconds: float, compiled: bool) -> dict[str, Any]:
    """The trunk alone, forward, backward and AdamW: GR00T's blocks as published, in parity mode, and the default.

    The reference is the parity trunk in fp32 with the fused kernel: the arithmetic of GR00T's own blocks.
    """
    sizes = Sizes(width, depth, width, width, 16, 4, 4, 96, 1, 1, 2)
    groot = cast("Any", registry.module("models", "groot")).Config(
        heads=heads, head_dim=width // heads, context_width=width, out_width=width, dropout=0.0
    )
    default = cast("Any", registry.module("models", "dit")).Config(heads=max(1, width // 64))
    reference, parity, ours = (cast("Trunk", part.build(sizes)) for part in (groot, groot, default))
    tokens = {"observation": CONDITION_TOKENS, "state": 1, "action": POLICY_TOKENS - 1}
    streams = {name: Stream(torch.randn(64, n, width), torch.rand(64) if name == "action" else None) for name, n in tokens.items()}
    streams["state"] = replace(streams["state"], clock="action")

    def stepper(trunk: Trunk, way: Way) -> Callable[[], None]:
        optimizer = torch.optim.AdamW(trunk.parameters(), lr=1e-6, fused=way is not PLAIN)
        net = torch.compile(trunk) if way.compiled else trunk

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            with attention_kernel(way.kernel), torch.autocast("cpu", way.dtype, enabled=way.dtype != torch.float32):
                out = net(streams).final["action"]
            out.float().square().mean().backward()
            optimizer.step()

        return step

    names = ("GR00T blocks as published (fp32, fused attention)", "parity mode, ours", "default mode", "default mode, compiled")
    trunks = ((reference, PLAIN), (parity, EAGER), (ours, EAGER), (ours, COMPILED))[: 4 if compiled else 3]
    times = _in_turns([stepper(*pair) for pair in trunks], seconds)
    rows = [{"trunk": name, "steps/s": 1 / t, "ratio": times[0] / t} for name, t in zip(names, times, strict=False)]
    return {"width": width, "depth": depth, "tokens": [POLICY_TOKENS, CONDITION_TOKENS], "batch": 64, "rows": rows}


def chunk_rows(arm: Experiment, hybrid: Hybrid, windows: Windows, seconds: float) -> dict[str, float]:
    """Milliseconds of one chunk for one window: observation remembered, and encoded again at every sampling step."""
    batch, noise = windows.train(0)[:1], torch.randn(1, windows.config.horizon, windows.action_size)
    hybrid.eval()

    def again() -> None:
        for _ in range(arm.play.steps):
            hybrid.act(batch, noise, 1)

    once, repeated = _in_turns([lambda: hybrid.act(batch, noise, arm.play.steps), again], seconds / 2)
    return {"steps": arm.play.steps, "milliseconds": 1000 * once, "encoded at every step": 1000 * repeated}


def _in_turns(functions: list[Callable[[], object]], seconds: float) -> list[float]:
    """Median time of each function, called in turns so that a slow moment of the machine hits all of them."""
    for function in functions:
        function()
        function()
    times: list[list[float]] = [[] for _ in functions]
    end = time.perf_counter() + seconds * len(functions)
    while time.perf_counter() < end or len(times[0]) < 3:
        for function, row in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            row.append(time.perf_counter() - start)
    return [float(np.median(row)) for row in times]


def _median(function: Callable[[], object], seconds: float) -> float:
    return _in_turns([function], seconds)[0]


def arms_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Training steps and chunks in words."""
    lines = ["arms on the same trunk and batch: training step, one chunk"]
    for row in rows:
        chunk = f"{row['chunk']:6.1f} ms  {row['chunk ratio']:5.2f}x" if "chunk" in row else "no policy"
        lines.append(f"  {row['arm']:40} {row['milliseconds']:7.1f} ms  {row['ratio']:5.2f}x   {chunk}")
    return "\n".join(lines)


def table(result: dict[str, Any]) -> str:
    """The result in words."""
    lines = ["matrix products: " + ", ".join(f"{name} {speed:.0f} GFLOP/s" for name, speed in result["matmul GFLOP/s"].items())]
    step = result["step"]
    lines.append(f"\ntraining step of `policy`, batch {step['batch']}, {step['GFLOP']:.1f} GFLOP")
    for row in step["ways"]:
        lines.append(
            f"  {row['way']:40} {1000 * row['seconds']:7.1f} ms  {row['speed-up']:5.2f}x  {100 * row['share of matmul peak']:5.1f}% of peak"
            f"  gradient cosine {row['gradient cosine']:.5f}"
        )
    for trunk in result["trunk"]:
        lines.append(f"\ntrunk alone, width {trunk['width']}, depth {trunk['depth']}, 33 + 37 tokens, batch 64: forward, backward, AdamW")
        lines += [f"  {row['trunk']:50} {row['steps/s']:6.2f} steps/s  {row['ratio']:5.2f}x" for row in trunk["rows"]]
    lines.append(f"\n{arms_table(result['arms'])}")
    chunk, drawing = result["chunk"], result["drawing"]
    lines += [
        f"\ndrawing a batch: {drawing['milliseconds']:.1f} ms, {100 * drawing['share of a step']:.1f}% of a step",
        f"one chunk, K = {chunk['steps']}: {chunk['milliseconds']:.1f} ms; encoded at every step: {chunk['encoded at every step']:.1f} ms",
        f"collecting: {result['collecting frames/s, one process']:.0f} frames/s a process",
        f"60 episodes, untrained (so each runs to its limit): {result['60 episodes, seconds']:.1f} s",
        f"peak memory: {result['peak memory GB']:.2f} GB",
    ]
    return "\n".join(lines)
