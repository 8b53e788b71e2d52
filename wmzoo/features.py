"""Where do features come from?  Read from disk, or computed once per batch, by whoever asks first."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from .batch import Batch
from .interfaces import Encoder


def encoded(batch: Batch, encoder: Encoder, which: Literal["now", "future"]) -> Float[Tensor, "B N E"]:
    """The tokens of all frames and cameras of the batch, one after the other.

    A frozen encoder's result is kept in `batch.features`, so several objectives share one pass, and a data set that was
    encoded beforehand (same content hash) is not encoded again.
    """
    name = getattr(encoder, "fingerprint", None)
    key = f"{name}/{which}"
    if name is not None and key in batch.features:
        return batch.features[key].flatten(1, -2)
    images = batch.image if which == "now" else batch.future
    tokens = encoder(images.flatten(0, 2)).unflatten(0, images.shape[:3])
    if name is not None:
        batch.features[key] = tokens
    return tokens.flatten(1, -2)
