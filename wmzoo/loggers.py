"""Where else do the lines of metrics.csv go?  To TensorBoard or to wandb, which stays offline unless somebody is logged in."""

import os
from collections.abc import Sequence
from importlib.util import find_spec
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import Any

from .config import Experiment, to_plain
from .errors import UserError, unknown

LOGGERS = ("tensorboard", "wandb")


def loggers(names: Sequence[str], out: Path, arm: Experiment) -> list[Any]:
    """Lightning's loggers; a run that goes on writes on.  What they need is imported only here.

    Args:
        names: any of LOGGERS; metrics.csv is written always.
        out: folder of the run; its tensorboard/ and wandb/ are theirs.
        arm: its configuration is stored with wandb's run.

    Raises:
        UserError: there is no such logger, or its package is not installed.
    """
    built = []
    for name in dict.fromkeys(names):
        if name not in LOGGERS:
            raise unknown("logger", name, LOGGERS)
        if find_spec(name) is None:
            raise UserError(f"{name} is not installed; type: pip install {name}")
        built.append(_tensorboard(out) if name == "tensorboard" else _wandb(out, arm))
    return built


def _tensorboard(out: Path) -> Any:
    from lightning.pytorch.loggers import TensorBoardLogger

    return TensorBoardLogger(out, name="tensorboard", version="")


def _wandb(out: Path, arm: Experiment) -> Any:
    import wandb
    from lightning.pytorch.loggers import WandbLogger

    offline = os.environ.get("WANDB_MODE", "online" if logged_in() else "offline") != "online"
    logger = WandbLogger(
        name=out.name,
        save_dir=out,
        project=os.environ.get("WANDB_PROJECT", "wmzoo"),
        offline=offline,
        config=to_plain(arm),
        settings=wandb.Settings(console="off", silent=True),
    )
    try:
        _ = logger.experiment  # begins the run, or says why not before anything is trained
    except wandb.Error as error:
        told = " ".join(str(error).split())
        raise UserError(f"wandb: {told}; type `wandb login`, or set WANDB_MODE=offline") from None
    return logger


def logged_in() -> bool:
    """Is there a key, in the environment or where `wandb login` writes it?"""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return any("wandb" in host for host in netrc().hosts)
    except (OSError, NetrcParseError):
        return False
