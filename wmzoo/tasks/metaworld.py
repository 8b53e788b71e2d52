"""How is Meta-World MT10 played?  One camera, pixels and the hand only, seeds that are seeds, a scripted expert.

Yu et al. 2019, Meta-World, arXiv:1910.10897; tasks and experts are those of the `metaworld` package.
Cures for what the package does by default, each of which has a test:
    reset(seed=) is ignored        `seeded_rand_vec`, and seeding the environment before each reset
    the goal is hidden from the    the expert alone sees the full observation; the policy never does
    expert
    12 frames a second on a CPU    shadows, reflections and multi-sampling off: above 100
    corner2 is upside down         rows are flipped, and the camera moves closer to the table
"""

import atexit
import os
import warnings
from ctypes.util import find_library
from typing import Any

import numpy as np

from ..errors import UserError, unknown
from ..interfaces import Task, View

TASKS = {
    "reach": "reach the red goal point",
    "push": "push the puck to the green goal point",
    "pick-place": "pick up the puck and place it at the blue goal point",
    "door-open": "open the door",
    "drawer-open": "open the drawer",
    "drawer-close": "close the drawer",
    "button-press-topdown": "press the button from above",
    "peg-insert-side": "insert the peg into the box from the side",
    "window-open": "open the window",
    "window-close": "close the window",
}
PRESETS = {"mw3": ("drawer-open", "window-close", "button-press-topdown"), "mw10": tuple(TASKS)}
SHIFTS = ("camera", "light", "colour", "distractor", "start")
MOVED = np.array((0.04, 0.04, 0.03))  # metres that the camera moves for each unit of strength
DIMMED = (0.75, 0.5, 0.3)  # what is left of the light
TINT = np.array((0.35, 0.55, 1.0))  # of table, floor and wall at strength 3
SURFACES = ("table_wood", "basic_floor", "wall_metal")
DISTRACTORS = (  # metres, colour; on the table, away from where tasks are solved
    ((-0.3, 0.42, 0.03), (0.9, 0.2, 0.8, 1)),
    ((0.3, 0.45, 0.03), (0.1, 0.8, 0.8, 1)),
    ((-0.34, 0.62, 0.03), (0.95, 0.6, 0.1, 1)),
)
AWAY = 0.05  # metres between the hand's usual start and the shifted one for each unit of strength
CAMERA, CAMERA_POSITION = "corner2", (0.75, 0.075, 0.7)  # metres; shows the whole table


def choose_gl() -> str:
    """The GL backend of MuJoCo: the user's choice if there is one, else a GPU's or Mesa's EGL, else OSMesa.

    Raises:
        UserError: no library that can draw without a display is installed.
    """
    if "MUJOCO_GL" not in os.environ:
        backends = {"egl": ("EGL_nvidia", "EGL_mesa"), "osmesa": ("OSMesa",)}
        found = [name for name, libraries in backends.items() if any(map(find_library, libraries))]
        if not found:
            raise UserError("no GL library to draw with; type: apt-get install -y libegl1 libegl-mesa0 libgl1-mesa-dri")
        os.environ["MUJOCO_GL"] = found[0]
        if found[0] == "egl" and not os.path.exists("/dev/nvidia0"):
            os.environ.setdefault("EGL_PLATFORM", "surfaceless")
    return os.environ["MUJOCO_GL"]


