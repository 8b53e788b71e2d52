"""What is fast on this device?  One attention function, with the choice of kernel made by device; memory that is kept; bf16 or not.

On a CPU the products are written out: the backward pass of `scaled_dot_product_attention` in bf16 is several times slower there.
On a GPU the fused kernel is used.
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

Kernel = Literal["auto", "products", "fused"]
_kernel: ContextVar[Kernel] = ContextVar("attention kernel", default="auto")


@contextmanager
def attention_kernel(name: Kernel) -> Iterator[None]:
    """Use this kernel inside the block, whatever the device (for measurements)."""
    token = _kernel.set(name)
    try:
        yield
    finally:
        _kernel.reset(token)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Bool[Tensor, "#B 1 #Q K"] | None) -> Tensor:
    """Softmax attention of (B, heads, Q, C) over (B, heads, K, C); a query that may see nothing gets zeros, never NaN."""
    if fused(q):
        out = scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return out if mask is None else torch.where(mask.any(-1, keepdim=True), out, 0.0)
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if mask is None:
        return logits.softmax(dim=-1) @ v
    weights = logits.masked_fill(~mask, torch.finfo(logits.dtype).min).softmax(dim=-1)
    return weights.masked_fill(~mask, 0.0) @ v


def fused(q: Tensor) -> bool:
    """True where the fused kernel is to be used."""
    choice = "auto" if torch.compiler.is_compiling() else _kernel.get()
    return q.is_cuda if choice == "auto" else choice == "fused"


def keep_freed_memory() -> None:
    """Have glibc keep what a training step frees for the next step.

    By default it gives large blocks back to the system and takes them again, zeroed page by page: 1,500 to 2,700 page faults in
    a step of `flare`, about 100 with this (LOG.md).
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):  # musl has none
        libc.mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD, at its largest
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def precision_for(choice: str) -> str:
    """Lightning's name for a precision; auto is bf16 wherever the processor multiplies it faster than fp32."""
    if choice == "auto":
        choice = "bf16" if torch.cuda.is_available() or bf16_is_fast() else "fp32"
    return {"bf16": "bf16-mixed", "fp32": "32-true"}[choice]


def bf16_is_fast() -> bool:
    """True where the processor has matrix or vector instructions for bf16."""
    capability = torch.backends.cpu.get_cpu_capability()
    return capability.startswith("AVX512") and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
