"""Parameter groups and learning-rate schedules."""

from __future__ import annotations

import math
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from quarry.errors import UserError


def parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Trainable parameters in two groups: matrices, which weight decay may shrink, and vectors
    (norms and biases), which it must not."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trainable if p.ndim >= 2]},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def leave_scaling_to_trainer(optimizer: Optimizer) -> Optimizer:
    """Lets gradients be clipped in mixed precision where a fused optimizer steps.

    A fused optimizer offers to undo the scaling of fp16 losses itself, in its step. Gradients that
    are clipped are unscaled before it, so Lightning refuses the two together, in bf16 too, which
    scales nothing. Without the offer the trainer unscales, as for any other optimizer.
    """
    if hasattr(optimizer, "_step_supports_amp_scaling"):
        optimizer._step_supports_amp_scaling = False
    return optimizer


def offloaded_adamw(
    groups: list[dict[str, Any]], *, fused: bool | None = None, **settings: Any
) -> Optimizer:
    """AdamW for states in the host's memory: DeepSpeed's, compiled at its first use.

    Args:
        groups: as for `torch.optim.AdamW`, and so are the `settings`.
        fused: of `torch.optim.AdamW`; this one is, always.
    """
    del fused
    from deepspeed.ops.adam import DeepSpeedCPUAdam

    optimizer: Optimizer = DeepSpeedCPUAdam(groups, adamw_mode=True, **settings)
    return optimizer


def linear_schedule(
    optimizer: Optimizer, *, num_training_steps: int, num_warmup_steps: int
) -> LambdaLR:
    """Rises linearly over `num_warmup_steps` updates, then falls linearly to 0 at the last one."""
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
    """DeepSpeed's WarmupDecayLR, update for update: a logarithmic rise, then linearly to 0.

    Update n + 1 runs at log(n) / log(num_warmup_steps) of the rate: half of it after the square
    root of the warm-up, and nothing at all in the first two updates.
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
    """Rises linearly over `num_warmup_steps` updates, then stays, however long training lasts."""
    del num_training_steps
    _check_warmup(num_warmup_steps)
    return LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / (num_warmup_steps + 1)))


def _check_warmup(num_warmup_steps: int) -> None:
    if num_warmup_steps < 0:
        raise UserError(f"scheduler.num_warmup_steps={num_warmup_steps} must be 0 or more.")
