"""What can be learnt in seconds?  A point hand on a table that has to reach the disc it is told to reach (pure numpy)."""

import numpy as np

from ..interfaces import Task, View

TASKS = {"toy-red": "reach the red disc", "toy-blue": "reach the blue disc"}
PRESETS = {"toy": ("toy-red", "toy-blue")}
SHIFTS = ()
COLOURS = {"toy-red": (220, 40, 40), "toy-blue": (40, 80, 220)}


class Reach(Task):
    """Two discs and a hand in the unit square; the action is a step (dx, dy, grip), each in [-1, 1]; grip does nothing."""

    state_names = ("hand x", "hand y")
    action_names = ("dx", "dy", "grip")
    limit = 30
    stride = 0.08
    near = 0.08

    def __init__(self, name: str, size: int) -> None:
        self.name, self.instruction, self.size = name, TASKS[name], size

    def reset(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.hand = rng.uniform(0.1, 0.9, 2)
        red = rng.uniform(0.1, 0.9, 2)
        blue = (red + rng.uniform(0.3, 0.5, 2)) % 0.8 + 0.1
        self.discs = {"toy-red": red, "toy-blue": blue}

    def step(self, action: np.ndarray) -> bool:
        self.hand = np.clip(self.hand + self.stride * np.clip(action[:2], -1, 1), 0, 1)
        return bool(np.linalg.norm(self.hand - self.discs[self.name]) < self.near)

    def look(self) -> View:
        grid = (np.arange(self.size) + 0.5) / self.size
        frame = np.full((self.size, self.size, 3), 200, np.uint8)
        things = [(self.discs[name], 0.08, COLOURS[name]) for name in TASKS] + [(self.hand, 0.06, (20, 20, 20))]
        for (x, y), radius, colour in things:
            frame[(grid[None, :] - x) ** 2 + (grid[:, None] - y) ** 2 < radius**2] = colour
        return View(frame[None], self.hand.astype(np.float32))

    def expert(self) -> np.ndarray:
        step = np.clip((self.discs[self.name] - self.hand) / self.stride, -1, 1)
        return np.array([*step, 0.0], np.float32)

    def hand_pixel(self, state: np.ndarray) -> tuple[float, float] | None:
        return float(state[1]), float(state[0])


def make(name: str, size: int) -> Task:
    return Reach(name, size)
