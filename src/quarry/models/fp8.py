"""Products with frozen weights in fp8 (e4m3), each row scaled by its own maximum.

A product takes two row-wise scaled factors that share their last axis, which is the one summed
over: activations [num_tokens, in] and a weight [out, in], quantised once. The gradient of the
input sums over `out` instead, so training needs a second copy of the weight, [in, out], with
scales of its own. Together the two take the memory of the bf16 weight that they replace.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from quarry.errors import UserError
from quarry.runtime.devices import has_gpu

FP8 = torch.float8_e4m3fn
MIN_CAPABILITY = (8, 9)
"""CUDA's compute capability from which on there are fp8 products: Ada, Hopper and later."""
MULTIPLE = 16
"""Both sides of a weight have to be a multiple of this for the kernel."""


class Scaled(NamedTuple):
    """A matrix as values * scale: values [rows, columns] e4m3, scale [rows, 1] fp32."""

    values: Tensor
    scale: Tensor


class Fp8Linear(nn.Module):
    """A frozen linear layer in fp8; its output has the dtype of its input.

    Args:
        linear: its weight is quantised and let go; its bias stays as it is, frozen.
        is_trained_through: also hold the copy that the gradient of the input asks for.
    """

    forward_values: Tensor
    forward_scale: Tensor
    backward_values: Tensor | None
    backward_scale: Tensor | None
    bias: Tensor | None

    def __init__(self, linear: nn.Linear, *, is_trained_through: bool) -> None:
        super().__init__()
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        weight = linear.weight.detach()
        forward = quantise(weight)
        backward = quantise(weight.t().contiguous()) if is_trained_through else (None, None)
        for name, (values, scale) in {"forward": forward, "backward": backward}.items():
            self.register_buffer(f"{name}_values", values)
            self.register_buffer(f"{name}_scale", scale)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """[..., in_features] to [..., out_features]."""
        y: Tensor = _Fp8Product.apply(
            x if x.ndim == 2 else x.reshape(-1, self.in_features),
            self.forward_values,
            self.forward_scale,
            self.backward_values,
            self.backward_scale,
        )
        return self._with_bias(y).view(*x.shape[:-1], -1)

    def product(self, rows: Scaled, *, dtype: torch.dtype) -> Tensor:
        """The same of rows [num_tokens, in_features] that are quantised already; no gradient."""
        weight = Scaled(self.forward_values, self.forward_scale)
        return self._with_bias(scaled_product(rows, weight, dtype=dtype))

    def _with_bias(self, y: Tensor) -> Tensor:
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}"


def use_fp8(backbone: nn.Module, *, is_trained_through: bool) -> int:
    """Turns every linear layer of `backbone` into fp8, but for adapters; returns how many.

    The weights are let go: merge an adapter before, not after, and have the backbone on its
    device and in its dtype.

    Args:
        is_trained_through: an adapter is trained; encoding takes half the memory without.

    Raises:
        UserError: the device or a shape does not allow it, or a weight is to be trained.
    """
    layers = list(_linear_layers(backbone))
    for name, _, linear in layers:
        _check_device(linear.weight.device)
        _check_layer(name, linear, is_trained_through=is_trained_through)
    replace_linear_layers(backbone, is_trained_through=is_trained_through)
    return len(layers)


def replace_linear_layers(backbone: nn.Module, *, is_trained_through: bool) -> None:
    """What `use_fp8` does once it has checked; on any device, for tests."""
    for name, parent, linear in list(_linear_layers(backbone)):
        layer = Fp8Linear(linear, is_trained_through=is_trained_through)
        setattr(parent, name.rpartition(".")[2], layer)


def quantise(rows: Tensor) -> Scaled:
    """Scales each row so that its largest entry becomes the largest number of e4m3.

    Maximum, scale and cast are one kernel for a compiler.
    """
    limit = torch.finfo(FP8).max  # here: a compiler takes a module's floats for inputs
    largest = rows.abs().amax(dim=1, keepdim=True).float().clamp(min=1e-12)  # a row may be zero
    # e4m3 has no infinity: what rounding lifts above the maximum would become NaN
    values = (rows.float() * (limit / largest)).clamp(-limit, limit)
    return Scaled(values.to(FP8), largest / limit)


