"""The factors of all LoRA layers, cast and scaled at once for a pass.

Cast where it is used, a factor is a kernel of its own in the forward pass, one more in the backward
pass, and its gradient a third: of the 105 calls that a compiled layer of seven projections makes in
a step (counted in Inductor's code for a CPU) these are 31. All at once they are a handful for all
layers together. A layer that checkpointing runs
again after the pass casts its own, to the same numbers.

Their gradients come all at once, too, at the end of the backward pass: DDP has nothing of them to
reduce while it runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from quarry.models.adapters.fast_lora import FastLoraLinear, active_adapters, update_scale


def fast_layers(backbone: nn.Module) -> list[FastLoraLinear]:
    return [layer for layer in backbone.modules() if isinstance(layer, FastLoraLinear)]


@contextmanager
def cast_factors(layers: Sequence[FastLoraLinear], dtype: torch.dtype) -> Iterator[None]:
    """Inside, layers with one active adapter find its factors in `dtype`. Gradients come back to
    peft's own parameters, in their dtype, with the numbers that a cast in each layer would give.

    Args:
        dtype: of the products. Layers whose factors have it already, or that ask for a wider one,
            are left alone, and so are those whose factors ZeRO 3 gathers one layer at a time.
    """
    chosen = [wider for layer in layers if (wider := _wider_factors(layer, dtype)) is not None]
    if not chosen:
        yield
        return
    every_a, every_b = [a for _, _, a, _ in chosen], [b for _, _, _, b in chosen]
    scalings = [update_scale(layer, name) for layer, name, _, _ in chosen]
    factors = _CastFactors.apply(dtype, scalings, *every_a, *every_b)
    num = len(chosen)
    try:
        for (layer, *_), a, b in zip(chosen, factors[:num], factors[num:], strict=True):
            _give(layer, a, b)
        yield
    finally:
        for layer, *_ in chosen:
            _give(layer, None, None)


def _wider_factors(
    layer: FastLoraLinear, dtype: torch.dtype
) -> tuple[FastLoraLinear, str, Tensor, Tensor] | None:
    """The layer, its one active adapter, A and B; None where it is left alone."""
    names = active_adapters(layer)
    if len(names) != 1 or layer.gathers_parts:
        return None
    a: Tensor = layer.lora_A[names[0]].weight
    if a.dtype.itemsize <= dtype.itemsize:
        return None
    return layer, names[0], a, layer.lora_B[names[0]].weight


def _give(layer: FastLoraLinear, a: Tensor | None, b: Tensor | None) -> None:
    # a module's own way looks for parameters, buffers and modules first: a third of all this
    object.__setattr__(layer, "cast_a", a)
    object.__setattr__(layer, "cast_b", b)


class _CastFactors(torch.autograd.Function):
    """Takes A of all layers, then B of all; B is scaled before it is cast."""

    @staticmethod
    def forward(
        ctx: Any, dtype: torch.dtype, scalings: list[float], *factors: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.scalings = scalings
        ctx.dtypes = [factor.dtype for factor in factors]
        ctx.set_materialize_grads(False)
        num = len(scalings)
        scaled = [*factors[:num], *torch._foreach_mul(factors[num:], scalings)]
        cast = [torch.empty_like(factor, dtype=dtype) for factor in factors]
        torch._foreach_copy_(cast, scaled)
        return tuple(cast)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
        given = {i: gradient for i, gradient in enumerate(gradients) if gradient is not None}
        there = list(given)
        wide = [torch.empty_like(given[i], dtype=ctx.dtypes[i]) for i in there]
        if there:
            torch._foreach_copy_(wide, list(given.values()))
        num = len(ctx.scalings)
        of_b = [(gradient, i - num) for gradient, i in zip(wide, there, strict=True) if i >= num]
        if of_b:
            scalings = [ctx.scalings[i] for _, i in of_b]
            torch._foreach_mul_([gradient for gradient, _ in of_b], scalings)
        result: list[Tensor | None] = [None] * len(gradients)
        for i, gradient in zip(there, wide, strict=True):
            result[i] = gradient
        return None, None, *result
