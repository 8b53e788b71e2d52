"""How does a hybrid learn?  It weighs the scores, logs each, steps, and averages the weights.  The only file that knows the loop.

Every random number of step i comes from (seed, i), and batch i is a function of (seed, i), so a run that was killed and
started again ends in the same weights, bit for bit.  A Lightning epoch is a chapter: a fixed number of steps.
"""

import math
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, cast

import lightning as L
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Dataset

from .batch import Batch
from .compose import Hybrid
from .config import Optim
from .errors import UserError
from .kernels import keep_freed_memory, precision_for
from .question import Score


def noise_seed(seed: int, step: int) -> int:
    """What the noise of a training step is seeded by: 32 bits, for torch's generator on a CPU heeds no more of them.

    Seeds are laid out by the golden ratio, so that of a thousand of them no two come to the same number within a million and a half steps.
    """
    return (seed * 0x9E3779B1 + step) % 2**32


class ZooModule(L.LightningModule):
    """A hybrid in training.

    Args:
        hybrid: what learns.
        weights: of each "objective/term"; must name exactly the terms that the hybrid returns.
        optim: how the weights move.
        seed: of the run.
        shares: objectives that are balanced against the first one, and what part of its loss they are.
        rises: objectives whose weights grow linearly from 0, and in how many steps.
    """

    forward_pass: Callable[[Batch], dict[str, Score]]

    def __init__(
        self,
        hybrid: Hybrid,
        weights: dict[str, float],
        optim: Optim,
        seed: int,
        shares: Mapping[str, float] | None = None,
        rises: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        self.hybrid, self.weights, self.optim, self.seed = hybrid, weights, optim, seed
        self.shares, self.rises = shares or {}, rises or {}
        self.__dict__["forward_pass"] = torch.compile(hybrid) if optim.compile else hybrid  # no child: a checkpoint has the weights once
        self.average = Average(hybrid, optim.ema) if optim.ema else None

    @torch.no_grad()
    def rehearse(self, batch: Batch) -> None:
        """One pass that changes nothing, so that what does not fit is found before anything is written.

        Raises:
            UserError: the terms of the loss are not those that have weights.
        """
        with torch.random.fork_rng(devices=[]):
            terms = self.hybrid.eval()(batch).keys()
        self.hybrid.train()
        if terms != self.weights.keys():
            raise UserError(f"the loss has the terms {sorted(terms)}, the experiment weighs {sorted(self.weights)}")

    def training_step(self, batch: Batch, _: int) -> Tensor:
        torch.manual_seed(noise_seed(self.seed, self.global_step))
        return self._total(batch, "train")

    def validation_step(self, batch: Batch, index: int) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(index)
            self._total(batch, "validation")
            torch.manual_seed(index)
            watched = {f"validation/{name}": value for name, value in self.hybrid.watch(batch).items()}
            if index == 0:
                watched |= {f"validation/{term}_gradient": norm for term, norm in self.pulls(batch).items()}
        for name, value in watched.items():  # by the batches that have it, so each by itself
            self.log(name, value, on_step=False, on_epoch=True, batch_size=len(batch))

    def pulls(self, batch: Batch) -> dict[str, Tensor]:
        """Norm of the gradient of every term, unweighted, on the trunk: who pulls how hard?"""
        trunk = [p for p in self.hybrid.trunk.parameters() if p.requires_grad]
        if not trunk:
            return {}
        torch.clear_autocast_cache()  # casts made without gradients would be used again
        with torch.enable_grad():
            means = {term: score.mean() for term, score in self.hybrid(batch).items()}
            pulled = {
                term: torch.autograd.grad(mean, trunk, retain_graph=True, allow_unused=True) if mean.requires_grad else ()
                for term, mean in means.items()
            }
        return {term: nn.utils.get_total_norm([g for g in grads if g is not None]) for term, grads in pulled.items()}

    def _total(self, batch: Batch, stage: str) -> Tensor:
        losses = {term: score.mean() for term, score in self.forward_pass(batch).items()}
        weighted = {term: self.weights[term] * loss for term, loss in losses.items()}
        factors = {name: balance(weighted, next(iter(self.hybrid.objectives)), name, share) for name, share in self.shares.items()}
        factors |= {name: torch.tensor(min(1.0, (self.global_step + 1) / steps)) for name, steps in self.rises.items()}
        weighted |= {term: factors[name] * loss for term, loss in weighted.items() if (name := term.partition("/")[0]) in factors}
        total = torch.stack([*weighted.values()]).sum()
        logged = {f"{stage}/{term}": loss.detach() for term, loss in {**losses, "total": total}.items()}
        logged |= {f"{stage}/{name}_factor": factor for name, factor in factors.items()}
        self.log_dict(logged, on_step=False, on_epoch=True, batch_size=len(batch))
        return total

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self.hybrid.after_step()
        if self.average is not None:
            self.average.update(self.hybrid, self.global_step + 1)  # Lightning counts this step when the hook has returned

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        # Lightning's own clipping refuses the fused optimiser under autocast
        norm = nn.utils.clip_grad_norm_(self.hybrid.parameters(), self.optim.clip)
        self.log("train/gradient_norm", norm, on_step=False, on_epoch=True, batch_size=1)

    def configure_optimizers(self) -> Any:
        plan = self.optim
        optimizer = AdamW(parameter_groups(self.hybrid, plan.decay), lr=plan.lr, betas=plan.betas, fused=True)
        schedule = LambdaLR(optimizer, lambda step: rate(step, plan.steps, plan.warmup))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.average is not None:
            checkpoint["average"] = self.average.values

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.average is not None:
            self.average.values = checkpoint["average"]


def balance(weighted: Mapping[str, Tensor], first: str, name: str, share: float) -> Tensor:
    """The factor at which the terms of one objective are together `share` times those of the first; 0 where they are 0.  No gradient."""
    one, other = (sum(loss.detach() for term, loss in weighted.items() if term.startswith(f"{each}/")) for each in (first, name))
    return torch.where(torch.as_tensor(other) == 0, 0.0, share * torch.as_tensor(one) / torch.as_tensor(other))


def ema_decay(update: int, limit: float) -> float:
    """How much of the average is kept at an update (1 is the first): 0, 0, 1 - 2^-0.75, 1 - 3^-0.75, ..., at most `limit`.

    As in Diffusion Policy (arXiv:2303.04137), whose code counts from its second update.  No unit.
    """
    return min(limit, 1 - max(1, update - 1) ** -0.75)


class Average:
    """The exponential moving average of a network's parameters, which is what plays; young averages forget quickly (`ema_decay`)."""

    def __init__(self, network: nn.Module, limit: float) -> None:
        self.limit = limit
        self.values = {name: p.detach().clone() for name, p in network.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Move the average toward the network's parameters after optimiser step number `step` (1 is the first)."""
        decay = ema_decay(step, self.limit)
        current = dict(network.named_parameters())
        targets = [current[name] for name in self.values]
        if targets[0].device != next(iter(self.values.values())).device:
            self.values = {name: value.to(targets[0].device) for name, value in self.values.items()}
        torch._foreach_lerp_(list(self.values.values()), targets, 1 - decay)  # pyright: ignore

    @torch.no_grad()
    def copy_to(self, network: nn.Module) -> None:
        """Put the averaged values into the network."""
        for name, parameter in network.named_parameters():
            if name in self.values:
                parameter.copy_(self.values[name])


def parameter_groups(network: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Trainable parameters in two groups: matrices decay; norms, biases and tables do not."""
    tables = {id(p) for m in network.modules() if isinstance(m, nn.Embedding | nn.GroupNorm | nn.LayerNorm) for p in m.parameters()}
    trained = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    plain = [p for name, p in trained if p.ndim < 2 or id(p) in tables or not name.endswith("weight")]
    chosen = {id(p) for p in plain}
    heavy = [p for _, p in trained if id(p) not in chosen]
    return [{"params": heavy, "weight_decay": decay}, {"params": plain, "weight_decay": 0.0}]


def rate(step: int, steps: int, warmup: float) -> float:
    """Learning-rate factor: linear up to 1 over the warm-up, then a cosine down to 0."""
    rising = max(1, round(warmup * steps))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rising) / max(1, steps - rising))))


class Source(Protocol):
    """What gives batches."""

    def train(self, step: int) -> Batch:
        """Training batch number `step`."""
        ...

    def validate(self, count: int) -> Sequence[Batch]:
        """Those of at most `count` validation windows, always the same."""
        ...


class Steps(Dataset[Batch]):
    """Training batches first, first + 1, ..., each drawn when it is asked for."""

    def __init__(self, source: Source, first: int, count: int) -> None:
        self.source, self.first, self.count = source, first, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Batch:
        return self.source.train(self.first + index)


class ZooData(L.LightningDataModule):
    """One chapter of training batches at a time, and the fixed validation windows."""

    def __init__(self, source: Source, optim: Optim, validation: int = 256) -> None:
        super().__init__()
        self.source, self.optim, self.validation = source, optim, validation

    def train_dataloader(self) -> DataLoader[Batch]:
        assert self.trainer is not None
        first = self.trainer.global_step
        return DataLoader(Steps(self.source, first, min(self.optim.chapter, self.optim.steps - first)), batch_size=None)

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(cast("Dataset[Batch]", self.source.validate(self.validation)), batch_size=None)


class Interruptible(L.Callback):
    """Ctrl-C is heard between two batches: C code that calls Python may turn it into another error.  A second one is heard at once."""

    def __init__(self) -> None:
        self.asked = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Until it is left; where Ctrl-C is ignored, or another thread has to hear it, nothing changes."""
        before = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is not threading.main_thread() or before != signal.default_int_handler:
            yield
            return
        signal.signal(signal.SIGINT, self.hear)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
        self.on_train_batch_end()

    def hear(self, *_: Any) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self.asked = True

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        if self.asked:
            raise KeyboardInterrupt

    on_validation_batch_end = on_train_batch_end


def run_loop(module: ZooModule, data: ZooData, callbacks: list[L.Callback], loggers: list[Any], checkpoint: str | None) -> None:
    """Train to the last step, from a checkpoint if there is one."""
    keep_freed_memory()
    interruptible = Interruptible()
    trainer = L.Trainer(
        max_epochs=-1,
        max_steps=module.optim.steps,
        precision=precision_for(module.optim.precision),  # type: ignore[arg-type]
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
        inference_mode=False,  # the norms of validation need a graph
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=loggers,
        devices=1,
        callbacks=[*callbacks, interruptible],
    )
    try:
        with interruptible.listening():
            trainer.fit(module, data, ckpt_path=checkpoint, weights_only=False)
    except SIGTERMException:
        raise SystemExit(128 + signal.SIGTERM) from None
    except SystemExit:  # what Lightning makes of Ctrl-C
        raise (KeyboardInterrupt if trainer.interrupted else SystemExit(1)) from None
