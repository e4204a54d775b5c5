"""Cast and scale the A and B matrices of all LoRA layers at once for a forward pass.

Cast where it is used, a matrix costs one kernel in the forward pass, one in the backward pass, and
one for its gradient. That is 31 of the 105 calls that a compiled layer of seven projections makes
in a step (counted in Inductor's code for a CPU). All at once they are a handful for all layers
together. A layer that gradient checkpointing recomputes after the pass casts its own, to the same
numbers.

Their gradients also come all at once, at the end of the backward pass: DDP cannot overlap their
reduction with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from quarry.models.adapters.fast_lora import FastLoraLinear, active_adapters, update_scale


def fast_layers(backbone: nn.Module) -> list[FastLoraLinear]:
    """Return all LoRA layers of a backbone that have the fast path."""
    return [layer for layer in backbone.modules() if isinstance(layer, FastLoraLinear)]


@contextmanager
def cast_factors(layers: Sequence[FastLoraLinear], dtype: torch.dtype) -> Iterator[None]:
    """Provide each layer with its active adapter's A and B in `dtype` inside the context.

    Gradients flow to peft's own parameters, in their dtype, with the numbers that a cast in each
    layer would give. Layers without exactly one active adapter are left alone.

    Args:
        dtype: dtype of the products. Layers whose A has no wider dtype are left alone, and so are
            layers whose matrices ZeRO 3 gathers one layer at a time.
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
    """Return the layer, its one active adapter, A and B; None if the layer is left alone."""
    names = active_adapters(layer)
    if len(names) != 1 or layer.gathers_parts:
        return None
    a: Tensor = layer.lora_A[names[0]].weight
    if a.dtype.itemsize <= dtype.itemsize:
        return None
    return layer, names[0], a, layer.lora_B[names[0]].weight


def _give(layer: FastLoraLinear, a: Tensor | None, b: Tensor | None) -> None:
    # nn.Module's __setattr__ looks for parameters, buffers and modules first: a third of the time
    object.__setattr__(layer, "cast_a", a)
    object.__setattr__(layer, "cast_b", b)


class _CastFactors(torch.autograd.Function):
    """Cast of A of all layers, then of B of all layers; B is scaled before it is cast."""

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
