"""Run peft's LoRA layers by a faster forward and backward pass with the same result.

Parameters, file format, state-dict keys and API stay peft's. Each layer decides at each call
whether the fast path is exact, and calls peft's own forward otherwise: adapters may be merged,
disabled or switched at any time. Dropout has peft's distribution, not its random numbers: the mask
is a hash (see hashed_dropout.py). Under ZeRO 3 a layer's forward and backward pass gather its
weights.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from quarry.distributed.zero_gathering import gather_with, is_gathering_hook
from quarry.models.adapters.hashed_dropout import draw_seeds
from quarry.models.adapters.lora_products import Dropout, fp8_product, lora_product
from quarry.models.fp8 import Fp8Linear


@dataclass(frozen=True, kw_only=True, slots=True)
class FastLoraSummary:
    """Counts of the layers that take the fast path, and of those that do not.

    Attributes:
        num_fast: number of layers whose fast path is exact in training.
        reasons: why other layers take peft's path -> number of such layers.
    """

    num_fast: int
    reasons: Mapping[str, int]

    def __str__(self) -> str:
        num_layers = self.num_fast + sum(self.reasons.values())
        text = f"LoRA: {self.num_fast} of {num_layers} layers take the fast path"
        why = [f"{reason} ({count})" for reason, count in self.reasons.items()]
        return f"{text}, the others peft's own: {', '.join(why)}" if why else text


def use_fast_lora(backbone: nn.Module, *, is_sharded: bool = False) -> FastLoraSummary:
    """Give every plain LoRA layer of `backbone` the fast path; call it after peft's wrapping.

    Args:
        is_sharded: DeepSpeed's ZeRO 3 will shard the weights.
    """
    reasons: Counter[str] = Counter()
    num_fast = 0
    for layer in backbone.modules():
        if not isinstance(layer, LoraLayer):
            continue
        if type(layer) not in (LoraLinear, FastLoraLinear):
            reasons[f"the layer is {type(layer).__name__}"] += 1
            continue
        # change the class of the same object: names, hooks, copies and pickles stay as they are
        layer.__class__ = FastLoraLinear
        if is_sharded:
            gather_with(layer, layer.parameters())
            layer.gathers_parts = True
        reason = obstacle(layer)
        if reason is None:
            num_fast += 1
        else:
            reasons[reason] += 1
    return FastLoraSummary(num_fast=num_fast, reasons=dict(reasons))


class FastLoraLinear(LoraLinear):
    """peft LoRA layer that takes the fast path whenever that is exact.

    Attributes:
        cast_a, cast_b: A and the scaled B in the dtype of the products, during a pass that casts
            them for all layers at once (see lora_factors.py); else None.
        gathers_parts: ZeRO 3 shards the weights, and this layer gathers those of base, A and B.
        dropout_seed: seed of the current pass (see lora_dropout.py); None: a call draws its own.
    """

    gathers_parts: bool = False
    cast_a: Tensor | None = None
    cast_b: Tensor | None = None
    dropout_seed: Tensor | None = None

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if args or kwargs or obstacle(self) is not None:
            output: Tensor = super().forward(x, *args, **kwargs)
            return output
        base = self.base_layer
        a, b = self._factors()
        dropout = self._dropout(x)
        if isinstance(base, Fp8Linear):
            return fp8_product(x, base=base, a=a, b=b, dropout=dropout)
        return lora_product(x, weight=base.weight, bias=base.bias, a=a, b=b, dropout=dropout)

    def _factors(self) -> tuple[Tensor, Tensor]:
        (name,) = active_adapters(self)
        if (a := self.cast_a) is not None and (b := self.cast_b) is not None:
            # tells torch.compile these sizes: of tensors that are no parameters they are symbolic
            assert a.shape == (self.r[name], self.in_features)
            assert b.shape == (self.out_features, self.r[name])
            return a, b
        return self.lora_A[name].weight, self.lora_B[name].weight * update_scale(self, name)

    def _dropout(self, x: Tensor) -> Dropout | None:
        (name,) = active_adapters(self)
        if (p := dropout_share(self, name)) == 0:
            return None
        seed = self.dropout_seed
        if seed is None:
            (seed,) = draw_seeds(1, x.device)
        return Dropout(seed, p)


def obstacle(layer: LoraLinear) -> str | None:
    """Return why peft's forward must run now; None if the fast path gives the same result."""
    active = active_adapters(layer)
    if layer.disable_adapters:
        return "adapters are disabled"
    if layer.merged:
        return "the adapter is merged"
    if len(active) != 1:
        return f"{len(active)} adapters are active"
    (name,) = active
    if name in layer.lora_variant:
        return "a variant of LoRA, such as DoRA"
    if type(layer.lora_dropout[name]) not in (nn.Identity, nn.Dropout):
        return f"its dropout is {type(layer.lora_dropout[name]).__name__}"
    parts = layer.base_layer, layer.lora_A[name], layer.lora_B[name]
    gathers_parts = isinstance(layer, FastLoraLinear) and layer.gathers_parts
    return _obstacle_in_parts(*parts, gathers_parts=gathers_parts)


def _obstacle_in_parts(
    base: nn.Module, lora_a: nn.Module, lora_b: nn.Module, *, gathers_parts: bool
) -> str | None:
    """Return why a part is not plain: on the fast path its own forward is never called."""
    for part in (base, lora_a, lora_b):
        if type(part) not in (nn.Linear, Fp8Linear):
            return f"a part is {type(part).__name__}"
        if _has_hooks(part, gathers_parts=gathers_parts):
            return "its parts have hooks"
    is_trained = isinstance(base, nn.Linear) and base.weight.requires_grad
    if is_trained or (base.bias is not None and base.bias.requires_grad):
        return "the base layer is trained, too"
    if lora_a.bias is not None or lora_b.bias is not None:
        return "A or B has a bias"
    return None


def _has_hooks(part: nn.Module, *, gathers_parts: bool) -> bool:
    """Return whether the fast path would skip hooks that matter.

    Hooks that gather a part do not, if the layer gathers its parts itself.
    """
    hooks = (
        part._forward_hooks,
        part._forward_pre_hooks,
        part._backward_hooks,
        part._backward_pre_hooks,
    )
    if not gathers_parts:
        return any(hooks)
    return not all(is_gathering_hook(hook) for kind in hooks for hook in kind.values())


def dropout_share(layer: LoraLinear, name: str) -> float:
    """Return the dropout probability of an adapter in its current mode; 0 in evaluation mode."""
    dropout = layer.lora_dropout[name]
    return float(dropout.p) if isinstance(dropout, nn.Dropout) and dropout.training else 0.0


def update_scale(layer: LoraLinear, name: str) -> float:
    """Return the factor on B: peft's scaling, divided by 1 - dropout probability."""
    return float(layer.scaling[name]) / (1.0 - dropout_share(layer, name))


def active_adapters(layer: LoraLinear) -> list[str]:
    """Return the active adapters that have weights in this layer."""
    return [name for name in layer.active_adapters if name in layer.lora_A]
