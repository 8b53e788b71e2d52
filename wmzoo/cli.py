"""What can be typed?  One function per command; its arguments are the options, its docstring the help."""

import contextlib
import inspect
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from difflib import get_close_matches
from functools import partial, wraps
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional

from .config import Experiment, Scale, parts
from .errors import UserError, missing, unknown

Arm = Annotated[Positional[str], tyro.conf.arg(metavar="ARM")]
CORES = os.cpu_count() or 1
SMALLEST = 8  # pixels of a side: a patch of the smallest encoders
OF_TRAIN = ("--scale", "--out", "--tasks", "--space", "--log")  # which are no fields of an arm
MANY = ("--tasks", "--seeds", "--rows", "--settings", "--change", "--against", "--elsewhere", "--arms")
Measure = Literal["play", "plan", "foresee", "probe", "shift", "transfer"]
Launcher = Literal["local", "ray", "slurm"]


def list_(json: bool = False) -> None:
    """Arms, studies, claims, objectives, models and tasks."""
    from .registry import catalogue

    _show(catalogue(), json)


def card(name: Positional[str]) -> None:
    """Citation and equations of a member, each with the function that is it.

    Args:
        name: of an objective, an arm, a study or a model.
    """
    from .registry import card

    print(card(name))


def doctor(json: bool = False) -> None:
    """Is this machine fit?  Packages, drawing, seeds, experts, and the speed of matrix products."""
    from .doctor import examine

    findings = examine()
    _show({f.name: {"ok": f.ok, "found": f.found} for f in findings}, json, lambda: "\n".join(map(str, findings)))
    if not all(f.ok for f in findings):
        raise SystemExit(1)


def collect(tasks: tuple[str, ...] = ("mw3",), episodes: int = 60, size: int = 96, data: str = "data", processes: int = CORES) -> None:
    """Record demonstrations with scripted experts.  Killed at any moment, the same command goes on.

    Args:
        tasks: tasks or sets of tasks.
        episodes: successful episodes of each task.
        size: pixels of a side.
        data: folder to write to.
        processes: simulators at once.
    """
    from .collect import collect
    from .tasks import resolve

    if not tasks:
        raise UserError("--tasks needs a value")
    counts = _positive("--size", size, SMALLEST), _positive("--episodes", episodes), _positive("--processes", processes)
    collect(resolve(tasks), Path(data), *counts)


def train(arguments: list[str]) -> None:
    """Train an arm into a folder: wmzoo train ARM --out DIR [--scale S] [--tasks ...] [--log tensorboard wandb] [any field of the arm].

    ARM is a name from `wmzoo list` or a config.yaml.  The same command resumes a run that was killed.
    --space NAME [WEIGHTS] is another frozen feature space in place of the in-domain ViT-MAE, wherever the arm and its stages read one:
    a backbone of timm, such as vit_small_patch14_dinov2.lvd142m, with its published weights or those of a local file or folder.
    """
    from .run import train

    told, rest = _take_many(arguments, "--log")
    experiment, out = parse_train(rest)
    train(experiment, out, told)


def parse_train(arguments: list[str]) -> tuple[Experiment, Path]:
    """The arm and the folder that the words after `wmzoo train` ask for."""
    from .registry import arm, module

    if not arguments or arguments[0].startswith("-"):
        if {"-h", "--help"} & set(arguments):
            print(train.__doc__, "\nwmzoo train ARM --help lists the fields of an arm.", sep="")
            raise SystemExit(0)
        raise UserError("which arm?  wmzoo train ARM --out DIR; `wmzoo list` shows the arms")
    name, *rest = [part for word in arguments for part in (word.split("=", 1) if word.startswith("--") else [word])]
    scale, rest = _take(rest, "--scale", "small")
    out, rest = _take(rest, "--out", f"runs/{Path(name).stem}")
    tasks, rest = _take_many(rest, "--tasks")
    space, rest = _take_many(rest, "--space", most=2)
    default = arm(name, scale)  # type: ignore[arg-type]
    if space:
        default = module("arms", "feature_space").through(default, *space)
    if tasks:
        default = replace(default, data=replace(default.data, tasks=tasks))
    try:
        asked: Experiment = _tyro(Experiment, rest, default=default)
    except UserError as error:
        near = [flag for word in rest if word.startswith("--") for flag in get_close_matches(word, OF_TRAIN, n=1, cutoff=0.7)]
        if not near or "did you mean" in str(error):
            raise
        raise UserError(f"{error}; did you mean {near[0]}?") from None
    for flag, value in _left_behind(default, asked):
        if flag not in rest:
            print(f"wmzoo: note: a chunk has {asked.data.horizon} steps now, {flag} stays {value}", file=sys.stderr)
    if random := [place for place, part in parts(asked) if getattr(part, "frozen", False) and getattr(part, "weights", "") == "none"]:
        flags = ", ".join(f"--{place}.weights".replace("_", "-") for place in random)
        print(
            f"wmzoo: note: what is frozen without weights stays random; say pretrained, or a file or folder, for {flags}", file=sys.stderr
        )
    return asked, Path(out)


