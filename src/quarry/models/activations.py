"""What a training step keeps of each token for its backward pass, counted from the layers' shapes.

Counted for a layer of Qwen2's kind (a gated MLP, attention by the variable-length kernel, which
takes keys and values repeated to all query heads), and held against measurements in
docs/distributed.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PretrainedConfig

FP32_BYTES = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerShape:
    """The layers of the part of a trunk that text goes through.

    Attributes:
        attention_size: query heads times the size of a head.
    """

    num_layers: int
    hidden_size: int
    intermediate_size: int
    attention_size: int

    @classmethod
    def of(cls, config: PretrainedConfig) -> LayerShape:
        text = config.get_text_config()
        heads, hidden = text.num_attention_heads, text.hidden_size
        head_size = getattr(text, "head_dim", None) or hidden // heads
        return cls(
            num_layers=text.num_hidden_layers,
            hidden_size=hidden,
            intermediate_size=getattr(text, "intermediate_size", None) or 4 * hidden,
            attention_size=heads * head_size,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """How a step is run, as far as it decides what is kept.

    Attributes:
        itemsize: bytes of a number in products: 2 in half precision.
        state_itemsize: of the states between layers, which have the dtype of the weights.
        is_compiled: the compiler keeps no fp32 copies and computes the activation again.
        has_checkpointing: of a layer its input alone is kept, and the layer run again.
        trains_trunk: norms are trained, too, and keep what they have normalised.
        has_copies: peft's own LoRA path copies the input of each projection, where the fast one
            has one input for all that read it.
        num_inputs: numbers of a token that go into projections with LoRA, over all layers.
        num_low_rank: numbers of a token between LoRA's two matrices, over all layers.
        has_dropout: on these copies, whose masks are kept, too.
    """

    itemsize: int
    state_itemsize: int
    is_compiled: bool
    has_checkpointing: bool
    trains_trunk: bool
    has_copies: bool = False
    num_inputs: int = 0
    num_low_rank: int = 0
    has_dropout: bool = False


def activation_bytes(shape: LayerShape, kept: Kept, *, num_tokens: int) -> int:
    """What is kept when the backward pass of `num_tokens` tokens begins."""
    layer = layer_bytes(shape, kept)
    if not kept.has_checkpointing:
        return int(num_tokens * shape.num_layers * layer)
    inputs = shape.num_layers * shape.hidden_size * kept.state_itemsize
    return int(num_tokens * (inputs + layer))  # one layer at a time is whole again


def layer_bytes(shape: LayerShape, kept: Kept) -> float:
    """Of one token in one layer."""
    hidden = 2 * shape.hidden_size  # there are two norms, and two sums that they read
    attention = 4 * shape.attention_size * kept.itemsize  # queries, keys, values, and the result
    low_rank = kept.num_low_rank * kept.itemsize / shape.num_layers
    if kept.is_compiled:
        products = (hidden + 3 * shape.intermediate_size) * kept.itemsize
        return hidden * kept.state_itemsize + attention + low_rank + products
    gates = 3 * shape.intermediate_size * kept.itemsize  # before and after the activation, and up
    normalised = hidden * kept.state_itemsize if kept.trains_trunk else 0
    inputs = _input_bytes(shape, kept) + low_rank
    return hidden * FP32_BYTES + normalised + attention + inputs + gates


def _input_bytes(shape: LayerShape, kept: Kept) -> float:
    """Inputs of a layer's projections, but the one that attention has kept already."""
    if kept.has_copies:
        return kept.num_inputs * (kept.itemsize + kept.has_dropout) / shape.num_layers
    # autocast makes one for each of q, k, v, gate and up; what needs no cast is shared by them
    num_copies = 5 if kept.itemsize < kept.state_itemsize else 2
    return (num_copies * shape.hidden_size + shape.intermediate_size) * kept.itemsize


def passing_bytes(shape: LayerShape, kept: Kept, *, num_tokens: int) -> int:
    """The gradients of one MLP on their way back: its output's factor, gate and up."""
    return num_tokens * 3 * shape.intermediate_size * kept.itemsize
