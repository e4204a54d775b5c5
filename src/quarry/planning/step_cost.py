"""Estimate the time of a training step, relative to other ways of running the same step.

The unit is a floating-point operation for each weight of a linear layer and token: 2 in the forward
pass, 2 for the gradient of the input (LoRA: frozen weights have no gradient), 2 more where weights
are trained. Recomputation counts as measured, not as 2: the last product of a layer is not
repeated, and the repetition is fused better.
"""

from __future__ import annotations

import math

from quarry.models.gradient_checkpointing import SELECTIVE
from quarry.planning.step_memory import TrainingSetup

FLOP_PER_S = 5.4e14
"""Rate of an H200 in bf16 training; it only weighs the overhead below."""

PASS_OVERHEAD_S = 1.1e-3
"""Overhead of a layer in a forward and backward pass, and half of it in a forward pass: launching
kernels, and matrix products of few rows (one H200, chunks of 2,056 against 24,634 tokens)."""

FORWARD = 1.87
FORWARD_AND_BACKWARD = 4.0
WEIGHT_GRADIENTS = 2.0
SELECTIVE_AGAIN = 0.04
LAYERS_AGAIN = 1.35
LAYERS_AGAIN_EAGER = 1.9
EAGER = 1.25
DROPOUT = 1.047


def step_seconds(setup: TrainingSetup) -> float:
    """Return the seconds of one contrastive batch on one rank of an H200, up to a factor that all
    ways of running the same step share.

    Only the ratio of two setups of one model means anything.
    """
    share = _mean_share(setup)
    per_pass = setup.tokens_per_pass
    num_passes = math.ceil(share / per_pass)
    repeated = max(0.0, share - per_pass)  # one chunk's graph is saved from the first pass
    units = share * units_per_token(setup) + repeated * FORWARD * _slowdown(setup)
    work = units * setup.num_linear / FLOP_PER_S
    overhead = PASS_OVERHEAD_S * setup.layers.num_layers * (num_passes + (num_passes - 1) / 2)
    return work + overhead


def units_per_token(setup: TrainingSetup) -> float:
    """Return the work of a token that goes through the model in one pass."""
    kept = setup.kept
    units = FORWARD_AND_BACKWARD + (WEIGHT_GRADIENTS if kept.trains_backbone else 0)
    if kept.recomputes_layers:
        units += LAYERS_AGAIN if kept.is_compiled else LAYERS_AGAIN_EAGER
    elif kept.gradient_checkpointing == SELECTIVE:
        units += SELECTIVE_AGAIN
    return units * _slowdown(setup)


def _slowdown(setup: TrainingSetup) -> float:
    kept = setup.kept
    return (1.0 if kept.is_compiled else EAGER) * (DROPOUT if kept.has_dropout else 1.0)


def _mean_share(setup: TrainingSetup) -> float:
    """Return the tokens of one rank in a contrastive batch, on average."""
    contrast = setup.contrast
    return contrast.num_queries * contrast.tokens_per_query / setup.world_size