def _left_behind(default: Experiment, asked: Experiment) -> Iterator[tuple[str, Any]]:
    """Options that were as long as a chunk of actions, which has another length now."""
    if asked.data.horizon != default.data.horizon:
        for name, term in asked.objectives.items():
            for option in ("gap", "gaps"):
                value = getattr(term.config, option, None)
                if value is not None and default.data.horizon in ((value,) if isinstance(value, int) else value):
                    yield f"--objectives.{name}.config.{option}", value


def evaluate(
    run: Positional[str],
    tasks: tuple[str, ...] = (),
    handles: int = 20,
    processes: int = CORES,
    tuning: bool = False,
    videos: bool = True,
    shift: str = "",
    predict: bool = False,
    windows: int = 512,
    data: str = "",
    space: str = "",
    json: bool = False,
) -> None:
    """Play a trained policy from fixed start states; or measure what a world model foresees, on recorded validation windows.

    Args:
        run: folder of a run or of its export.
        tasks: tasks to play, or whose episodes to foresee; those it was trained on unless given.
        handles: start states of each task.
        processes: simulators at once.
        tuning: use the list of handles for recipe work.
        videos: film one success and one failure of each task.
        shift: change one thing that no demonstration has shown, such as camera-2: camera, light, colour, distractor or start, 1 to 3.
        predict: measure predictions, although the run has a policy.
        windows: on which predictions are measured.
        data: folder of recorded episodes for that; the one it was trained on unless given.
        space: the run of another world model, in whose feature space painted predictions are scored too, and those of an arm
            that aligns with the future are read by a linear map.
        json: print eval.json or world.json.
    """
    from .finished import Policy, plays
    from .rollout import evaluate, table
    from .tasks import every_shift, resolve

    if predict or not plays(Path(run)):
        from .compare import table as foreseen
        from .world import evaluate as foresee

        found = foresee(Path(run), tasks, data, _positive("--windows", windows), Path(space) if space else None)
        return _show(found, json, lambda: foreseen(found))
    if space:
        raise UserError("--space scores predicted frames, and this run plays; add --predict")
    names = resolve(tasks or Policy.load(Path(run)).tasks)
    if shift and shift not in (known := every_shift(names)):
        raise unknown("shift (such as camera-2)", shift, known) if known else UserError(f"{', '.join(names)} cannot be shifted")
    result = evaluate(
        Path(run), names, _positive("--handles", handles), _positive("--processes", processes), tuning, videos and not shift, shift
    )
    _show(result, json, lambda: table(result))


def plan(
    run: Positional[str],
    tasks: tuple[str, ...] = (),
    handles: int = 20,
    planner: Literal["cem", "mppi"] = "cem",
    goal: Literal["film", "last"] = "film",
    samples: int = 64,
    elites: int = 8,
    iterations: int = 5,
    knots: int = 4,
    execute: int = 8,
    processes: int = CORES,
    json: bool = False,
) -> None:
    """Play with a world model and no policy: it is shown the expert's film without actions, and plans its way along it.

    Args:
        run: folder of a world model's run.
        tasks: to play; those it was trained on unless given.
        handles: start states of each task.
        planner: cem (cross-entropy method) or mppi (path integral control).
        goal: film, the frame a chunk ahead in the film; last, its last frame.
        samples: candidates of an iteration.
        elites: of them, that decide on the next; cem only.
        iterations: of a plan.
        knots: different actions in a chunk, each held.
        execute: actions that are carried out before the next plan.
        processes: simulators at once.
        json: print plan.json.
    """
    from .follow import evaluate, table
    from .plan import Cem, Mppi
    from .tasks import resolve

    means = Cem(samples, elites, iterations) if planner == "cem" else Mppi(samples, iterations)
    names = resolve(tasks) if tasks else ()
    result = evaluate(Path(run), names, _positive("--handles", handles), _positive("--processes", processes), means, goal, knots, execute)
    _show(result, json, lambda: table(result))


