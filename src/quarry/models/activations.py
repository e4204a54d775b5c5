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
        copied_bytes: of each token, over all layers: inputs of projections that peft's own LoRA
            path copies, each for itself; 0: one input serves all that read it.
    """

    itemsize: int
    state_itemsize: int
    is_compiled: bool
    has_checkpointing: bool
    trains_trunk: bool
    copied_bytes: int = 0


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
    inputs = (hidden + shape.intermediate_size) * kept.itemsize  # of the projections
    if kept.is_compiled:
        gates = 2 * shape.intermediate_size * kept.itemsize
        return hidden * kept.state_itemsize + attention + inputs + gates
    if kept.copied_bytes:
        inputs = kept.copied_bytes / shape.num_layers
    gates = 3 * shape.intermediate_size * kept.itemsize  # before and after the activation, and up
    normalised = hidden * kept.state_itemsize if kept.trains_trunk else 0
    return hidden * FP32_BYTES + normalised + attention + inputs + gates


def passing_bytes(shape: LayerShape, kept: Kept, *, num_tokens: int) -> int:
    """The gradients of one MLP on their way back: its output's factor, gate and up."""
    return num_tokens * 3 * shape.intermediate_size * kept.itemsize
