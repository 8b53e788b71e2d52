"""What does a hand see that tries things out?  The same tasks, recorded while an expert and chance take turns.

An expert's next action can be read off the picture, so its demonstrations cannot tell a world model that listens to actions from
one that does not; here the same picture is followed by different actions.  Play as a source of data: Lynch et al. 2019, Learning
Latent Plans from Play, arXiv:1903.01973; random actions for a world model: Zhou et al. 2024, DINO-WM, arXiv:2411.04983.
"""

import numpy as np

from ..interfaces import Task, View
from . import metaworld, toy

SUFFIX = "-play"
FAMILIES = (metaworld, toy)
TASKS = {name + SUFFIX: words for family in FAMILIES for name, words in family.TASKS.items()}
PRESETS = {name + SUFFIX: tuple(task + SUFFIX for task in tasks) for family in FAMILIES for name, tasks in family.PRESETS.items()}
SHIFTS = ()
STRETCH = (8, 25)  # control steps that one of the two has the hand: at least, and fewer than
EXPERT = 0.5  # part of the stretches that are the expert's


class Play(Task):
    """Any task; when recorded its expert takes turns with one action, drawn evenly from [-1, 1] and held for as long as a turn lasts."""

    recorded = 100

    def __init__(self, name: str, task: Task) -> None:
        self.name, self.instruction, self.task = name, TASKS[name], task
        self.state_names, self.action_names, self.limit = task.state_names, task.action_names, task.limit

    def reset(self, seed: int) -> None:
        self.task.reset(seed)
        self._chance, self._left = np.random.default_rng((seed, 1)), 0  # not the numbers that the start was drawn with

    def step(self, action: np.ndarray) -> bool:
        return self.task.step(action)

    def look(self) -> View:
        return self.task.look()

    def expert(self) -> np.ndarray:
        return self.task.expert()

    def demonstrate(self) -> np.ndarray:
        if self._left == 0:
            self._left = int(self._chance.integers(*STRETCH))
            mine = self._chance.random() < EXPERT
            self._held = None if mine else self._chance.uniform(-1, 1, len(self.action_names)).astype(np.float32)
        self._left -= 1
        return self.expert() if self._held is None else self._held

    def hand_pixel(self, state: np.ndarray) -> tuple[float, float] | None:
        return self.task.hand_pixel(state)

    def close(self) -> None:
        self.task.close()


def make(name: str, size: int) -> Task:
    played = name.removesuffix(SUFFIX)
    family = next(family for family in FAMILIES if played in family.TASKS)
    return Play(name, family.make(played, size))
