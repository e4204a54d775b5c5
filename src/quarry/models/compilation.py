"""torch.compile of the backbone's layers: one compilation serves all of them and all batch sizes.

Layers of one class share their code, so they share what it was compiled to; the number of tokens,
of texts and the longest text's length are symbols in there. A new graph is made only for another
situation: gradients on or off, and a first layer whose input asks for no gradient.

Gradient checkpointing is left to the compiler. Told to keep a layer's inputs alone, it computes
again what the backward pass asks for, and not the layer's last product, which nothing does.
Selective checkpointing keeps the outputs of matrix products and attention, too, and computes what
is element-wise again (norms, the activation, dropout's masks), fused into the kernels that read it.
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

logger = logging.getLogger(__name__)


SELECTIVE = "selective"
"""Gradient checkpointing that computes again what is element-wise alone."""

_PARTITION: dict[bool | str, dict[str, Any]] = {
    False: {},
    SELECTIVE: {
        "ban_recompute_materialized_backward": False,
        "ban_recompute_used_far_apart": False,
        "ban_recompute_long_fusible_chains": False,
    },
    True: {"activation_memory_budget": 0.0},
}
"""Gradient checkpointing -> settings of the compiler that divides a layer's graph in two."""


NUM_TEXTS_THAT_REPAY = 100_000
"""Texts from which on compiling saves more than the half minute that it takes."""


def repays_compilation(num_texts: int, *, device: torch.device) -> bool:
    """Return whether `model.compile=auto` compiles for that many texts: on a GPU, for long runs."""
    return device.type == "cuda" and num_texts >= NUM_TEXTS_THAT_REPAY


def is_compiled(backbone: nn.Module) -> bool:
    """Return whether `compile_layers` was called for the backbone, and compiling did not fail."""
    layers = [part for part in backbone.modules() if isinstance(part, GradientCheckpointingLayer)]
    return any(layer._compiled_call_impl is not None for layer in layers)


def compile_layers(
    backbone: nn.Module,
    *,
    gradient_checkpointing: bool | str = False,
    backend: str | Callable[..., Any] = "inductor",
) -> int:
    """Compile each layer of `backbone` at its first call; return how many layers there are.

    To be called last: after adapters, their fast path, fp8 and gradient checkpointing. Where
    compiling fails all layers run as they are, checkpointed in full if they were at all, and one
    warning says why. Copies and pickles are of the plain layers.

    Args:
        gradient_checkpointing: False, "selective" or True; the backbone's own, which has to be
            enabled for the last two, is switched off.
        backend: as in `torch.compile`.

    Raises:
        UserError: the backbone has no layers as transformers marks them.
    """
    layers = [part for part in backbone.modules() if isinstance(part, GradientCheckpointingLayer)]
    if not layers:
        raise UserError(
            f"model.compile=true: {type(backbone).__name__} has no layers to compile one by one. "
            "Use model.compile=false with this model."
        )
    # DDP has dynamo cut what it compiles where its buckets end, for whole models that would reduce
    # nothing before the end of their backward pass. Layers by themselves need no cuts, and dynamo
    # refuses some of them
    torch._dynamo.config.optimize_ddp = False
    for layer in layers:
        # not a wrapper around the layer: names of parameters stay as they are
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
            # else a first batch with as many borders as a head has entries would tie the two
            maybe_mark_dynamic(cu_seqlens, 0)
        try:
            with _partitioned(gradient_checkpointing):
                return compiled(*args, **kwargs)
        except (TorchDynamoException, AssertionError) as error:  # dynamo raises both
            for each in layers:
                each._compiled_call_impl = None
                each.gradient_checkpointing = bool(gradient_checkpointing)
            logger.warning(
                "The layers could not be compiled and run as they are, slower but the same. "
                "model.compile=false does without the attempt. Reason: %s",
                " ".join(str(error).split())[:300],
            )
        return layer(*args, **kwargs)

    return call


def _partitioned(gradient_checkpointing: bool | str) -> AbstractContextManager[Any]:
    """Decide what a layer that is compiled inside keeps for its backward pass."""
    from torch._functorch import config

    settings = _PARTITION[gradient_checkpointing]
    return config.patch(**settings) if settings else nullcontext()
