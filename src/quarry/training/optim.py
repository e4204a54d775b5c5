"""Build parameter groups and learning-rate schedules."""

from __future__ import annotations

import math
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from quarry.errors import UserError


def parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Return the trainable parameters in two groups: matrices, and vectors without weight decay.

    Vectors are norms and biases.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trainable if p.ndim >= 2]},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def leave_scaling_to_trainer(optimizer: Optimizer) -> Optimizer:
    """Allow gradient clipping in mixed precision with a fused optimizer; return the optimizer.

    A fused optimizer undoes fp16 loss scaling in its own step, but clipping needs unscaled
    gradients before it. Lightning therefore refuses the two together, even in bf16, which has no
    loss scaling. With the optimizer's attribute off, the trainer unscales.
    """
    if hasattr(optimizer, "_step_supports_amp_scaling"):
        optimizer._step_supports_amp_scaling = False
    return optimizer


def offloaded_adamw(
    groups: list[dict[str, Any]], *, fused: bool | None = None, **settings: Any
) -> Optimizer:
    """Build DeepSpeed's AdamW for states in host memory; it is compiled at its first use.

    Args:
        groups, settings: as for `torch.optim.AdamW`.
        fused: ignored; this implementation always is.
    """
    del fused
    from deepspeed.ops.adam import DeepSpeedCPUAdam

    optimizer: Optimizer = DeepSpeedCPUAdam(groups, adamw_mode=True, **settings)
    return optimizer


def linear_schedule(
    optimizer: Optimizer, *, num_training_steps: int, num_warmup_steps: int
) -> LambdaLR:
    """Warm up linearly over `num_warmup_steps`, then decay linearly to 0 at the last step."""
    _check_warmup(num_warmup_steps)

    def factor(step: int) -> float:
        if step < num_warmup_steps:
            return (step + 1) / (num_warmup_steps + 1)
        left = num_training_steps - step
        return max(0.0, left / max(1, num_training_steps - num_warmup_steps))

    return LambdaLR(optimizer, factor)


def log_warmup_schedule(
    optimizer: Optimizer, *, num_training_steps: int, num_warmup_steps: int
) -> LambdaLR:
    """Follow DeepSpeed's WarmupDecayLR: warm up logarithmically, then decay linearly to 0.

    Step n + 1 has log(n) / log(num_warmup_steps) of the rate: half of it after the square root of
    the warm-up, and 0 in the first two steps.
    """
    _check_warmup(num_warmup_steps)
    warmup = max(2, num_warmup_steps)

    def factor(step: int) -> float:
        if step <= warmup:
            return math.log(max(step, 1)) / math.log(warmup)
        left = num_training_steps - (step - 1)
        return max(0.0, left / max(1, num_training_steps - warmup))

    return LambdaLR(optimizer, factor)


def constant_schedule(
    optimizer: Optimizer, *, num_training_steps: int, num_warmup_steps: int
) -> LambdaLR:
    """Warm up linearly over `num_warmup_steps`, then stay constant."""
    del num_training_steps
    _check_warmup(num_warmup_steps)
    return LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / (num_warmup_steps + 1)))


def _check_warmup(num_warmup_steps: int) -> None:
    if num_warmup_steps < 0:
        raise UserError(f"scheduler.num_warmup_steps={num_warmup_steps} must be 0 or more.")
