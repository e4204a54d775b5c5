"""Compute matrix products with frozen weights in fp8 (e4m3), each row scaled by its maximum.

A product takes two row-wise scaled factors and sums over their last axis: activations
[num_tokens, in] and a weight [out, in], quantized once. The gradient of the input sums over `out`
instead, so training needs a second copy of the weight, [in, out], with scales of its own.
Together the two take the memory of the bf16 weight that they replace.
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
"""Lowest CUDA compute capability with fp8 products: Ada, Hopper and later."""
MULTIPLE = 16
"""Both dimensions of a weight must be a multiple of this for the kernel."""


class Scaled(NamedTuple):
    """A matrix as values * scale: values [rows, columns] e4m3, scale [rows, 1] fp32."""

    values: Tensor
    scale: Tensor


class Fp8Linear(nn.Module):
    """A frozen linear layer in fp8; its output has the dtype of its input.

    Args:
        linear: the layer to replace; its weight is quantized, its bias stays as it is, frozen.
        is_trained_through: also hold the copy that the gradient of the input needs.
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
        forward = quantize(weight)
        backward = quantize(weight.t().contiguous()) if is_trained_through else (None, None)
        for name, (values, scale) in {"forward": forward, "backward": backward}.items():
            self.register_buffer(f"{name}_values", values)
            self.register_buffer(f"{name}_scale", scale)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., in_features] to [..., out_features]."""
        y: Tensor = _Fp8Product.apply(
            x if x.ndim == 2 else x.reshape(-1, self.in_features),
            self.forward_values,
            self.forward_scale,
            self.backward_values,
            self.backward_scale,
        )
        return self._with_bias(y).view(*x.shape[:-1], -1)

    def product(self, rows: Scaled, *, dtype: torch.dtype) -> Tensor:
        """Map quantized rows [num_tokens, in_features] to [num_tokens, out_features].

        No gradient flows through this.
        """
        weight = Scaled(self.forward_values, self.forward_scale)
        return self._with_bias(scaled_product(rows, weight, dtype=dtype))

    def _with_bias(self, y: Tensor) -> Tensor:
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}"


def use_fp8(backbone: nn.Module, *, is_trained_through: bool) -> int:
    """Replace every linear layer of `backbone` by `Fp8Linear`, adapters excepted.

    The original weights are dropped: merge an adapter before, and move the backbone to its device
    and dtype before.

    Args:
        is_trained_through: an adapter is trained; without it, encoding takes half the memory.

    Returns:
        The number of replaced layers.

    Raises:
        UserError: the device or a shape does not allow it, or a weight is trainable.
    """
    layers = list(_linear_layers(backbone))
    for name, _, linear in layers:
        _check_device(linear.weight.device)
        _check_layer(name, linear, is_trained_through=is_trained_through)
    replace_linear_layers(backbone, is_trained_through=is_trained_through)
    return len(layers)


def replace_linear_layers(backbone: nn.Module, *, is_trained_through: bool) -> None:
    """Replace linear layers as `use_fp8` does, without its checks and on any device."""
    for name, parent, linear in list(_linear_layers(backbone)):
        layer = Fp8Linear(linear, is_trained_through=is_trained_through)
        setattr(parent, name.rpartition(".")[2], layer)


def quantize(rows: Tensor) -> Scaled:
    """Scale each row so that its largest absolute entry becomes the largest e4m3 number.

    torch.compile fuses maximum, scaling and cast into one kernel.
    """
    limit = torch.finfo(FP8).max  # local: torch.compile treats module-level floats as inputs
    largest = rows.abs().amax(dim=1, keepdim=True).float().clamp(min=1e-12)  # a row may be zero
    # e4m3 has no infinity: what rounding lifts above the maximum would become NaN
    values = (rows.float() * (limit / largest)).clamp(-limit, limit)
    return Scaled(values.to(FP8), largest / limit)


def scaled_product(left: Scaled, right: Scaled, *, dtype: torch.dtype) -> Tensor:
    """Return left right^T in `dtype`, [rows of left, rows of right].

    On CUDA the kernel multiplies in fp8 and writes bf16. Elsewhere the factors are dequantized
    and multiplied in fp32: the same algebra.
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
    """x W^T with a gradient for x alone; x is not saved for the backward pass."""

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
        return scaled_product(quantize(x), Scaled(values, scale), dtype=x.dtype)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        dx = scaled_product(quantize(dy), Scaled(*ctx.saved_tensors), dtype=dy.dtype)
        return dx, None, None, None, None


def _linear_layers(backbone: nn.Module) -> Iterator[tuple[str, nn.Module, nn.Linear]]:
    """Yield (name, parent, layer), without peft's LoRA matrices, which are in a ModuleDict."""
    for prefix, parent in backbone.named_modules():
        if isinstance(parent, nn.ModuleDict):
            continue
        for name, child in parent.named_children():
            if type(child) is nn.Linear:
                yield f"{prefix}.{name}", parent, child


def check_fp8(*, on_cpu: bool) -> None:
    """Refuse fp8 if this machine's device lacks it, before anything is loaded.

    Args:
        on_cpu: the model stays on the CPU, even if there is a GPU.

    Raises:
        UserError: no GPU is used, or one without fp8.
    """
    if on_cpu or not has_gpu():
        _check_device(torch.device("cpu"))
    elif torch.cuda.is_available():  # else task=plan plans for another machine's GPU
        _check_device(torch.device("cuda"))


def _check_device(device: torch.device) -> None:
    remedy = "Fix: model.linear_precision=null, or a GPU of the Ada, Hopper or a later generation."
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
            f"model.linear_precision=fp8: {name} is {linear.in_features} x {linear.out_features} "
            f"(both dimensions must be multiples of {MULTIPLE}). Fix: model.linear_precision=null "
            "with this model."
        )
    if is_trained_through and linear.weight.requires_grad:
        raise UserError(
            f"model.linear_precision=fp8 is for frozen weights, and {name} is trained. Fix: train "
            "an adapter (model/adapter=lora), or model.linear_precision=null."
        )