class MetaWorld(Task):
    """One MT10 task.  The state is the hand's position (metres) and the gripper's opening (0 closed to 1 open)."""

    state_names = ("hand x", "hand y", "hand z", "gripper opening")
    action_names = ("dx", "dy", "dz", "gripper effort")
    limit = 250

    def __init__(self, name: str, size: int) -> None:
        choose_gl()
        try:
            import mujoco
            from metaworld.env_dict import ALL_V3_ENVIRONMENTS
            from metaworld.policies import ENV_POLICY_MAP
        except ModuleNotFoundError as error:
            raise UserError(f'{name} needs the package {error.name}; type: pip install "wmzoo[metaworld]"') from None

        self.name, self.instruction = name, TASKS[name]
        self._boxes: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...] = ()
        self._away = 0.0
        self._env = ALL_V3_ENVIRONMENTS[f"{name}-v3"]()
        self._env._set_task_called = True  # the package insists on its own task lists; seeds are ours
        self._env._freeze_rand_vec = False
        self._env._partially_observable = False
        self._env.__dict__.pop("sawyer_observation_space", None)  # cached with the goal clipped to zero
        self._env.seeded_rand_vec = True
        self._usual = np.array(self._env.hand_init_pos)
        self._expert = ENV_POLICY_MAP[f"{name}-v3"]()
        model = self._env.model
        model.vis.quality.offsamples = 0
        model.vis.global_.offwidth = model.vis.global_.offheight = size
        model.camera(CAMERA).pos[:] = CAMERA_POSITION
        self._renderer = mujoco.Renderer(model, size, size)
        flags: Any = mujoco.mjtRndFlag  # pyright: ignore[reportAttributeAccessIssue]
        for flag in (flags.mjRND_SHADOW, flags.mjRND_REFLECTION):
            self._renderer.scene.flags[flag] = 0
        atexit.register(self._renderer.close)  # before MuJoCo's own exit handler takes the display away

    def shift(self, axis: str, strength: int) -> None:
        """camera: moved; light: dimmed; colour: of table, floor and wall; distractor: boxes that are only seen; start: of the hand."""
        if axis not in SHIFTS:
            raise unknown("shift", axis, SHIFTS)
        if strength not in (1, 2, 3):
            raise UserError(f"a shift has strength 1, 2 or 3, not {strength}")
        model = self._env.model
        if axis == "camera":
            model.camera(CAMERA).pos[:] += strength * MOVED
        elif axis == "light":
            for light in (model.vis.headlight.ambient, model.vis.headlight.diffuse, model.light_diffuse):
                light[:] *= DIMMED[strength - 1]
        elif axis == "colour":
            for i in range(model.nmat):
                if model.mat(i).name in SURFACES:
                    model.mat_rgba[i, :3] *= 1 - strength / 3 * (1 - TINT)
        elif axis == "distractor":
            self._boxes = DISTRACTORS[:strength]
        else:
            self._away = AWAY * strength

    def reset(self, seed: int) -> None:
        if self._away:  # in a direction of the seed's own; what the simulator draws stays the same
            angle = np.random.default_rng(seed).uniform(0, 2 * np.pi)
            self._env.hand_init_pos = self._usual + self._away * np.array((np.cos(angle), 0.6 * np.sin(angle), 0.8 * np.abs(np.sin(angle))))
        self._env.seed(seed)
        self._full, _ = self._env.reset()

    def step(self, action: np.ndarray) -> bool:
        self._full, _, _, _, info = self._env.step(np.clip(action, -1, 1))
        return bool(info["success"])

    def look(self) -> View:
        self._renderer.update_scene(self._env.data, camera=CAMERA)
        for place, colour in self._boxes:
            self._add_box(place, colour)
        return View(self._renderer.render()[None, ::-1].copy(), self._full[:4].astype(np.float32))

    def _add_box(self, place: tuple[float, ...], colour: tuple[float, ...]) -> None:
        """Into the picture alone: nothing can touch it."""
        import mujoco

        scene, kinds = self._renderer.scene, mujoco.mjtGeom  # pyright: ignore[reportAttributeAccessIssue]
        arguments = (kinds.mjGEOM_BOX, np.full(3, 0.035), np.array(place), np.eye(3).ravel(), np.array(colour, np.float32))
        mujoco.mjv_initGeom(scene.geoms[scene.ngeom], *arguments)  # pyright: ignore[reportAttributeAccessIssue]
        scene.ngeom += 1

    def expert(self) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # "Constant(s) may be too high": clipped below
            action = self._expert.get_action(self._full)
        return np.clip(action, -1, 1).astype(np.float32)

    def hand_pixel(self, state: np.ndarray) -> tuple[float, float] | None:
        """The projection of MuJoCo's camera, whose axes point right, up and backwards; `look` turns its rows around."""
        import mujoco

        model, data = self._env.model, self._env.data
        # moves nothing else, so play is not disturbed; the camera is fixed to the world
        mujoco.mj_camlight(model, data)  # pyright: ignore[reportAttributeAccessIssue]
        camera = model.camera(CAMERA).id
        right, up, back = data.cam_xmat[camera].reshape(3, 3).T @ (np.asarray(state[:3], float) - data.cam_xpos[camera])
        if back >= 0:
            return None
        scale = 0.5 / (np.tan(np.radians(model.cam_fovy[camera]) / 2) * -back)
        return float(0.5 + scale * up), float(0.5 + scale * right)

    def close(self) -> None:
        atexit.unregister(self._renderer.close)
        self._renderer.close()


def make(name: str, size: int) -> Task:
    return MetaWorld(name, size)
