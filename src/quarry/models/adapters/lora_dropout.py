"""Draw the seeds of LoRA's dropout: one for each layer and forward pass, in one kernel.

A forward pass that is repeated from the same state of torch's generator (GradCache's second pass,
a resumed run) draws the same seeds. Gradient checkpointing recomputes a layer in the backward pass,
perhaps after other forward passes; the layer then gets the seed of its own forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

from torch import Tensor, nn

from quarry.models.adapters.fast_lora import FastLoraLinear, active_adapters, dropout_share
from quarry.models.adapters.hashed_dropout import draw_seeds
from quarry.models.adapters.lora_factors import fast_layers

Contexts = tuple[AbstractContextManager[None], AbstractContextManager[None]]
"""Contexts around a checkpointed layer's forward pass, and around its recomputation."""


@contextmanager
def drawn_seeds(layers: Sequence[FastLoraLinear]) -> Iterator[None]:
    """Draw a seed for each layer with dropout; inside the context each layer uses its own."""
    dropping = [layer for layer in layers if _drops(layer)]
    if not dropping:
        yield
        return
    device = dropping[0].lora_A[active_adapters(dropping[0])[0]].weight.device
    with _given_seeds(dropping, draw_seeds(len(dropping), device)):
        yield


def checkpoint_contexts(backbone: nn.Module) -> Callable[[], Contexts]:
    """Return the `context_fn` of `torch.utils.checkpoint` that restores seeds for recomputation.

    Args:
        backbone: its layers are looked up in each pass, since adapters may be added or removed.
    """

    def contexts() -> Contexts:
        layers = fast_layers(backbone)
        return nullcontext(), _given_seeds(layers, [layer.dropout_seed for layer in layers])

    return contexts


@contextmanager
def _given_seeds(
    layers: Sequence[FastLoraLinear], seeds: Sequence[Tensor | None]
) -> Iterator[None]:
    before = [layer.dropout_seed for layer in layers]
    _give(layers, seeds)
    try:
        yield
    finally:
        _give(layers, before)


def _give(layers: Sequence[FastLoraLinear], seeds: Sequence[Tensor | None]) -> None:
    for layer, seed in zip(layers, seeds, strict=True):
        # nn.Module's __setattr__ is slow: it looks for parameters, buffers and modules first
        object.__setattr__(layer, "dropout_seed", seed)


def _drops(layer: FastLoraLinear) -> bool:
    names = active_adapters(layer)
    return len(names) == 1 and dropout_share(layer, names[0]) > 0
