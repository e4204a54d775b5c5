"""The seeds of LoRA's dropout: one for each layer and pass, drawn before the pass, in one kernel.

A pass that is repeated from the same state of torch's generator (GradCache's second pass, a resumed
run) draws the same seeds. A layer that gradient checkpointing computes again in the backward pass,
when the pass is over and perhaps others have followed, gets those of its own pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

from torch import Tensor, nn

from quarry.models.adapters.fast_lora import FastLoraLinear, active_adapters, dropout_share
from quarry.models.adapters.hashed_dropout import draw_seeds
from quarry.models.adapters.lora_factors import fast_layers

Contexts = tuple[AbstractContextManager[None], AbstractContextManager[None]]
"""Around a checkpointed layer's forward pass, and around its repetition."""


@contextmanager
def drawn_seeds(layers: Sequence[FastLoraLinear]) -> Iterator[None]:
    """Draw a seed for each layer that drops anything; inside, it finds its own."""
    dropping = [layer for layer in layers if _drops(layer)]
    if not dropping:
        yield
        return
    device = dropping[0].lora_A[active_adapters(dropping[0])[0]].weight.device
    with _given_seeds(dropping, draw_seeds(len(dropping), device)):
        yield


def checkpoint_contexts(backbone: nn.Module) -> Callable[[], Contexts]:
    """Return the `context_fn` of `torch.utils.checkpoint` that hands a repetition its seeds.

    Args:
        backbone: its layers are looked up in each pass, for adapters may come and go.
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
        # a module's own way looks for parameters, buffers and modules first
        object.__setattr__(layer, "dropout_seed", seed)


def _drops(layer: FastLoraLinear) -> bool:
    names = active_adapters(layer)
    return len(names) == 1 and dropout_share(layer, names[0]) > 0
