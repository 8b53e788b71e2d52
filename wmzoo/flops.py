"""How big and how costly is an arm?  Counted on the meta device, so paper scale costs nothing."""

from dataclasses import replace
from functools import cache
from typing import Any

import torch
import yaml
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from .batch import Batch
from .compose import Hybrid
from .config import Experiment, Optim, build, dump, from_plain, sizes_for
from .features import frame_tokens
from .interfaces import WorldModel


def count(arm: Experiment) -> dict[str, Any]:
    """Parameters of every part, and the operations of one forward pass and of one training step for a single window."""
    hybrid, batch = weightless(arm)
    with torch.device("meta"):
        with FlopCounterMode(display=False) as forward:
            scores = hybrid(batch)
            total = torch.stack([score.value.sum() for score in scores.values()]).sum()
        with FlopCounterMode(display=False) as backward:
            total.backward()
        trained = sum(p.numel() for p in hybrid.parameters() if p.requires_grad)
    foreseen = predicted(hybrid, batch)
    parts, counted = {}, set()
    for name, part in _parts(hybrid):  # what two parts share is the first one's
        own = [p for p in part.parameters() if id(p) not in counted]
        parts[name] = sum(p.numel() for p in own)
        counted |= {id(p) for p in own}
    return {
        "arm": arm.name,
        "parameters": {**parts, "all": sum(p.numel() for p in hybrid.parameters()), "trained": trained},
        "flops": {"forward": forward.get_total_flops(), "step": forward.get_total_flops() + backward.get_total_flops(), **foreseen},
    }


def weightless(arm: Experiment) -> tuple[Hybrid, Batch]:
    """The arm and one window, both on the meta device."""
    action, state, views = (getattr(arm.observer, name, usual) for name, usual in (("action", 4), ("state", 4), ("views", 1)))
    with torch.device("meta"):
        hybrid = build(arm, sizes_for(arm, action=action, state=state, views=views, history=1))
        if (needs := hybrid.needs()).history > 1:
            hybrid = build(arm, sizes_for(arm, action=action, state=state, views=views, history=needs.history))
        square = (views, 3, arm.data.size, arm.data.size)
        batch = Batch(
            image=torch.zeros(1, needs.history, *square),
            state=torch.zeros(1, needs.history, state),
            has_state=torch.ones(1, dtype=torch.bool),
            text=torch.ones(1, 24, dtype=torch.long),
            action=torch.zeros(1, arm.data.horizon, action),
            action_mask=torch.ones(1, arm.data.horizon, action, dtype=torch.bool),
            future=torch.zeros(1, len(needs.futures), *square),
            has_future=torch.ones(1, len(needs.futures), dtype=torch.bool),
            offset=torch.ones(1, len(needs.futures), dtype=torch.long),
            embodiment=torch.zeros(1, dtype=torch.long),
            sample=torch.zeros(1, dtype=torch.long),
        )
    return hybrid, batch


def counted(arm: Experiment) -> dict[str, Any]:
    """What `count` says, counted once for all runs whose networks and windows are alike."""
    data = replace(arm.data, tasks=(), root="", demos=1, videos=0)
    return _counted(dump(replace(arm, seed=0, optim=Optim(1), data=data, stages={}, start="none")))


@cache
def _counted(text: str) -> dict[str, Any]:
    return count(from_plain(yaml.safe_load(text)))


def predicted(hybrid: Hybrid, batch: Batch) -> dict[str, int]:
    """Operations of one prediction a chunk ahead, and of the encoder before it; nothing where nothing is predicted.

    Args:
        hybrid, batch: as `weightless` returns them; the hybrid has no gradients afterwards.
    """
    model = hybrid.world_model
    if model is None:
        return {}
    batch = replace(batch, features={})
    hybrid.requires_grad_(False)  # the counter wants a history of whatever could have a gradient
    with torch.device("meta"):
        with torch.no_grad(), FlopCounterMode(display=False) as encode:
            now = frame_tokens(batch, model.encoder, model.view)
        once, steps = sampling(model, batch, now, 1), model.steps
        every = sampling(model, batch, now, 2) - once if steps > 1 else 0  # sampling steps are alike
    return {"prediction": once + (steps - 1) * every, "its encoder": encode.get_total_flops()}


def sampling(model: WorldModel, batch: Batch, now: Float[Tensor, "B P E"], steps: int) -> int:
    """Operations of a prediction that is sampled in so many steps."""
    keep, action, usual = torch.ones(1, model.horizon, dtype=torch.bool), batch.action[:, : model.horizon], model.steps
    model.steps = steps
    with torch.no_grad(), FlopCounterMode(display=False) as predict:
        model.predict(batch, now, action, keep, torch.Generator("cpu"))
    model.steps = usual
    return predict.get_total_flops()


def _parts(hybrid: nn.Module) -> list[tuple[str, nn.Module]]:
    """Observer and objectives child by child, their own tables apart, and the trunk as one; nothing is left out."""
    objectives = hybrid.get_submodule("objectives").named_children()
    whole = [("observer", hybrid.get_submodule("observer")), *((f"objectives.{name}", part) for name, part in objectives)]
    named = [("trunk", hybrid.get_submodule("trunk"))]
    for name, part in whole:
        named += [(f"{name}.{child}", module) for child, module in part.named_children()]
        if tables := dict(part.named_parameters(recurse=False)):
            named.append((f"{name} tables", nn.ParameterDict(tables)))
    return named


def table(counts: dict[str, Any]) -> str:
    """The counts in words."""
    rows = [f"  {name:28} {number:>15,}" for name, number in counts["parameters"].items()]
    operations = [f"  {name:28} {number / 1e9:>15,.3f} GFLOP a window" for name, number in counts["flops"].items()]
    return "\n".join([f"{counts['arm']}: parameters", *rows, "operations", *operations])
