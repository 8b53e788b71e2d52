"""What does a worker do for one job of a study?  It trains a run from wherever it stopped, measures it, and writes down what that cost."""

import csv
import os
import platform
import resource
import sys
import threading
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from . import __version__, follow, probe, rollout, world
from .files import alone_in, content_hash, read_json, text_hash, write_json
from .finished import aligns, facts_of, foresees, outline, plays
from .interfaces import LatentActions
from .kernels import precision_for
from .records import forget, results
from .run import train
from .study import PROBED, Job, foreseen, handles_planned, handles_played, probed, transferred
from .tasks import every_shift, resolve


def work(job: Job) -> None:
    """Train the run and measure it.  Whoever comes while another process works on it waits, and then finds it done."""
    folder, queue = job.folder, job.folder / "queue"
    queue.mkdir(parents=True, exist_ok=True)
    with alone_in(queue, wait=True):
        if not job.trained:
            forget(folder)
            train(job.arm, folder)
        if job.done:
            return
        start, before, names = time.monotonic(), known(folder), resolve(job.arm.data.tasks)
        if "play" in job.measures and plays(folder) and handles_played(folder / "eval.json", names) < job.handles:
            rollout.evaluate(folder, names, job.handles, processes=1)
        if "play" in job.measures and plays(folder):
            rollout.film(folder, names)
        if "plan" in job.measures and foresees(folder) and handles_planned(job) < job.handles:
            follow.evaluate(folder, job.planned_on, job.handles, processes=1)
        kept = before.get("measured", [])
        predicts = foresees(folder) or not plays(folder) or (bool(job.space) and aligns(folder))
        if "foresee" in job.measures and predicts and not foreseen(job):
            kept = [asked for asked in kept if not asked.startswith("foresee ")]  # scores in another space are replaced
            world.evaluate(folder, count=job.windows, space=Path(job.space) if job.space else None)
        if "transfer" in job.measures and predicts and not transferred(job):
            world.evaluate(folder, job.elsewhere, count=job.windows)
        if "shift" in job.measures and plays(folder):
            for shift in every_shift(names):
                if handles_played(folder / f"eval-{shift}.json", names) < job.shifted:
                    rollout.evaluate(folder, names, job.shifted, processes=1, videos=False, shift=shift)
        if "probe" in job.measures and has_latent_actions(folder) and not probed(job):
            probe.probe(folder, count=PROBED)
        measuring = time.monotonic() - start + before.get("seconds", {}).get("measure", 0.0)
        facts = {
            "arm": job.arm.name,
            "seed": job.arm.seed,
            "measured": list(dict.fromkeys([*kept, *job.asked])),
            "files": [path.name for path in results(folder)],
            "data": facts_of(folder / "export")["data"],
            "seconds": {"train": trained_seconds(folder), "measure": round(measuring, 1)},
            "peak_bytes": max(peak_memory(), before.get("peak_bytes", 0)),
            "threads": os.environ.get("OMP_NUM_THREADS", ""),
            "precision": before.get("precision", "") if before else precision_for(job.arm.optim.precision),
            "machine": platform.machine(),
            "processor": processor(),
            "code": before.get("code", "") if before else code_hash(),
            "trained_by": before.get("trained_by") or before.get("versions", {}).get("wmzoo", __version__),
            "versions": {"wmzoo": __version__, **{name: version(name) for name in ("torch", "lightning", "diffusers", "numpy")}},
        }
        write_json(folder / "cell.json", facts)


def has_latent_actions(folder: Path) -> bool:
    """True if a finished run has a latent action model."""
    return any(isinstance(part, LatentActions) for part in outline(folder).modules())


def known(folder: Path) -> dict[str, Any]:
    """What an earlier study has written down."""
    path = folder / "cell.json"
    return read_json(path, "a cell") if path.exists() else {}


def trained_seconds(folder: Path) -> float:
    """Seconds of training, stages left out, over all the times it was begun; what was done after a last checkpoint is not in it."""
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    return float(rows[-1]["seconds"]) if rows else 0.0


def code_hash() -> str:
    """Of all Python that the package consists of: what the name of a cell does not know."""
    found = (Path(home) / name for home, _, names in os.walk(Path(__file__).parent, followlinks=True) for name in names)
    return text_hash("".join(content_hash(path) for path in sorted(found) if path.suffix == ".py"))


def processor() -> str:
    """What the processor calls itself; "" where that is not told."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())


def peak_memory() -> int:
    """Bytes that this process, or its largest child, held at most."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def end_with_standard_input() -> None:
    """Let this process end when whoever holds the other end of its standard input does, even if that was killed."""

    def watch() -> None:
        while os.read(0, 4096):  # not sys.stdin, whose lock this thread would still hold when the interpreter ends
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
