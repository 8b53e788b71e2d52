"""Can a world model act?  It is shown a film without actions and finds, by planning, the actions that lead from frame to frame.

The film is the expert's, from the same start state as the handle; its actions are not looked at.  Every `execute` control steps:
    goal  = tokens of the film's frame a chunk ahead of now, or of its last frame                  goal_frame
    cost  = mean of (predicted tokens - goal)^2, K actions held in turn over the chunk             toward
    chunk = the planner's (plan.py), begun at the rest of the last one
The noise of models that sample is the same in every iteration.  plan.json counts every handle, as eval.json does for policies.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from tqdm import tqdm

from . import tasks
from .batch import Batch
from .data import Normaliser, to_image
from .errors import UserError
from .features import frame_tokens
from .files import write_json
from .finished import load_hybrid, seen
from .interfaces import Cost, Planner, Sizes, Task, View, WorldModel
from .kernels import bf16_is_fast
from .plan import Cem
from .rollout import Handle, Played, crew, handles, of_one_robot, play, summary

Goal = Literal["film", "last"]
STANDARD = Cem()


def toward(model: WorldModel, batch: Batch, goal: Float[Tensor, "P E"]) -> Cost:
    """What it costs to be where the model says that some actions lead, in its own feature space; `batch` is the one window."""
    now = frame_tokens(batch, model.encoder, model.view).float()

    def cost(held: Float[Tensor, "n K A"]) -> Float[Tensor, "n"]:
        count = len(held)
        action = held.repeat_interleave(model.horizon // held.shape[1], dim=1)
        keep = torch.ones(count, model.horizon, dtype=torch.bool)
        many = batch[torch.zeros(count, dtype=torch.long)]
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16_is_fast()):
            there = model.predict(many, now.expand(count, -1, -1), action, keep, torch.Generator().manual_seed(0))
        return (there.float() - goal).square().mean(dim=(1, 2))

    return cost


def goal_frame(film: UInt8[np.ndarray, "T V Y X 3"], now: int, ahead: int, goal: Goal) -> UInt8[np.ndarray, "V Y X 3"]:
    """The frame to reach: so many control steps ahead of now, or the last one, which is also what comes after the end."""
    return film[len(film) - 1 if goal == "last" else min(now + ahead, len(film) - 1)]


def filmed(task: Task, seed: int) -> tuple[UInt8[np.ndarray, "T V Y X 3"], bool]:
    """What the expert's way from a start state looks like, a frame for every control step; and whether it solves the task."""
    task.reset(seed)
    frames, solved = [task.look().frame], False
    while len(frames) <= task.limit and not solved:
        solved = task.step(task.expert())
        frames.append(task.look().frame)
    return np.stack(frames), solved


@dataclass
class Follower:
    """A world model that plays.

    Attributes:
        planner: of plan.py.
        goal: a chunk ahead in the film, or its last frame.
        knots: K, different actions of a chunk.
        execute: actions that are carried out before the next plan.
    """

    model: WorldModel
    sizes: Sizes
    normaliser: Normaliser
    planner: Planner
    goal: Goal
    knots: int
    execute: int

    @torch.no_grad()
    def acting(self, film: UInt8[np.ndarray, "T V Y X 3"], instruction: str, seed: int) -> Callable[[list[View], np.ndarray], np.ndarray]:
        """What plays one handle: views so far -> chunk in the task's units."""
        plans: list[Tensor] = []
        model, hold = self.model, self.model.horizon // self.knots

        @torch.no_grad()
        def act(views: list[View], _: np.ndarray) -> np.ndarray:
            now = len(plans) * self.execute
            batch = seen(views, instruction, self.sizes, self.normaliser)
            wanted = to_image(goal_frame(film, now, model.horizon, self.goal)[None])[:, model.view]
            cost = toward(model, batch, model.encoder(wanted)[0].float())
            start = torch.zeros(self.knots, self.sizes.action)
            if plans and (gone := self.execute // hold) < self.knots:
                start[: self.knots - gone] = plans[-1][gone:]
            plans.append(self.planner.plan(cost, start, torch.Generator().manual_seed(seed * 1000 + len(plans))))
            return self.normaliser.raw_action(plans[-1].repeat_interleave(hold, dim=0).numpy())

        return act


def follower(run: Path, planner: Planner, goal: Goal, knots: int, execute: int) -> Follower:
    """The world model of a run, ready to plan.

    Raises:
        UserError: it has none, or its chunk cannot be cut so.
    """
    arm, hybrid, facts = load_hybrid(run)
    model = hybrid.world_model
    if model is None:
        raise UserError(f"{run} is a run of {arm.name}: it has no world model to plan with")
    if not 1 <= knots <= model.horizon or model.horizon % knots:
        raise UserError(f"a chunk of {model.horizon} actions cannot be cut into {knots} equal parts: --knots divides it")
    if not 1 <= execute <= model.horizon:
        raise UserError(f"of {model.horizon} planned actions 1 to {model.horizon} can be carried out, not {execute}")
    normaliser = Normaliser(**{name: tuple(row) for name, row in facts["normaliser"].items()})
    return Follower(model, Sizes(**facts["sizes"]), normaliser, planner, goal, knots, execute)


@lru_cache(maxsize=1)
def _follower(run: str, *how: Any) -> Follower:
    torch.set_num_threads(1)
    return follower(Path(run), *how)


def _follow_one(run: str, how: tuple[Any, ...], handle: Handle) -> tuple[Played, bool]:
    agent = _follower(run, *how)
    task = tasks.held(handle.task, agent.sizes.image)
    film, shown = filmed(task, handle.seed)
    act = agent.acting(film, task.instruction, handle.seed)
    shape = agent.model.horizon, agent.sizes.action
    return play(act, task, handle, shape, agent.execute, agent.sizes.history), shown


def settings(planner: Planner = STANDARD, goal: Goal = "film", knots: int = 4, execute: int = 8) -> dict[str, Any]:
    """What plan.json says of how it was planned; as studies do it unless told otherwise."""
    means = {"planner": type(planner).__name__.lower(), **asdict(planner)}  # pyright: ignore
    return {"goal": goal, "knots": knots, "execute": execute, **means}


def evaluate(
    run: Path,
    names: tuple[str, ...],
    count: int,
    processes: int,
    planner: Planner = STANDARD,
    goal: Goal = "film",
    knots: int = 4,
    execute: int = 8,
) -> dict[str, Any]:
    """Play the handles by planning and write plan.json.

    Args:
        names: of the tasks; those it was trained on unless given.
        planner, goal, knots, execute: as in `Follower`.

    Raises:
        UserError: as `follower`.
    """
    how = planner, goal, knots, execute
    agent, trained = follower(run, *how), tuple(load_hybrid(run)[2]["tasks"])
    of_one_robot(run, names, trained, agent.sizes)
    todo = handles(names or trained, count)
    with crew(processes) as each:
        playing = each(partial(_follow_one, str(run), how), todo)
        outcomes = list(tqdm(playing, total=len(todo), desc="following", unit="ep"))
    _follower.cache_clear()
    result = summary([outcome for outcome, _ in outcomes]) | {"expert": sum(shown for _, shown in outcomes)} | settings(*how)
    write_json(run / "plan.json", result)
    return result


def table(result: dict[str, Any]) -> str:
    """The result in words."""
    from .rollout import table as rates

    how = f"{result['planner']}, {result['samples']} candidates, {result['iterations']} times; goal: {result['goal']}"
    return f"{rates(result)}\n{how}; the films' own expert solved {result['expert']} of {result['all']['n']}"
