"""List the shapes of published models by hub id, for where the hub cannot be reached.

A plan needs only the shape of a model. A model that is loaded is built from its own config.json.
"""

from __future__ import annotations

import re

from transformers import PretrainedConfig, Qwen2_5_VLConfig, Qwen2Config

Shape = dict[str, int]

SIZES: dict[str, Shape] = {
    "72B": {"hidden_size": 8192, "intermediate_size": 29568, "num_hidden_layers": 80,
            "num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 152064},
    "32B": {"hidden_size": 5120, "intermediate_size": 27648, "num_hidden_layers": 64,
            "num_attention_heads": 40, "num_key_value_heads": 8, "vocab_size": 152064},
    "14B": {"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 48,
            "num_attention_heads": 40, "num_key_value_heads": 8, "vocab_size": 152064},
    "7B": {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
           "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064},
    "3B": {"hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36,
           "num_attention_heads": 16, "num_key_value_heads": 2, "vocab_size": 151936},
    "1.5B": {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
             "num_attention_heads": 12, "num_key_value_heads": 2, "vocab_size": 151936},
    "0.5B": {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
             "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 151936},
}  # fmt: skip
"""Sizes of Qwen2.5 and its derivatives: Coder, Math, the language model of VL, DeepSeek-R1's."""

TIED = ("3B", "1.5B", "0.5B")
"""Sizes of Qwen2.5 whose head is their embedding matrix: their files hold it once."""

_TOWER = {"depth": 32, "hidden_size": 1280, "num_heads": 16}
_TOWER_INTERMEDIATE = {"3B": 3420, "7B": 3420, "32B": 3456, "72B": 3456}

_HUB_ID = re.compile(
    r"(?P<family>Qwen/Qwen2\.5|deepseek-ai/DeepSeek-R1-Distill-Qwen)"
    r"(?P<variant>-Coder|-Math|-VL)?-(?P<size>[\d.]+B)(-Instruct)?"
)


def published_config(hub_id: str) -> PretrainedConfig | None:
    """Return a config with the shape of that model and defaults elsewhere; None: not known."""
    found = _HUB_ID.fullmatch(hub_id)
    if found is None or found["size"] not in SIZES:
        return None
    size = found["size"]
    is_tied = size in TIED and found["family"].startswith("Qwen/")
    if found["variant"] != "-VL":
        return Qwen2Config(**SIZES[size], tie_word_embeddings=is_tied)
    if size not in _TOWER_INTERMEDIATE:
        return None
    tower = _TOWER | {
        "intermediate_size": _TOWER_INTERMEDIATE[size],
        "out_hidden_size": SIZES[size]["hidden_size"],
    }
    config: PretrainedConfig = Qwen2_5_VLConfig(
        text_config=SIZES[size], vision_config=tower, tie_word_embeddings=is_tied
    )
    return config