def rate(runs: Positional[tuple[str, ...]], against: tuple[str, ...] = (), json: bool = False) -> None:
    """Success of several training seeds of one arm together, or less that of another arm, with an interval over seeds and handles.

    Args:
        runs: folders of evaluated runs.
        against: as many runs of another arm, in the order of their training seeds; shows the paired difference.
        json: print numbers alone.
    """
    from .rollout import difference, difference_table, joint_table, together

    if not runs:
        raise UserError("which runs?  wmzoo rate RUN RUN ...")
    folders, others = [Path(run) for run in runs], [Path(run) for run in against]
    result = difference(folders, others) if others else together(folders)
    _show(result, json, lambda: (difference_table if others else joint_table)(result))


def probe(run: Positional[str], tasks: tuple[str, ...] = (), data: str = "", windows: int = 2000, json: bool = False) -> None:
    """What does a latent action model know?  Motion of the hand, codes, painted frames, attention; numbers and pictures in the run.

    Args:
        run: folder of a run of an arm with such a model, such as lam or lara.
        tasks: tasks or sets of tasks to look at; those it was trained on unless given.
        data: folder of recorded episodes; the one it was trained on unless given.
        windows: training windows the probes are fitted on; a quarter as many validation windows are measured.
        json: print probe.json.
    """
    from .probe import probe, table

    result = probe(Path(run), tasks, data, _positive("--windows", windows))
    _show(result, json, lambda: table(result))


def compare(runs: Positional[tuple[str, ...]], out: str = "runs/compare", json: bool = False) -> None:
    """World models side by side: errors over horizon, frames, cost.  Runs of one arm are its training seeds.

    Args:
        runs: folders of runs that `wmzoo eval` has measured.
        out: folder for compare.json, compare.png and frames.png.
        json: print numbers alone.
    """
    from .compare import compare, compare_table

    if not runs:
        raise UserError("which runs?  wmzoo compare RUN RUN ...")
    result = compare([Path(run) for run in runs], Path(out))
    _show(result, json, lambda: compare_table(result))


def flops(arm: Arm, scale: Scale = "small", json: bool = False) -> None:
    """Parameters and floating-point operations of each part, counted on the meta device."""
    from .flops import count, table
    from .registry import arm as named

    counts = count(named(arm, scale))
    _show(counts, json, lambda: table(counts))


def bench(arms: tuple[str, ...] = (), json: bool = False, seconds: float = 6.0, compiled: bool = False) -> None:
    """Speed as ratios within one run.

    Args:
        arms: measure the training step and the chunk of these alone, any of `wmzoo list`, beside those of policy.
        json: print numbers alone.
        seconds: time given to each measurement.
        compiled: also measure torch.compile, which takes minutes to warm up.
    """
    from .bench import arms_table, measure, measure_arms, table

    if not seconds > 0:
        raise UserError(f"--seconds must be above 0, not {seconds:g}")
    result = measure_arms(arms, seconds) if arms else measure(seconds, compiled)
    _show(result, json, lambda: arms_table(result["arms"]) if arms else table(result))


