"""Count the bytes that a training step saves of each token for its backward pass.

The count is for a layer like Qwen2's: a gated MLP, and grouped-query attention by the
variable-length kernel. What layers save follows from their formulas; temporary memory within one
layer's backward pass was measured. docs/distributed.md compares both with measured peaks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from transformers import PretrainedConfig

from quarry.models.gradient_checkpointing import SELECTIVE

FP32_BYTES = 4

_DROPOUT_BYTES = 1.15
"""Bytes of each input of a projection where a compiled layer saves LoRA's dropout: masks of a byte
each and some dropped inputs (torch 2.11, one H200)."""

_PASSING: dict[tuple[bool | str, bool], float] = {
    (False, False): 1.9, (False, True): 2.8, (SELECTIVE, False): 3.8, (SELECTIVE, True): 5.8,
    (True, False): 4.1, (True, True): 8.9,
}  # fmt: skip
"""(gradient checkpointing, whether products are in fp8) -> temporary memory in the backward pass of
a compiled layer, in widths of its MLP (one H200, torch 2.11)."""

_PASSING_EAGER = 1.8
_PASSING_DROPOUT = 0.8
"""Added to it where a layer is recomputed with dropout."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerShape:
    """Describe the layers of a backbone that text goes through.

    Attributes:
        attention_size: query heads times the size of a head.
        key_value_size: heads of keys times the size of a head.
        num_heads: of queries.
    """

    num_layers: int
    hidden_size: int
    intermediate_size: int
    attention_size: int
    key_value_size: int
    num_heads: int

    @classmethod
    def of(cls, config: PretrainedConfig) -> LayerShape:
        """Read the shape from a model's configuration."""
        text = config.get_text_config()
        heads, hidden = text.num_attention_heads, text.hidden_size
        head_size = getattr(text, "head_dim", None) or hidden // heads
        return cls(
            num_layers=text.num_hidden_layers,
            hidden_size=hidden,
            intermediate_size=getattr(text, "intermediate_size", None) or 4 * hidden,
            attention_size=heads * head_size,
            key_value_size=(getattr(text, "num_key_value_heads", None) or heads) * head_size,
            num_heads=heads,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """Say how a step is run, as far as that decides what is saved for the backward pass.

    Attributes:
        itemsize: bytes of a number in products: 2 in half precision.
        state_itemsize: of the states between layers, which have the dtype of the weights.
        is_compiled: the compiler saves no fp32 copies and recomputes the activation function.
        gradient_checkpointing: True: only the input of a layer is saved, and the layer is
            recomputed; "selective": the outputs of its products are saved, too (compiled layers
            only).
        trains_backbone: norms are trained, too, and save their normalized output.
        num_inputs: numbers of a token that go into projections with LoRA, over all layers.
        num_low_rank: numbers of a token between LoRA's two matrices, over all layers.
        has_dropout: on the input of LoRA's matrices.
        is_fp8: products with frozen weights are in fp8.
    """

    itemsize: int
    state_itemsize: int
    is_compiled: bool
    gradient_checkpointing: bool | str
    trains_backbone: bool
    num_inputs: int = 0
    num_low_rank: int = 0
    has_dropout: bool = False
    is_fp8: bool = False

    @property
    def recomputes_layers(self) -> bool:
        """Return whether products run twice; selective checkpointing of eager layers is full."""
        is_selective = self.gradient_checkpointing == SELECTIVE
        return self.gradient_checkpointing is True or (is_selective and not self.is_compiled)


def activation_bytes(shape: LayerShape, kept: Kept, *, num_tokens: int) -> int:
    """Return the bytes that are saved when the backward pass of `num_tokens` tokens begins."""
    last = shape.hidden_size * FP32_BYTES  # the last norm is eager, and saves its input in fp32
    if kept.recomputes_layers:
        layer: float = shape.hidden_size * kept.state_itemsize
    else:
        layer = layer_bytes(shape, kept)
    return int(num_tokens * (shape.num_layers * layer + last))


def layer_bytes(shape: LayerShape, kept: Kept) -> float:
    """Return the bytes of one token in one layer that is not checkpointed in full."""
    hidden = 2 * shape.hidden_size  # there are two norms, and two sums that they read
    # queries, keys, values and the result, and a number in fp32 for each head
    numbers = 2 * shape.attention_size + 2 * shape.key_value_size
    attention = numbers * kept.itemsize + shape.num_heads * FP32_BYTES
    low_rank = kept.num_low_rank * kept.itemsize / shape.num_layers
    if not kept.is_compiled:
        return _eager_bytes(shape, kept, hidden=hidden) + attention + low_rank
    common = hidden * kept.state_itemsize + attention + low_rank
    if kept.gradient_checkpointing == SELECTIVE:
        return common + 2 * shape.intermediate_size * kept.itemsize
    masks = kept.num_inputs * _DROPOUT_BYTES / shape.num_layers if kept.has_dropout else 0
    return common + (hidden + 3 * shape.intermediate_size) * kept.itemsize + masks


def _eager_bytes(shape: LayerShape, kept: Kept, *, hidden: int) -> float:
    gates = 3 * shape.intermediate_size * kept.itemsize  # before and after the activation, and up
    normalized = hidden * kept.state_itemsize if kept.trains_backbone else 0
    return hidden * FP32_BYTES + normalized + _input_bytes(shape, kept) + gates


def _input_bytes(shape: LayerShape, kept: Kept) -> float:
    """Return the bytes of the inputs of a layer's projections that attention does not save."""
    # autocast makes one for each of q, k, v, gate and up; what needs no cast is shared by them
    num_copies = 5 if kept.itemsize < kept.state_itemsize else 2
    return (num_copies * shape.hidden_size + shape.intermediate_size) * kept.itemsize


def passing_bytes(shape: LayerShape, kept: Kept, *, num_tokens: int) -> int:
    """Return the peak of temporary memory in one layer's backward pass, beyond what was saved.

    A fully checkpointed layer is there once, as selective checkpointing would save it.
    """
    widths = _PASSING_EAGER
    if kept.is_compiled:
        widths = _PASSING[kept.gradient_checkpointing, kept.is_fp8]
    if kept.recomputes_layers and kept.has_dropout and kept.is_compiled:
        widths += _PASSING_DROPOUT
    passing = widths * shape.intermediate_size * kept.itemsize
    if kept.recomputes_layers:
        passing += layer_bytes(shape, _once(kept))
    return int(num_tokens * passing)


def _once(kept: Kept) -> Kept:
    """Return how full checkpointing recomputes a layer."""
    again: bool | str = SELECTIVE if kept.is_compiled else False
    return replace(kept, gradient_checkpointing=again)