def scaled_product(left: Scaled, right: Scaled, *, dtype: torch.dtype) -> Tensor:
    """left right^T in `dtype`, [rows of left, rows of right].

    On CUDA the kernel multiplies fp8 and writes bf16. Elsewhere the factors are scaled back and
    multiplied in fp32: the same algebra.
    """
    if not left.values.is_cuda:
        return ((left.values.float() * left.scale) @ (right.values.float() * right.scale).t()).to(
            dtype
        )
    product: Tensor = torch._scaled_mm(
        left.values.contiguous(),
        right.values.t(),  # column-major, as the kernel has it
        scale_a=left.scale,
        scale_b=right.scale.t(),
        out_dtype=torch.bfloat16,
        use_fast_accum=True,
    )
    return product.to(dtype)


class _Fp8Product(torch.autograd.Function):
    """x W^T; the gradient goes to x alone, and nothing of x is kept for it."""

    @staticmethod
    def forward(  # noqa: PLR0917 (autograd knows positions only)
        ctx: Any,
        x: Tensor,
        values: Tensor,
        scale: Tensor,
        backward_values: Tensor | None,
        backward_scale: Tensor | None,
    ) -> Tensor:
        assert backward_values is not None or not ctx.needs_input_grad[0], "encoding only"
        ctx.save_for_backward(backward_values, backward_scale)
        return scaled_product(quantise(x), Scaled(values, scale), dtype=x.dtype)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        dx = scaled_product(quantise(dy), Scaled(*ctx.saved_tensors), dtype=dy.dtype)
        return dx, None, None, None, None


def _linear_layers(backbone: nn.Module) -> Iterator[tuple[str, nn.Module, nn.Linear]]:
    """(name, parent, layer); peft keeps its own small matrices in dictionaries of modules."""
    for prefix, parent in backbone.named_modules():
        if isinstance(parent, nn.ModuleDict):
            continue
        for name, child in parent.named_children():
            if type(child) is nn.Linear:
                yield f"{prefix}.{name}", parent, child


def check_fp8(*, on_cpu: bool) -> None:
    """Refuses what this machine's device cannot do, before anything is loaded.

    Args:
        on_cpu: the model stays on the CPU, even if there is a GPU.

    Raises:
        UserError: no GPU is used, or one without fp8.
    """
    if on_cpu or not has_gpu():
        _check_device(torch.device("cpu"))
    elif torch.cuda.is_available():  # else a plan is made for a machine that has one
        _check_device(torch.device("cuda"))


def _check_device(device: torch.device) -> None:
    remedy = "Use model.linear_precision=null, or a GPU of the Ada, Hopper or a later generation."
    if device.type != "cuda":
        raise UserError(
            f"model.linear_precision=fp8 needs a CUDA device; the model is on {device}. {remedy}"
        )
    capability = torch.cuda.get_device_capability(device)
    if capability < MIN_CAPABILITY:
        raise UserError(
            f"model.linear_precision=fp8 needs compute capability "
            f"{'.'.join(map(str, MIN_CAPABILITY))} or later; "
            f"{torch.cuda.get_device_name(device)} has {'.'.join(map(str, capability))}. {remedy}"
        )


def _check_layer(name: str, linear: nn.Linear, *, is_trained_through: bool) -> None:
    if linear.in_features % MULTIPLE or linear.out_features % MULTIPLE:
        raise UserError(
            f"model.linear_precision=fp8 needs layers whose two sides are multiples of {MULTIPLE}; "
            f"{name} is {linear.in_features} x {linear.out_features}. Use "
            "model.linear_precision=null with this model."
        )
    if is_trained_through and linear.weight.requires_grad:
        raise UserError(
            f"model.linear_precision=fp8 is for frozen weights, and {name} is to be trained. Train "
            "an adapter (model/adapter=lora), or use model.linear_precision=null."
        )