def study(
    name: Positional[str],
    scale: Scale = "small",
    seeds: tuple[int, ...] = (),
    rows: tuple[str, ...] = (),
    settings: tuple[str, ...] = (),
    change: tuple[str, ...] = (),
    plan: bool = False,
    processes: int = CORES,
    threads: int = 1,
    launcher: Launcher = "local",
    address: str = "auto",
    gpus: int = 0,
    episodes: int = 60,
    runs: str = "runs",
) -> None:
    """Run a comparison: every arm, setting and training seed of a study.  Killed at any moment, the same command goes on.

    Args:
        name: from `wmzoo list`.
        scale: of every arm.
        seeds: training seeds instead of the study's own.
        rows: only these rows, and the baseline.
        settings: only these settings.
        change: fields changed in every cell, such as optim.steps=500 data.tasks=[toy]; a row that sets one of them keeps its own.
        plan: show what would be run and about how long it takes, and stop.
        processes: jobs at once; with Ray and SLURM as many as may be waiting there.
        threads: of each job; part of what decides the last digits of a result, so it does not follow the number of processes.
        launcher: where jobs run.
        address: of the Ray cluster; auto finds it, local starts one here.  With slurm, local runs its jobs on this machine.
        gpus: that Ray or SLURM keeps for each run; without a launcher, runs use what is there.
        episodes: recorded of each task that has none yet.
        runs: folder of all runs.
    """
    from .files import write_json
    from .launch import launcher as started
    from .launch import run
    from .report import write
    from .study import Study, gather, missing_data, planned, restricted
    from .study import study as named
    from .watch import Watcher, outline

    chosen: Study = restricted(named(name, scale), seeds, rows, settings)
    changes = _changes(change)
    asked = {"scale": scale, "seeds": seeds, "rows": rows, "settings": settings, "change": change}
    for flag, value in (("--processes", processes), ("--threads", threads), ("--episodes", episodes)):
        _positive(flag, value)
    if gpus < 0 or (gpus and launcher == "local"):
        raise UserError(f"--gpus {gpus}: a number that --launcher ray or slurm keeps for each run")
    if plan and (lacking := missing_data(chosen, scale, changes)):
        names = ", ".join(dict.fromkeys(task for _, task in lacking))
        return print(f"{names}: not recorded yet; without --plan {episodes} episodes of each are, and then this is planned")
    gather(chosen, scale, changes, episodes, processes)
    what = replace(planned(name, chosen, Path(runs), scale, changes), asked=asked)
    print(outline(what, Path(runs), processes))
    if plan:
        return
    write_json(Path(runs) / "studies" / name / "asked.json", asked)
    with Watcher(what) as watcher, started(launcher, processes, threads, address, gpus) as submit:

        def told(state: dict[Path, Any], failed: dict[Path, str]) -> None:
            if watcher.told(state, failed):
                try:
                    write(what, Path(runs), state, failed)
                except (UserError, OSError) as error:  # a page that cannot be drawn now must not end what runs
                    watcher.console.print(f"no report yet: {error}", highlight=False, markup=False, soft_wrap=True)

        failed = run(what, submit, told)
    print(f"report: {write(what, Path(runs), {}, failed)}")
    if failed:
        raise UserError(f"{len(failed)} of {len(what.jobs)} jobs failed; the same command tries them again")


def report(name: Positional[str], runs: str = "runs", write: str = "") -> None:
    """The report of a study as it was last asked for, from what there is now.

    Args:
        name: of the study.
        runs: folder of all runs.
        write: a page that has a place for its tables, as RESULTS.md has; they, a picture and the outcomes of all cells go to docs/results.
    """
    from .files import read_between, read_json
    from .report import publish
    from .report import write as written
    from .study import planned, restricted
    from .study import study as named

    named(name)  # a name that is wrong is told before what is missing under it
    if write:
        read_between(Path(write), name)
    where = Path(runs) / "studies" / name / "asked.json"
    asked = read_json(where, "a study that was begun", f"type: wmzoo study {name}")
    try:
        scale, seeds, rows, settings, change = asked["scale"], *(tuple(asked[key]) for key in ("seeds", "rows", "settings", "change"))
    except (KeyError, TypeError):
        raise UserError(f"{where} is not that of a study; delete it and type: wmzoo study {name}") from None
    what = planned(name, restricted(named(name, scale), seeds, rows, settings), Path(runs), scale, _changes(change))
    what = replace(what, asked=asked)
    print(f"report: {written(what, Path(runs), {}, {})}")
    if write:
        publish(what, Path(runs), Path(write))


