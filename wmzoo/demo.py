"""What does a newcomer see first?  Demonstrations, a policy trained on them, and how it plays, from nothing."""

import csv
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from . import tasks
from .collect import collect
from .registry import arm
from .rollout import evaluate, table
from .run import train

CORES = os.cpu_count() or 1
STEPS = 1000
HANDLES = 10


def demo(out: Path) -> None:
    """Collect mw3, train `policy` briefly, play it, film it, and draw the page demo.png."""
    start = time.monotonic()
    experiment = arm("policy")
    experiment = replace(experiment, optim=replace(experiment.optim, steps=STEPS))
    names = tasks.resolve(experiment.data.tasks)
    print(f"1/3  recording demonstrations of {', '.join(names)} with scripted experts")
    collect(names, Path(experiment.data.root), experiment.data.size, 60, CORES)
    print(f"2/3  training the arm `policy` for {STEPS} steps (the full recipe has {arm('policy').optim.steps})")
    train(experiment, out)
    print(f"3/3  playing {HANDLES} start states of each task that it has never seen")
    result = evaluate(out, names, HANDLES, CORES)
    draw(out, names)
    print(f"\n{table(result)}\n\npicture: {out / 'demo.png'}   films: {out / 'videos'}   figures: {out / 'eval.json'}")
    print(f"the whole took {(time.monotonic() - start) / 60:.1f} minutes; next: wmzoo train policy, wmzoo list, wmzoo card flow")


def draw(out: Path, names: tuple[str, ...]) -> None:
    """demo.png: the learning curve, and frames of one success (or failure) of each task."""
    import imageio.v3 as imageio
    from matplotlib.figure import Figure

    columns = 6
    figure = Figure(figsize=(2 * columns, 2.2 * len(names) + 2.6), layout="constrained")
    grid = figure.add_gridspec(len(names) + 1, columns)
    curve = figure.add_subplot(grid[0, :])
    rows = list(csv.DictReader((out / "metrics.csv").open()))
    for stage in ("train", "validation"):
        curve.plot([int(row["step"]) for row in rows], [float(row[f"{stage}/total"]) for row in rows], marker="o", label=stage)
    curve.set(xlabel="step", ylabel="loss", yscale="log")
    curve.legend()
    for line, name in enumerate(names, start=1):
        films = [out / "videos" / f"{name}-{outcome}.mp4" for outcome in ("success", "failure")]
        film = next(path for path in films if path.exists())
        frames = imageio.imread(film)
        for column, index in enumerate(np.linspace(0, len(frames) - 1, columns).astype(int)):
            axes = figure.add_subplot(grid[line, column])
            axes.imshow(frames[index])
            axes.set(xticks=[], yticks=[])
            if column == 0:
                axes.set_ylabel(film.stem.replace(f"{name}-", f"{name}\n"), fontsize=8)
    figure.savefig(out / "demo.png", dpi=80)
