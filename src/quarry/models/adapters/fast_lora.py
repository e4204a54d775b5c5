"""LoRA without the tax: peft keeps the parameters, a faster exact forward and backward use them.

File format, state-dict keys and API stay peft's. peft's own forward runs wherever the fast one
would not be exact, which each layer decides at each call: adapters may be merged, disabled,
switched or given dropout at any time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from quarry.models.adapters.lora_products import fp8_product, lora_product
from quarry.models.fp8 import Fp8Linear


@dataclass(frozen=True, kw_only=True, slots=True)
class FastLoraSummary:
    """Which layers train fast.

    Attributes:
        num_fast: layers whose fast path is exact in training.
        reasons: why the other layers keep peft's path -> how many of them.
    """

    num_fast: int
    reasons: Mapping[str, int]

    def __str__(self) -> str:
        num_layers = self.num_fast + sum(self.reasons.values())
        text = f"LoRA: {self.num_fast} of {num_layers} layers take the fast path"
        why = [f"{reason} ({count})" for reason, count in self.reasons.items()]
        return f"{text}, the others peft's own: {', '.join(why)}" if why else text


def use_fast_lora(backbone: nn.Module) -> FastLoraSummary:
    """Gives every plain LoRA layer of `backbone` the fast path; to be called once peft is on it."""
    reasons: Counter[str] = Counter()
    num_fast = 0
    for layer in backbone.modules():
        if not isinstance(layer, LoraLayer):
            continue
        if type(layer) not in (LoraLinear, FastLoraLinear):
            reasons[f"the layer is {type(layer).__name__}"] += 1
            continue
        # another class, the same object: names, hooks, copies and pickles stay as they are
        layer.__class__ = FastLoraLinear
        reason = obstacle(layer, is_planning=True)
        if reason is None:
            num_fast += 1
        else:
            reasons[reason] += 1
    return FastLoraSummary(num_fast=num_fast, reasons=dict(reasons))


class FastLoraLinear(LoraLinear):
    """A peft LoRA layer that takes the fast path whenever that is exact.

    Attributes:
        cast_a, cast_b: A and the scaled B in the dtype of the products, while a pass has them cast
            for all layers at once (see lora_factors.py).
    """

    cast_a: Tensor | None = None
    cast_b: Tensor | None = None

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if args or kwargs or obstacle(self) is not None:
            output: Tensor = super().forward(x, *args, **kwargs)
            return output
        base = self.base_layer
        a, b = self._factors()
        if isinstance(base, Fp8Linear):
            return fp8_product(x, base=base, a=a, b=b)
        return lora_product(x, weight=base.weight, bias=base.bias, a=a, b=b)

    def _factors(self) -> tuple[Tensor, Tensor]:
        (name,) = active_adapters(self)
        if (a := self.cast_a) is not None and (b := self.cast_b) is not None:
            # tells a compiler the sizes of what is no parameter: it would take them for symbols
            assert a.shape == (self.r[name], self.in_features)
            assert b.shape == (self.out_features, self.r[name])
            return a, b
        return self.lora_A[name].weight, self.lora_B[name].weight * self.scaling[name]


def obstacle(layer: LoraLinear, *, is_planning: bool = False) -> str | None:
    """Why peft's forward has to run now; None where the fast one gives the same.

    Args:
        is_planning: judge as if the layer were in training already.
    """
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
    dropout = layer.lora_dropout[name]
    if not isinstance(dropout, nn.Identity) and dropout.p > 0 and (is_planning or dropout.training):
        return f"dropout={dropout.p}"
    return _obstacle_in_parts(layer.base_layer, layer.lora_A[name], layer.lora_B[name])


def _obstacle_in_parts(base: nn.Module, lora_a: nn.Module, lora_b: nn.Module) -> str | None:
    """The parts are never called on the fast path: they have to be plain."""
    for part in (base, lora_a, lora_b):
        if type(part) not in (nn.Linear, Fp8Linear):
            return f"a part is {type(part).__name__}"
        if part._forward_hooks or part._forward_pre_hooks:
            return "its parts have hooks"
        if part._backward_hooks or part._backward_pre_hooks:
            return "its parts have hooks"
    is_trained = isinstance(base, nn.Linear) and base.weight.requires_grad
    if is_trained or (base.bias is not None and base.bias.requires_grad):
        return "the base layer is trained, too"
    if lora_a.bias is not None or lora_b.bias is not None:
        return "the update has a bias"
    return None


def active_adapters(layer: LoraLinear) -> list[str]:
    """Those of the active adapters that the layer has a part of."""
    return [name for name in layer.active_adapters if name in layer.lora_A]
