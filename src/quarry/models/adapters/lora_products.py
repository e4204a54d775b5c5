"""Compute a LoRA layer with a hand-written backward pass.

y = x W^T + (d(x) A^T) B^T + bias for a frozen W [out, in] and trainable A [r, in] and B [out, r]; B
includes peft's scaling. The gradient of W is never formed, and only x, d(x) A^T, W, A and B are
saved for the backward pass. x keeps its dtype, and A and B are cast to it. d is dropout without
its factor 1 / (1 - p), which is in B; its mask is recomputed in the backward pass (see
hashed_dropout.py).

B A is added to W's product, not to W: in half precision W + B A rounds to W wherever B A is below
half a unit in the last place of W, about 0.2 % of it in bf16.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from quarry.models.adapters.hashed_dropout import dropped
from quarry.models.fp8 import Fp8Linear, Scaled, quantize, scaled_product


class Dropout(NamedTuple):
    """Seed and probability of the dropout on A's input, see `hashed_dropout`.

    Attributes:
        seed: [2] int32.
        p: dropout probability, below 1.
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
    """Apply a frozen linear layer with LoRA to x [..., in]; return [..., out].

    Args:
        dropout: dropout on the input of A; B then includes the factor 1 / (1 - p).
    """
    rows = as_rows(x)
    seed, p = dropout or (None, 0.0)
    y: Tensor = _LoraProduct.apply(rows, weight, bias, a.to(rows.dtype), b.to(rows.dtype), seed, p)
    return y.view(*x.shape[:-1], -1)


def fp8_product(
    x: Tensor, *, base: Fp8Linear, a: Tensor, b: Tensor, dropout: Dropout | None = None
) -> Tensor:
    """Apply a frozen fp8 layer with LoRA to x [..., in]; A and B are in x's dtype."""
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
    """Reshape x to [num_tokens, in], in autocast's dtype if that is on (fp64 stays fp64)."""
    rows = x.reshape(-1, x.shape[-1])
    device = x.device.type
    if torch.is_autocast_enabled(device) and x.dtype != torch.float64:
        return rows.to(torch.get_autocast_dtype(device))
    return rows


def _dropped(x: Tensor, seed: Tensor | None, p: float) -> Tensor:
    return x if seed is None else dropped(x, seed, p)


def _lora_gradients(  # noqa: PLR0917 (one call, in the order of the function's arguments)
    dy: Tensor, x: Tensor, u: Tensor, a: Tensor, b: Tensor, seed: Tensor | None, p: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x (through A and B alone), of A and of B.

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
        low_rank = linear(u, b, None if bias is None else bias.to(x.dtype))
        return _add_product(low_rank, x, weight.to(x.dtype).t())

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, u, weight, a, b, seed = ctx.saved_tensors
        dx, da, db = _lora_gradients(dy, x, u, a, b, seed, ctx.p)
        if not ctx.needs_input_grad[0]:
            return None, None, None, da, db, None, None
        return _add_product(dx, dy, weight.to(x.dtype)), None, None, da, db, None, None


class _Fp8LoraProduct(torch.autograd.Function):
    """The fp8 base product and B A in one function.

    As two functions that share x, torch 2.11 compiles them to a gradient of x that silently lacks
    the base's share.
    """

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
        low_rank = linear(u, b, None if bias is None else bias.to(x.dtype))
        return low_rank + scaled_product(quantize(x), Scaled(values, scale), dtype=x.dtype)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, u, backward_values, backward_scale, a, b, seed = ctx.saved_tensors
        dx, da, db = _lora_gradients(dy, x, u, a, b, seed, ctx.p)
        if not ctx.needs_input_grad[0]:
            return None, None, None, None, None, None, da, db, None, None
        assert backward_values is not None, "quantized for encoding only"
        weight = Scaled(backward_values, backward_scale)
        dx = dx + scaled_product(quantize(dy), weight, dtype=x.dtype)
        return dx, None, None, None, None, None, da, db, None, None


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Add left right to `total` in place; return it."""
    if torch.compiler.is_compiling():
        torch.ops.quarry.add_product(total, left, right)
    else:
        total.addmm_(left, right)
    return total


# The same for torch.compile, which would copy `total` before a plain sum: 6 % of a step in 7B. Not
# a `torch.library.custom_op`: its overhead exceeds the time of the product in a small model.
torch.library.define("quarry::add_product", "(Tensor(a!) total, Tensor left, Tensor right) -> ()")


@torch.library.impl("quarry::add_product", "CompositeExplicitAutograd")
def _add_product_in_place(total: Tensor, left: Tensor, right: Tensor) -> None:
    total.addmm_(left, right)


@torch.library.register_fake("quarry::add_product")
def _add_product_traced(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Do nothing: the op changes only the values of `total`, not its shape."""
