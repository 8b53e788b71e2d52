"""Planning: numbers by hand, the optimum of a quadratic, and a world model that follows a film because it knows what actions do."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from wmzoo import cli, registry
from wmzoo.batch import Batch
from wmzoo.data import Normaliser
from wmzoo.errors import UserError
from wmzoo.files import read_json
from wmzoo.follow import Follower, filmed, follower, goal_frame, settings, toward
from wmzoo.interfaces import Planner, Sizes, View
from wmzoo.plan import Cem, Mppi, candidates
from wmzoo.rollout import Handle, play
from wmzoo.run import train
from wmzoo.tasks import make

BEST = torch.tensor([[0.5, -0.25], [0.0, 0.75]])


def quadratic(actions: Tensor) -> Tensor:
    return (actions - BEST).square().sum(dim=(1, 2))


@pytest.mark.parametrize("planner", [Cem(300, 30, 20), Mppi(300, 20, spread=0.2, temperature=0.05)])
def test_a_quadratic_is_solved(planner: Planner) -> None:
    """N6: the optimum is found, and again from the same seed."""
    found = planner.plan(quadratic, torch.zeros(2, 2), torch.Generator().manual_seed(0))
    assert torch.allclose(found, BEST, atol=0.03)
    assert torch.equal(planner.plan(quadratic, torch.zeros(2, 2), torch.Generator().manual_seed(0)), found)


def test_the_first_candidate_is_the_mean() -> None:
    """N6, in every iteration; all others lie inside [-1, 1]."""
    seen: list[Tensor] = []

    def cost(actions: Tensor) -> Tensor:
        seen.append(actions)
        return quadratic(actions)

    found = Cem(16, 4, 3).plan(cost, torch.full((2, 2), 0.125), torch.Generator().manual_seed(0))
    assert torch.equal(seen[0][0], torch.full((2, 2), 0.125))
    elites = seen[0][quadratic(seen[0]).argsort()[:4]]
    assert torch.allclose(seen[1][0], elites.mean(dim=0))
    assert torch.allclose(found, seen[2][quadratic(seen[2]).argsort()[:4]].mean(dim=0))
    assert all(actions.abs().max() <= 1 for actions in seen)
    assert candidates(torch.zeros(1, 1), torch.ones(1, 1), 5, torch.Generator().manual_seed(0)).shape == (5, 1, 1)


def test_mppi_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two candidates at 0 and 1 that cost ln 3 deviations apart: weights 3/4 and 1/4, so the mean is 1/4."""
    monkeypatch.setattr("wmzoo.plan.candidates", lambda *_: torch.tensor([[[0.0]], [[1.0]]]))
    apart = torch.tensor([0.0, 1.0])
    planner = Mppi(2, 1, temperature=float(1 / (apart.std() * torch.log(torch.tensor(3.0)))))
    assert planner.plan(lambda x: x[:, 0, 0], torch.zeros(1, 1), torch.Generator()).item() == pytest.approx(0.25)


@pytest.mark.parametrize("bad", [lambda: Cem(4, 5), lambda: Cem(4, 0), lambda: Cem(spread=0), lambda: Mppi(1), lambda: Mppi(temperature=0)])
def test_impossible_planners_are_refused_in_one_line(bad: Any) -> None:
    with pytest.raises(UserError, match="needs"):
        bad()


def test_the_frame_to_reach() -> None:
    film = np.arange(6, dtype=np.uint8)[:, None, None, None, None]
    assert [int(goal_frame(film, now, 4, "film").item()) for now in (0, 1, 2, 9)] == [4, 5, 5, 5]
    assert int(goal_frame(film, 0, 4, "last").item()) == 5


class Knows:
    """A world model of the toy that is right: its tokens are where the hand is, and a step moves it by 0.08 of the action."""

    horizon, every, steps, view = 4, 1, 1, 0

    class Eye(torch.nn.Module):
        width, grid = 2, (1, 1)

        def forward(self, image: Tensor) -> Tensor:
            dark = (image.sum(dim=1) < 0.5).float()
            places = (torch.arange(dark.shape[1]) + 0.5) / dark.shape[1]
            x, y = ((dark.sum(dim=axis) * places).sum(dim=1) / dark.sum(dim=(1, 2)) for axis in (1, 2))
            return torch.stack([x, y], dim=1)[:, None]

    encoder = Eye()

    def predict(self, batch: Batch, now: Tensor, action: Tensor, keep: Tensor, generator: torch.Generator) -> Tensor:
        assert keep.all()
        return (now + 0.08 * action[:, :, :2].sum(dim=1, keepdim=True)).clamp(0, 1)


