"""The arithmetic of a LoRA layer, with a backward pass written by hand.

y = x W^T + (d(x) A^T) B^T + bias for a frozen W [out, in] and trainable factors A [r, in] and
B [out, r], B with peft's scaling in it. No gradient of W is ever formed, and x, d(x) A^T, W, A and
B are all that is kept for the backward pass. x stays in its dtype, and A and B are cast to it.
d is dropout without its factor 1 / (1 - p), which is in B: its mask is made again in the backward
pass (see hashed_dropout.py).

The update meets W's product, not W: in half precision W + B A rounds to W wherever the update is
below half a unit in the last place of W, about 0.2 % of it in bf16.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from quarry.models.adapters.hashed_dropout import dropped
from quarry.models.fp8 import Fp8Linear, Scaled, quantise, scaled_product


class Dropout(NamedTuple):
    """Which entries of the update's input are set to 0, see `hashed_dropout`.

    Attributes:
        seed: [2] int32.
        p: the share of them, below 1.
    """

    seed: Tensor
    p: float


def lora_product(
    x: Tensor,
    *,
    weight: Tensor,
    bias: Tensor | None,
    a: Tensor,
    b: Tensor,
    dropout: Dropout | None = None,
) -> Tensor:
    """Send x [..., in] through a frozen linear layer and its update; return [..., out].

    Args:
        dropout: on the update's input; B then holds the factor 1 / (1 - p).
    """
    rows = as_rows(x)
    seed, p = dropout or (None, 0.0)
    y: Tensor = _LoraProduct.apply(rows, weight, bias, a.to(rows.dtype), b.to(rows.dtype), seed, p)
    return y.view(*x.shape[:-1], -1)


def fp8_product(
    x: Tensor, *, base: Fp8Linear, a: Tensor, b: Tensor, dropout: Dropout | None = None
) -> Tensor:
    """Do the same over a base in fp8; the update stays in x's dtype."""
    seed, p = dropout or (None, 0.0)
    rows = as_rows(x)
    y: Tensor = _Fp8LoraProduct.apply(
        rows,
        base.forward_values,
        base.forward_scale,
        base.backward_values,
        base.backward_scale,
        base.bias,
        a.to(rows.dtype),
        b.to(rows.dtype),
        seed,
        p,
    )
    return y.view(*x.shape[:-1], -1)


def as_rows(x: Tensor) -> Tensor:
    """[num_tokens, in], in autocast's dtype where that is on (fp64 is not its business)."""
    rows = x.reshape(-1, x.shape[-1])
    device = x.device.type
    if torch.is_autocast_enabled(device) and x.dtype != torch.float64:
        return rows.to(torch.get_autocast_dtype(device))
    return rows


def _dropped(x: Tensor, seed: Tensor | None, p: float) -> Tensor:
    return x if seed is None else dropped(x, seed, p)


def _update_gradients(  # noqa: PLR0917 (one call, beside the function's own order)
    dy: Tensor, x: Tensor, u: Tensor, a: Tensor, b: Tensor, seed: Tensor | None, p: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, as far as it comes through A and B, of A and of B.

    Args:
        dy: [num_tokens, out], gradient of the output.
        x: [num_tokens, in], the input.
        u: [num_tokens, r], d(x) A^T.
    """
    v = dy @ b
    return _dropped(v @ a, seed, p), v.t() @ _dropped(x, seed, p), dy.t() @ u


class _LoraProduct(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917 (autograd knows positions only)
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        seed: Tensor | None,
        p: float,
    ) -> Tensor:
        u = _dropped(x, seed, p) @ a.t()
        ctx.save_for_backward(x, u, weight, a, b, seed)
        ctx.p = p
        # the small product first: its rounding is small, too, and the large one is rounded once
        update = linear(u, b, None if bias is None else bias.to(x.dtype))
        return _add_product(update, x, weight.to(x.dtype).t())

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, u, weight, a, b, seed = ctx.saved_tensors
        dx, da, db = _update_gradients(dy, x, u, a, b, seed, ctx.p)
        if not ctx.needs_input_grad[0]:
            return None, None, None, da, db, None, None
        return _add_product(dx, dy, weight.to(x.dtype)), None, None, da, db, None, None


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
        a: Tensor,
        b: Tensor,
        seed: Tensor | None,
        p: float,
    ) -> Tensor:
        u = _dropped(x, seed, p) @ a.t()
        ctx.save_for_backward(x, u, backward_values, backward_scale, a, b, seed)
        ctx.p = p
        update = linear(u, b, None if bias is None else bias.to(x.dtype))
        return update + scaled_product(quantise(x), Scaled(values, scale), dtype=x.dtype)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, u, backward_values, backward_scale, a, b, seed = ctx.saved_tensors
        dx, da, db = _update_gradients(dy, x, u, a, b, seed, ctx.p)
        if not ctx.needs_input_grad[0]:
            return None, None, None, None, None, None, da, db, None, None
        assert backward_values is not None, "quantised for encoding only"
        weight = Scaled(backward_values, backward_scale)
        dx = dx + scaled_product(quantise(dy), weight, dtype=x.dtype)
        return dx, None, None, None, None, None, da, db, None, None


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