def recall(records: str = "docs/results", runs: str = "runs") -> None:
    """Take back what `report --write` has written down of cells, so that studies, reports and claims go on from there.

    Args:
        records: folder that holds cells/ARM-HASH; no weights are there, and none are needed to compare.
        runs: folder of all runs; what is there already stays.
    """
    from .records import recall as taken

    print(f"{taken(Path(records), Path(runs))} cells taken back from {records}; wmzoo report NAME and wmzoo claims know them now")


def _changes(words: tuple[str, ...]) -> dict[str, Any]:
    """Fields and their values, read as YAML."""
    import yaml

    pairs = [word.partition("=") for word in words]
    if bad := [name for name, sign, _ in pairs if not sign]:
        raise UserError(f"--change {bad[0]}: say field=value, such as optim.steps=500")
    if "seed" in {name for name, _, _ in pairs}:
        raise UserError("--change seed: every cell has its own; say --seeds 0 1 2")
    try:
        values = {name: yaml.safe_load(value) for name, _, value in pairs}
    except yaml.YAMLError as error:
        raise UserError(f"--change: {str(error).splitlines()[0]}; lists are written [a, b]") from None
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def cell(
    folder: Positional[str],
    measures: tuple[Measure, ...] = (),
    handles: int = 20,
    space: str = "",
    windows: int = 256,
    elsewhere: tuple[str, ...] = (),
    tied: bool = False,
) -> None:
    """Train and measure the run that FOLDER/config.yaml describes: what a study does for each of its cells.

    Args:
        folder: of the run.
        measures: play, plan, foresee, probe, shift, transfer; nothing trains it only, as a stage.
        handles: start states of each task.
        space: run of the world model in whose feature space painted predictions are scored too.
        windows: validation windows on which a world model is asked.
        elsewhere: tasks of `transfer`, and of `plan` unless it is to be the own.
        tied: end when standard input does.
    """
    from .config import load
    from .study import Job, at_odds
    from .work import end_with_standard_input, work

    if at_odds(measures, elsewhere):
        raise UserError("--measures transfer and --elsewhere TASKS belong together: say both or neither; with --measures plan as you like")
    if tied:
        end_with_standard_input()
    counts = _positive("--handles", handles), space, _positive("--windows", windows)
    work(Job(Path(folder), load(Path(folder) / "config.yaml"), (), (), measures, *counts, elsewhere))


def claims(runs: str = "runs", scale: Scale = "small", seeds: tuple[int, ...] = (), write: str = "", json: bool = False) -> None:
    """The ledger: what the papers claim, the study that tests it, what was found, at which n.

    Args:
        runs: folder of all runs.
        scale: of the arms.
        seeds: of training, of which a claim takes those that its rows have; those of its study where none are given.
        write: a page that has a place for the table; a CSV of it goes to docs/results/claims.csv, and what stood there of claims without
            cells here stays.
        json: print one object a claim.
    """
    from .files import read_between, write_atomically, write_between
    from .ledger import MARK, known, table, with_published

    if write:
        read_between(Path(write), MARK)
    if not any(Path(runs).glob("*/cell.json")):
        print(f"wmzoo: note: {runs} has no cells, so nothing is judged; wmzoo recall takes back those in docs/results", file=sys.stderr)
    judged, published = known(Path(runs), scale, seeds), Path(write).parent / "docs" / "results" / "claims.csv"
    if write:
        judged = with_published(judged, published, scale)
    rows = table(judged, scale, seeds)
    if write:
        write_between(Path(write), MARK, rows.markdown)
        write_atomically(published, lambda draft: draft.write_text(rows.csv))
    _show([dict(zip(rows.head, row, strict=True)) for row in rows.rows], json, lambda: rows.markdown)