def test_who_knows_what_actions_do_follows_the_film() -> None:
    """Both tasks of the toy from eight starts each, without any policy; one that holds still gets nowhere."""
    same = Normaliser((-1.0,) * 3, (1.0,) * 3, (0.0,) * 2, (1.0,) * 2)
    sizes = Sizes(width=0, depth=0, context=0, out=0, horizon=4, action=3, state=2, image=32, views=1, history=1, embodiments=2)
    good = Follower(cast("Any", Knows()), sizes, same, Cem(64, 8, 6), "film", 2, 2)
    still = replace(good, planner=cast("Planner", SimpleNamespace(plan=lambda cost, start, generator: torch.zeros_like(start))))
    solved = {"good": 0, "still": 0, "film": 0}
    for name in ("toy-red", "toy-blue"):
        for seed in range(8):
            task = make(name, 32, "")
            film, shown = filmed(task, seed)
            solved["film"] += shown
            for who, agent in (("good", good), ("still", still)):
                act = agent.acting(film, task.instruction, seed)
                solved[who] += play(act, task, Handle(name, seed), (4, 3), agent.execute, 1).success
    assert solved["film"] == 16
    assert solved["good"] >= 15
    assert solved["still"] <= 4


def test_toward_by_hand(batch: Batch) -> None:
    """Held actions: two of them over four steps are each carried out twice; squared error from where they lead to the goal."""
    model = cast("Any", Knows())
    frame = torch.ones(1, 1, 1, 3, 32, 32)
    frame[..., 8, 16] = 0
    one = replace(batch[torch.tensor([0])], image=frame, features={})
    goal = torch.tensor([[0.5, 0.5]])
    held = torch.tensor([[[0.5, 0.0, 0.0], [-0.25, 1.0, 0.0]]])
    place = torch.tensor([16.5 / 32, 8.5 / 32]) + 0.08 * torch.tensor([0.5, 2.0])
    assert toward(model, one, goal)(held).item() == pytest.approx((place - goal[0]).square().mean().item(), abs=1e-6)


@pytest.mark.slow
def test_a_run_plans(toy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the command line: counts for every handle, twice alike; what cannot be is one line."""
    root = shutil.copytree(toy_data, tmp_path / "data")
    for name in ("dino_wm_one_shot", "policy"):
        arm = registry.arm(name, "tiny")
        stages = {key: replace(stage, optim=replace(stage.optim, steps=3)) for key, stage in arm.stages.items()}
        train(
            replace(arm, stages=stages, data=replace(arm.data, root=str(root)), optim=replace(arm.optim, steps=3, chapter=3)),
            tmp_path / name,
        )
    words = ["plan", str(tmp_path / "dino_wm_one_shot"), "--handles", "2", "--samples", "8", "--elites", "2", "--iterations", "2"]
    cli.dispatch([*words, "--processes", "1"])
    result = read_json(tmp_path / "dino_wm_one_shot" / "plan.json", "a plan")
    assert (result["all"]["n"], result["expert"], result["planner"], result["samples"]) == (4, 4, "cem", 8)
    assert "solved 4 of 4" in capsys.readouterr().out
    cli.dispatch([*words, "--processes", "2"])
    again = read_json(tmp_path / "dino_wm_one_shot" / "plan.json", "a plan")
    assert [(h["success"], h["steps"]) for h in again["handles"]] == [(h["success"], h["steps"]) for h in result["handles"]]
    cli.dispatch([*words, "--planner", "mppi", "--goal", "last", "--processes", "1"])
    assert read_json(tmp_path / "dino_wm_one_shot" / "plan.json", "a plan")["planner"] == "mppi"
    cell = ["cell", str(tmp_path / "dino_wm_one_shot"), "--measures", "plan", "--handles", "1", "--elsewhere", "toy-blue"]
    cli.dispatch(cell)  # as a study does: what was planned otherwise is planned again, and counted by task
    planned = read_json(tmp_path / "dino_wm_one_shot" / "plan.json", "a plan")
    assert settings().items() <= planned.items()
    assert (list(planned["tasks"]), planned["all"]["n"]) == (["toy-blue"], 1)
    assert read_json(tmp_path / "dino_wm_one_shot" / "cell.json", "a cell")["measured"] == ["plan 1 toy-blue"]
    for wrong, message in ((("--knots", "3"), "cannot be cut into 3"), (("--execute", "9"), "not 9"), (("--elites", "9"), "elites")):
        with pytest.raises(UserError, match=message):
            cli.dispatch([*words, *wrong])
    with pytest.raises(UserError, match=r"door-open has 4 numbers of state and 4 of action; .* which have 2 numbers of state and 3"):
        cli.dispatch([*words, "--tasks", "door-open"])
    with pytest.raises(UserError, match="no world model to plan with"):
        follower(tmp_path / "policy", Cem(), "film", 4, 4)


def test_what_a_plan_sees_is_a_window(toy_data: Path) -> None:
    """One window without a future, its first view repeated."""
    from wmzoo.finished import seen

    sizes = Sizes(width=0, depth=0, context=0, out=0, horizon=4, action=3, state=2, image=32, views=1, history=2, embodiments=2)
    view = View(np.full((1, 32, 32, 3), 51, np.uint8), np.array([1.0, 2.0], np.float32))
    batch = seen([view], "reach", sizes, Normaliser((-1.0,) * 3, (1.0,) * 3, (1.0,) * 2, (2.0,) * 2))
    assert batch.image.shape == (1, 2, 1, 3, 32, 32)
    assert torch.allclose(batch.image, torch.tensor(0.2))
    assert batch.future.shape[1] == 0
    assert not batch.action_mask.any()
