"""The arithmetic of a LoRA layer, with a backward pass written by hand.

y = x W^T + s (x A^T) B^T + bias for a frozen W [out, in] and trainable A [r, in] and B [out, r]. No
gradient of W is ever formed, and x, W, A and B are all that is kept for the backward pass. x stays
in its dtype: A and B, which peft may hold in fp32, are cast to it, and their gradients come back in
their own dtype.

The update meets W's product, not W: in half precision W + s B A rounds to W wherever the update is
below half a unit in the last place of W, about 0.2 % of it in bf16.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from quarry.models.fp8 import Fp8Linear, Scaled, quantise, scaled_product


def lora_product(
    x: Tensor,
    *,
    weight: Tensor,
    bias: Tensor | None,
    lora_a: Tensor,
    lora_b: Tensor,
    scaling: float,
) -> Tensor:
    """x [..., in] through a frozen linear layer and its update, [..., out]."""
    y: Tensor = _LoraProduct.apply(as_rows(x), weight, bias, lora_a, lora_b, scaling)
    return y.view(*x.shape[:-1], -1)


def fp8_product(
    x: Tensor, *, base: Fp8Linear, lora_a: Tensor, lora_b: Tensor, scaling: float
) -> Tensor:
    """The same over a base in fp8; the update stays in x's dtype."""
    y: Tensor = _Fp8LoraProduct.apply(
        as_rows(x),
        base.forward_values,
        base.forward_scale,
        base.backward_values,
        base.backward_scale,
        base.bias,
        lora_a,
        lora_b,
        scaling,
    )
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
    """The part of the backward pass that does not ask for W.

    Args:
        dy: [num_tokens, out], gradient of the output.
        x: [num_tokens, in], the input.

    Returns:
        v = s dy B [num_tokens, r], and the gradients of A and of B in their own dtypes.
    """
    a, b = lora_a.to(x.dtype), lora_b.to(x.dtype)
    u = (x @ a.t()) * scaling
    v = (dy @ b) * scaling
    return v, (v.t() @ x).to(lora_a.dtype), (dy.t() @ u).to(lora_b.dtype)


class _LoraProduct(torch.autograd.Function):
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
        return _add_product(update, x, w.t())

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, lora_a, lora_b = ctx.saved_tensors
        v, da, db = lora_gradients(dy, x, lora_a=lora_a, lora_b=lora_b, scaling=ctx.scaling)
        dx = None
        if ctx.needs_input_grad[0]:
            dx = _add_product(v @ lora_a.to(x.dtype), dy, weight.to(x.dtype))
        return dx, None, None, da, db, None


class _Fp8LoraProduct(torch.autograd.Function):
    """One function for base and update: as two that share x, torch 2.11 compiles them to a
    gradient of x that lacks the base's share, without a word."""

    @staticmethod
    def forward(  # noqa: PLR0917 (autograd knows positions only)
        ctx: Any,
        x: Tensor,
        values: Tensor,
        scale: Tensor,
        backward_values: Tensor | None,
        backward_scale: Tensor | None,
        bias: Tensor | None,
        lora_a: Tensor,
        lora_b: Tensor,
        scaling: float,
    ) -> Tensor:
        ctx.save_for_backward(x, backward_values, backward_scale, lora_a, lora_b)
        ctx.scaling = scaling
        a, b = lora_a.to(x.dtype), lora_b.to(x.dtype)
        update = linear((x @ a.t()) * scaling, b, None if bias is None else bias.to(x.dtype))
        return update + scaled_product(quantise(x), Scaled(values, scale), dtype=x.dtype)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, backward_values, backward_scale, lora_a, lora_b = ctx.saved_tensors
        v, da, db = lora_gradients(dy, x, lora_a=lora_a, lora_b=lora_b, scaling=ctx.scaling)
        dx = None
        if ctx.needs_input_grad[0]:
            assert backward_values is not None, "quantised for encoding only"
            weight = Scaled(backward_values, backward_scale)
            dx = v @ lora_a.to(x.dtype) + scaled_product(quantise(dy), weight, dtype=x.dtype)
        return dx, None, None, None, None, None, da, db, None


def _add_product(update: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """update + left right, in the memory of `update`."""
    if torch.compiler.is_compiling():
        torch.ops.quarry.add_product(update, left, right)
    else:
        update.addmm_(left, right)
    return update


# The same for a compiler. Seeing a sum, it would copy `update` first: 6 % of a step in 7B. Not by
# `torch.library.custom_op`, whose own wrapping takes longer than the product in a small model.
torch.library.define("quarry::add_product", "(Tensor(a!) update, Tensor left, Tensor right) -> ()")


@torch.library.impl("quarry::add_product", "CompositeExplicitAutograd")
def _add_product_in_place(update: Tensor, left: Tensor, right: Tensor) -> None:
    update.addmm_(left, right)


@torch.library.register_fake("quarry::add_product")
def _add_product_traced(update: Tensor, left: Tensor, right: Tensor) -> None:
    """Nothing but `update` changes, and that not in shape."""