def power(
    seeds: int = 3,
    handles: int = 60,
    difference: float = 0.0,
    spread: float = 0.05,
    rate: float = 0.6,
    alike: float = 0.3,
    same: float = 0.4,
    comparisons: int = 1,
    tasks: int = 3,
) -> None:
    """Which difference of success can a study show?  Or, with --difference, how many training seeds show that one?  Power 0.8.

    Args:
        seeds: training seeds of each arm.
        handles: start states, over all tasks.
        difference: to be shown.
        spread: standard deviation of an arm's rate from seed to seed.
        rate: about where both arms are.
        alike: correlation of two arms' outcomes on one handle.
        same: correlation of one arm's outcomes on one handle from seed to seed, at least as much.
        comparisons: arms that are compared with the baseline; Holm corrects for them.
        tasks: over which the start states are spread evenly.
    """
    from .stats import SEEDS, detectable, seeds_needed

    rules = {
        f"--rate lies between 0 and 1, not at {rate:g}": 0 < rate < 1,
        f"--spread lies from 0 to below 1, not at {spread:g}": 0 <= spread < 1,
        f"--difference lies from 0 to below 1, not at {difference:g}": 0 <= difference < 1,
        f"--handles {handles}: start states over all tasks, as many of each of --tasks {tasks}": handles % max(1, tasks) == 0,
        f"--alike lies from -1 to --same, which is 1 at most, not at {alike:g} and {same:g}": -1 <= alike <= same <= 1,
    }
    if broken := [rule for rule, kept in rules.items() if not kept]:
        raise UserError(broken[0])
    noise = {"same": same, "comparisons": _positive("--comparisons", comparisons), "tasks": _positive("--tasks", tasks)}
    among = f", one of {comparisons} that are compared" if comparisons > 1 else ""
    if difference:
        needed = seeds_needed(difference, _positive("--handles", handles), spread, rate, alike, **noise)
        few = f"; a verdict takes {SEEDS}" * (needed < SEEDS)
        print(f"a difference of {difference:.2f} takes {needed} training seeds of each arm on {handles} handles{among}{few}")
    else:
        least = detectable(seeds, _positive("--handles", handles), spread, rate, alike, **noise)
        if least >= 1:
            raise UserError(f"{seeds} training seeds of each arm on {handles} handles show no difference of rates, not even one of 1")
        few = f"; a verdict takes {SEEDS} seeds" * (seeds < SEEDS)
        print(f"{seeds} training seeds of each arm on {handles} handles show a difference of {least:.2f} or more{among}{few}")


def demo() -> None:
    """One seed of each family on three real tasks, from nothing: the study `quick`.  Killed at any moment, the same command goes on."""
    study("quick")


COMMANDS: dict[str, Callable[..., None]] = {
    "doctor": doctor,
    "list": list_,
    "card": card,
    "collect": collect,
    "train": train,
    "eval": evaluate,
    "plan": plan,
    "rate": rate,
    "probe": probe,
    "compare": compare,
    "flops": flops,
    "bench": bench,
    "study": study,
    "report": report,
    "recall": recall,
    "cell": cell,
    "claims": claims,
    "power": power,
    "demo": demo,
}


