"""Compile the backbone's layers with torch.compile, once for all layers and batch sizes.

Layers of one class share their code and so the compiled graph, in which the numbers of tokens and
texts and the longest length are symbols. Recompilation happens only where gradients are switched
on or off, and for a first layer whose input requires no gradient.

The compiler does the gradient checkpointing. With only a layer's inputs saved, it recomputes what
the backward pass needs; the layer's last product is not among it.
Selective checkpointing also saves the outputs of matrix products and attention. It recomputes
element-wise operations (norms, the activation, dropout masks), fused into the kernels that read
them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from quarry.errors import UserError
from quarry.models.gradient_checkpointing import SELECTIVE

logger = logging.getLogger(__name__)

_PARTITION: dict[bool | str, dict[str, Any]] = {
    False: {},
    SELECTIVE: {
        "ban_recompute_materialized_backward": False,
        "ban_recompute_used_far_apart": False,
        "ban_recompute_long_fusible_chains": False,
    },
    True: {"activation_memory_budget": 0.0},
}
"""Gradient checkpointing -> settings of the partitioner into forward and backward graph."""


NUM_TEXTS_THAT_REPAY = 100_000
"""Number of texts from which compiling saves more than the half minute it takes."""


def repays_compilation(num_texts: int, *, device: torch.device) -> bool:
    """Return whether `model.compile=auto` compiles: on a GPU, for long runs."""
    return device.type == "cuda" and num_texts >= NUM_TEXTS_THAT_REPAY


def is_compiled(backbone: nn.Module) -> bool:
    """Return whether the backbone's layers are compiled, and compilation has not failed."""
    layers = [part for part in backbone.modules() if isinstance(part, GradientCheckpointingLayer)]
    return any(layer._compiled_call_impl is not None for layer in layers)


def compile_layers(
    backbone: nn.Module,
    *,
    gradient_checkpointing: bool | str = False,
    backend: str | Callable[..., Any] = "inductor",
) -> int:
    """Compile each layer of `backbone` at its first call; return how many layers there are.

    Call it last: after adapters, their fast path, fp8 and gradient checkpointing. If compilation
    fails, all layers run eagerly, fully checkpointed if checkpointing was on, and one warning says
    why. Copies and pickles hold the plain layers.

    Args:
        gradient_checkpointing: False, "selective" or True; for the last two, the backbone's own
            must be enabled, and is switched off here.
        backend: as in `torch.compile`.

    Raises:
        UserError: the backbone has no `GradientCheckpointingLayer`.
    """
    layers = [part for part in backbone.modules() if isinstance(part, GradientCheckpointingLayer)]
    if not layers:
        raise UserError(
            f"model.compile=true: {type(backbone).__name__} has no layers to compile one by one. "
            "Use model.compile=false with this model."
        )
    # DDP makes dynamo split graphs at its buckets, so that a model compiled as one graph can reduce
    # during backward. Single layers need no splits, and dynamo refuses some of them
    torch._dynamo.config.optimize_ddp = False
    for layer in layers:
        # in place, without a wrapper: parameter names stay as they are
        layer.compile(backend=backend, dynamic=True)
        layer._compiled_call_impl = _with_fallback(
            layer, layers, gradient_checkpointing=gradient_checkpointing
        )
        layer.gradient_checkpointing = False
    return len(layers)


def _with_fallback(
    layer: GradientCheckpointingLayer,
    layers: Sequence[GradientCheckpointingLayer],
    *,
    gradient_checkpointing: bool | str,
) -> Callable[..., Any]:
    from torch._dynamo import maybe_mark_dynamic
    from torch._dynamo.exc import TorchDynamoException

    compiled = layer._compiled_call_impl

    def call(*args: Any, **kwargs: Any) -> Any:
        if (cu_seqlens := kwargs.get("cu_seq_lens_q")) is not None:
            # else dynamo would equate the number of borders with an equal head dimension
            maybe_mark_dynamic(cu_seqlens, 0)
        try:
            with _partitioned(gradient_checkpointing):
                return compiled(*args, **kwargs)
        except (TorchDynamoException, AssertionError) as error:  # dynamo raises both
            for each in layers:
                each._compiled_call_impl = None
                each.gradient_checkpointing = bool(gradient_checkpointing)
            logger.warning(
                "The layers could not be compiled and run eagerly: slower, with the same results. "
                "model.compile=false skips the attempt. Reason: %s",
                " ".join(str(error).split())[:300],
            )
        return layer(*args, **kwargs)

    return call


def _partitioned(gradient_checkpointing: bool | str) -> AbstractContextManager[Any]:
    """Set what layers compiled in this context save for their backward pass."""
    from torch._functorch import config

    settings = _PARTITION[gradient_checkpointing]
    return config.patch(**settings) if settings else nullcontext()
