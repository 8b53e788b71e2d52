"""Where do the jobs of a study run?  On this machine, on a Ray cluster, or by SLURM; in what order, and what when one fails?

A job is a process of its own, `wmzoo cell`, wherever it runs: what it needs lies in its folder, what it makes too, and a crash or a lack of
memory ends nothing else.  On other machines that folder must be shared.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from . import config
from .errors import UserError
from .files import write_atomically
from .study import Job, Plan

State = Literal["waiting", "queued", "running", "done", "failed", "not run"]
Submit = Callable[[list[str], Path], "Future[str]"]  # words after `wmzoo`, where to write what it says -> what went wrong, or ""
Launcher = Literal["local", "ray", "slurm"]
RUNNING: dict[object, Callable[[], object]] = {}  # what this process has begun, and how to end it


def run(what: Plan, submit: Submit, told: Callable[[dict[Path, State], dict[Path, str]], None]) -> dict[Path, str]:
    """Run what is not done yet; a failure stops what stands on it, and nothing else.

    Args:
        submit: starts one job somewhere.
        told: called with the state of every job, and with what went wrong, whenever that changes and about once a second.

    Returns:
        What went wrong, by folder.
    """
    jobs = {job.folder: job for job in what.jobs}
    todo = {job.folder for job in what.todo}
    state: dict[Path, State] = {folder: "waiting" if folder in todo else "done" for folder in jobs}
    failed: dict[Path, str] = {}
    running: dict[Future[str], Path] = {}
    told(state, failed)
    while running or "waiting" in state.values():
        for folder in [folder for folder, value in state.items() if value == "waiting"]:
            needs = {need: state[need] for need in jobs[folder].needs}
            if lost := [need for need, value in needs.items() if value in ("failed", "not run")]:
                state[folder], failed[folder] = "not run", f"it stands on {lost[0].name}, which failed"
            elif all(value == "done" for value in needs.values()):
                try:
                    prepare(jobs[folder])
                except UserError as error:
                    state[folder], failed[folder] = "failed", str(error)
                    continue
                state[folder] = "queued"
                running[submit(words(jobs[folder]), folder / "log.txt")] = folder
        for future in wait(running, timeout=1, return_when=FIRST_COMPLETED).done:
            folder = running.pop(future)
            lost = future.exception()  # an engine that lost its worker
            wrong = f"{type(lost).__name__}: {lost}" if lost else future.result() or unfinished(jobs[folder])
            state[folder] = "failed" if wrong else "done"
            failed |= {folder: wrong} if wrong else {}
        state |= {folder: "running" for future, folder in running.items() if future.running()}  # engines do not say
        told(state, failed)
    return failed


def unfinished(job: Job) -> str:
    """What is wrong with a job whose process has ended well; "" if nothing is."""
    try:
        return "" if job.done else "it ended without a result"
    except UserError as error:  # what it left cannot be read
        return str(error)


def prepare(job: Job) -> None:
    """Write what a worker reads.

    Raises:
        UserError: the folder holds another run.
    """
    path, settled = job.folder / "config.yaml", config.dump(job.arm)
    if path.exists() and path.read_text() != settled:
        raise UserError(f"{job.folder} holds another run than its name says; delete it")
    write_atomically(path, lambda draft: draft.write_text(settled))


def words(job: Job) -> list[str]:
    """What a worker is told, after `wmzoo`."""
    asked = ["--measures", *job.measures, "--handles", str(job.handles), "--windows", str(job.windows)] if job.measures else []
    more = [*(["--space", job.space] if job.space else []), *(["--elsewhere", *job.elsewhere] if job.elsewhere else [])]
    return ["cell", str(job.folder), "--tied", *asked, *more]


def call(words: list[str], log: Path, threads: int, home: Path) -> str:
    """Run `wmzoo WORDS` in a folder until it ends; what went wrong, or "".  It ends when this process does."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as heard:
        start = heard.tell()
        told = subprocess.Popen(
            [sys.executable, "-m", "wmzoo", *words], cwd=home, stdin=subprocess.PIPE, stdout=heard, stderr=heard, env=environment,
            start_new_session=True,
        )  # fmt: skip
        RUNNING[told] = told.kill
        code = told.wait()
        del RUNNING[told]
    if code == 0:
        return ""
    lines = log.read_bytes()[start:].decode(errors="replace").replace("\r", "\n").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), "")
    return f"exit code {code}: {last.removeprefix('wmzoo: ').strip()}"


@contextmanager
def launcher(kind: Launcher, processes: int, threads: int, address: str, gpus: int = 0) -> Iterator[Submit]:
    """Somewhere to run jobs.

    Args:
        kind: this machine, a Ray cluster, or SLURM.
        processes: jobs at once.
        threads: of each.
        address: of the Ray cluster: "auto" finds the one that this machine belongs to, "local" starts one here; for SLURM "auto" is the
            cluster, and "local" runs submitit's jobs here.
        gpus: that Ray and SLURM keep for each job; on this machine a job finds those that are there.

    Raises:
        UserError: the engine is not installed, or there is no such cluster.
    """
    start = {"local": _local, "ray": _ray, "slurm": _slurm}[kind]
    with ThreadPoolExecutor(processes) as pool:
        try:
            yield start(pool, processes, threads, address, gpus)
        finally:  # stopped in the middle: nothing else is begun, what runs is ended and resumes the next time
            pool.shutdown(wait=False, cancel_futures=True)
            for end in list(RUNNING.values()):
                end()


def _local(pool: ThreadPoolExecutor, processes: int, threads: int, address: str, gpus: int) -> Submit:
    return lambda words, log: pool.submit(call, words, log, threads, Path.cwd())


def _ray(pool: ThreadPoolExecutor, processes: int, threads: int, address: str, gpus: int) -> Submit:
    ray = _engine("ray")
    started = {"num_cpus": processes * threads, "include_dashboard": False} if address == "local" else {"address": address}
    try:
        ray.init(ignore_reinit_error=True, log_to_driver=False, **started)
    except (ConnectionError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"no Ray cluster at {address!r}; type `ray start --head`, or say --address local ({reason})") from None
    remote = ray.remote(num_cpus=threads, num_gpus=gpus, max_retries=0)(call)
    return lambda words, log: remote.remote(words, log.resolve(), threads, Path.cwd()).future()


def _slurm(pool: ThreadPoolExecutor, processes: int, threads: int, address: str, gpus: int) -> Submit:
    submitit, cluster = _engine("submitit"), "local" if address == "local" else "slurm"
    if cluster == "slurm" and not shutil.which("srun"):
        raise UserError("no SLURM here: srun is not found; type this where jobs are submitted, or say --address local")

    def waited(words: list[str], log: Path) -> str:
        executor: Any = submitit.AutoExecutor(folder=log.parent / "slurm", cluster=cluster)
        executor.update_parameters(cpus_per_task=threads, timeout_min=24 * 60, **({"gpus_per_node": gpus} if gpus else {}))
        job = executor.submit(call, words, log, threads, Path.cwd())
        RUNNING[job] = job.cancel
        try:
            return job.result()
        finally:
            del RUNNING[job]

    return lambda words, log: pool.submit(waited, words, log.resolve())


def _engine(name: str) -> Any:
    """The module of an engine.

    Raises:
        UserError: it is not installed.
    """
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        extra = {"submitit": "slurm"}.get(name, name)
        raise UserError(f"{name} is not installed; type: pip install 'wmzoo[{extra}]'") from None
