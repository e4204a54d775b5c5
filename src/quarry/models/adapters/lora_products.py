"""The arithmetic of a LoRA layer in two exact forms, each with a backward pass written by hand.

Both compute y = x W^T + s (x A^T) B^T + bias for a frozen W [out, in] and trainable A [r, in] and
B [out, r]; neither forms a gradient of W, and both keep x, W, A and B for the backward pass and
nothing else. x stays in its dtype: A and B, which peft may hold in fp32, are cast to it, and their
gradients come back in their own dtype.

`merged_product` is the faster one for many tokens. In half precision it is also the coarser one:
W + s B A rounds to W wherever the update is below half a unit in the last place of W, about 0.2 %
of it in bf16. `split_product` adds the update to the output instead and loses none of it.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import linear


class LoraProduct(Protocol):
    """x [..., in] through a frozen linear layer and its update, [..., out]."""

    def __call__(
        self,
        x: Tensor,
        *,
        weight: Tensor,
        bias: Tensor | None,
        lora_a: Tensor,
        lora_b: Tensor,
        scaling: float,
    ) -> Tensor: ...


def merged_product(
    x: Tensor,
    *,
    weight: Tensor,
    bias: Tensor | None,
    lora_a: Tensor,
    lora_b: Tensor,
    scaling: float,
) -> Tensor:
    """y = x (W + s B A)^T: one large product each way, W + s B A made anew for both."""
    rows = as_rows(x)
    y: Tensor = _Merged.apply(rows, weight, bias, lora_a, lora_b, scaling)
    return y.view(*x.shape[:-1], -1)


def split_product(
    x: Tensor,
    *,
    weight: Tensor,
    bias: Tensor | None,
    lora_a: Tensor,
    lora_b: Tensor,
    scaling: float,
) -> Tensor:
    """y = x W^T + u B^T with u = s x A^T [num_tokens, r]: the update meets W's product, not W."""
    rows = as_rows(x)
    y: Tensor = _Split.apply(rows, weight, bias, lora_a, lora_b, scaling)
    return y.view(*x.shape[:-1], -1)


def as_rows(x: Tensor) -> Tensor:
    """[num_tokens, in], in autocast's dtype where that is on (fp64 is not its business)."""
    rows = x.reshape(-1, x.shape[-1])
    device = x.device.type
    if torch.is_autocast_enabled(device) and x.dtype != torch.float64:
        return rows.to(torch.get_autocast_dtype(device))
    return rows


def lora_gradients(
    dy: Tensor, x: Tensor, *, lora_a: Tensor, lora_b: Tensor, scaling: float
) -> tuple[Tensor, Tensor, Tensor]:
    """What every form needs to go back.

    Args:
        dy: [num_tokens, out], gradient of the output.
        x: [num_tokens, in], the input.

    Returns:
        v = s dy B [num_tokens, r], the gradients of A and of B in their own dtypes.
    """
    a, b = lora_a.to(x.dtype), lora_b.to(x.dtype)
    u = (x @ a.t()) * scaling
    v = (dy @ b) * scaling
    return v, (v.t() @ x).to(lora_a.dtype), (dy.t() @ u).to(lora_b.dtype)


def add_product(small: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """small + left right.

    In eager mode `small` is overwritten, which saves a pass over memory. A compiler adds in
    whatever reads the sum next, which is better still, but only if the sum is its own operation.
    """
    if torch.compiler.is_compiling():
        return small + left @ right
    return small.addmm_(left, right)


class _Merged(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917 (autograd knows positions only)
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        lora_a: Tensor,
        lora_b: Tensor,
        scaling: float,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, lora_a, lora_b)
        ctx.scaling = scaling
        w, a, b = (matrix.to(x.dtype) for matrix in (weight, lora_a, lora_b))
        merged = torch.addmm(w, b, a, alpha=scaling)
        return linear(x, merged, None if bias is None else bias.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, lora_a, lora_b = ctx.saved_tensors
        _, da, db = lora_gradients(dy, x, lora_a=lora_a, lora_b=lora_b, scaling=ctx.scaling)
        dx = None
        if ctx.needs_input_grad[0]:
            # the scale sits elsewhere than in forward: a compiler that sees the same expression
            # in both would compute it once and hold a second copy of every weight in between
            merged = torch.addmm(
                weight.to(x.dtype), (lora_b * ctx.scaling).to(x.dtype), lora_a.to(x.dtype)
            )
            dx = dy @ merged
        return dx, None, None, da, db, None


class _Split(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917 (autograd knows positions only)
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        lora_a: Tensor,
        lora_b: Tensor,
        scaling: float,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, lora_a, lora_b)
        ctx.scaling = scaling
        w, a, b = (matrix.to(x.dtype) for matrix in (weight, lora_a, lora_b))
        u = (x @ a.t()) * scaling
        # the small product first: its rounding is small, too, and the large one is rounded once
        update = linear(u, b, None if bias is None else bias.to(x.dtype))
        return add_product(update, x, w.t())

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, lora_a, lora_b = ctx.saved_tensors
        v, da, db = lora_gradients(dy, x, lora_a=lora_a, lora_b=lora_b, scaling=ctx.scaling)
        dx = None
        if ctx.needs_input_grad[0]:
            dx = add_product(v @ lora_a.to(x.dtype), dy, weight.to(x.dtype))
        return dx, None, None, da, db, None