def main() -> None:
    """Entry point of `wmzoo`.  A wrong input is one line and exit code 2."""
    try:
        dispatch(sys.argv[1:])
    except UserError as error:
        print(f"wmzoo: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except BrokenPipeError:  # the reader of our output had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:  # a folder is a file, the disk is full, nothing may be written there
        in_the_way = isinstance(error, FileExistsError | NotADirectoryError) and error.filename
        print(f"wmzoo: {missing(Path(error.filename)) if in_the_way else error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("\nwmzoo: stopped; the same command goes on from here", file=sys.stderr)
        raise SystemExit(130) from None


def dispatch(arguments: list[str]) -> None:
    """Run the command that the words name.

    Raises:
        UserError: there is no such command, or its options are wrong.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        print("wmzoo COMMAND [options]\n")
        print("\n".join(f"  {name:{width}}  {(f.__doc__ or '').splitlines()[0]}" for name, f in COMMANDS.items()))
        return
    name, *rest = arguments
    if name not in COMMANDS:
        raise unknown("command", name, COMMANDS)
    if name == "train":
        train(rest)
    else:
        _tyro(COMMANDS[name], rest, prog=f"wmzoo {name}")


def _tyro(target: Any, arguments: list[str], **options: Any) -> Any:
    """tyro.cli whose complaints are one line; a function is called only after its words were understood."""
    deferred = target if isinstance(target, type) else _later(target)
    if {"-h", "--help"} & set(arguments):
        return tyro.cli(deferred, args=arguments, **options)
    for word, after in pairwise([*arguments, "--"]):
        if word in MANY and after.startswith("--"):  # an empty list would mean the default
            raise UserError(f"{word} needs a value")
    heard = io.StringIO()
    try:
        with contextlib.redirect_stderr(heard), contextlib.redirect_stdout(heard):
            understood = tyro.cli(deferred, args=arguments, **options)
    except SystemExit:
        required = [name for name, option in inspect.signature(target).parameters.items() if option.default is option.empty]
        raise _one_line(heard.getvalue(), f"{options.get('prog')} {' '.join(required).upper()}") from None
    return understood if isinstance(target, type) else understood()


def _later(function: Callable[..., None]) -> Callable[..., Callable[[], None]]:
    """The function with the same options, which returns the call instead of making it; in its help wrapped lines are one again."""

    @wraps(function)
    def later(*args: Any, **kwargs: Any) -> Callable[[], None]:
        return partial(function, *args, **kwargs)

    later.__signature__ = inspect.signature(function)  # pyright: ignore
    later.__doc__ = re.sub(r"\n {12,}", " ", function.__doc__ or "")
    del later.__wrapped__  # whose help would be shown
    return later


def _one_line(box: str, usage: str) -> UserError:
    """What a box of tyro's says, in our words: the complaint and the nearest right options.

    Args:
        usage: the command and the words that it cannot do without.
    """
    lines = [line.strip("│╭╮╰╯─+|- ") if set(line) <= set("│╭╮╰╯─+|- ") else line.strip("│| ") for line in box.splitlines()]
    parts = [part.split("\n") for part in "\n".join(lines[1:]).strip("\n").split("\n\n")]
    complaint = " ".join(parts[0]).rstrip(". ") if parts[0] else "wrong options"
    asked = next((part for part in parts if part[0].startswith("Perhaps you meant")), [])
    near = [match.group() for line in asked if (match := re.match(r"--[\w.-]+", line.strip()))]
    if match := re.fullmatch(r"invalid choice '(.*)' for argument '(.*)'\. Expected one of \((.*)\)", complaint):
        return unknown(match[2], match[1], re.findall(r"'(.*?)'", match[3]))
    if match := re.fullmatch(r"Missing value for argument '(.*)'\. Expected (\d+) values", complaint):
        return UserError(f"{match[1]} needs {'a value' if match[2] == '1' else f'{match[2]} values'}")
    if match := re.match(r"Error parsing (--\S+): .*?('.*')", complaint):
        whole = "whole " * bool(re.search(rf"{match[1]} .*INT", box))
        return UserError(f"{match[1]} takes {whole}numbers, not {match[2]}")
    if complaint.startswith("Missing from"):
        return UserError(f"a word is missing: {usage}; {' '.join(usage.split()[:2])} --help says more")
    return UserError(complaint + (f"; did you mean {' or '.join(near[:3])}?" if near else ""))


def _take(words: list[str], flag: str, default: str) -> tuple[str, list[str]]:
    """The value of a flag and the remaining words."""
    taken, rest = _take_many(words, flag, most=1)
    return (taken[0] if taken else default), rest


def _take_many(words: list[str], flag: str, most: int = 1000) -> tuple[tuple[str, ...], list[str]]:
    """The values after a flag, up to the next flag, and the remaining words.

    Raises:
        UserError: the flag stands there without a value.
    """
    if flag not in words:
        return (), words
    start = end = words.index(flag) + 1
    while end < len(words) and not words[end].startswith("--") and end - start < most:
        end += 1
    if start == end:
        raise UserError(f"{flag} needs a value")
    return tuple(words[start:end]), words[: start - 1] + words[end:]


def _positive(flag: str, value: int, least: int = 1) -> int:
    """The value.

    Raises:
        UserError: it is less than the least.
    """
    if value < least:
        raise UserError(f"{flag} must be at least {least}, not {value}")
    return value


def _show(value: Any, as_json: bool, words: Callable[[], str] | None = None) -> None:
    if as_json:
        print(json.dumps(value, indent=1))
    elif words is not None:
        print(words())
    else:
        for title, rows in value.items():
            print(f"{title}\n" + "\n".join(f"  {name:22} {line}" for name, line in rows.items()))
