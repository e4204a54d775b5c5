"""Refuse sizes in a model's config.json that no model has, before anything is built of them."""

from __future__ import annotations

from collections.abc import Iterator

from transformers import PretrainedConfig

from quarry.errors import UserError

LARGEST = {
    "num_hidden_layers": 2_000,
    "num_attention_heads": 10_000,
    "num_key_value_heads": 10_000,
    "head_dim": 100_000,
    "hidden_size": 1_000_000,
    "intermediate_size": 10_000_000,
    "vocab_size": 100_000_000,
    "num_experts": 100_000,
    "num_local_experts": 100_000,
    "n_routed_experts": 100_000,
}
"""Size, by its name in transformers -> many times that of the largest published model."""


def check_sizes(config: PretrainedConfig, *, source: str) -> None:
    """Refuse a configuration with a size below 0 or beyond `LARGEST`.

    Building a model's outline takes no memory for weights, but time for each layer.

    Args:
        source: where it comes from, for messages.

    Raises:
        UserError: with every such size.
    """
    parts = {id(part): part for part in (config, config.get_text_config())}
    wrong = list(dict.fromkeys(line for part in parts.values() for line in _wrong_sizes(part)))
    if wrong:
        raise UserError(
            f"The config.json of {source}: {'; '.join(wrong)}. Fix: restore the file, or give "
            "another model"
        )


def _wrong_sizes(config: PretrainedConfig) -> Iterator[str]:
    for name, largest in LARGEST.items():
        value = getattr(config, name, None)
        if isinstance(value, int) and not 0 <= value <= largest:
            yield f"{name}={value}: no model has that size (0 to {largest:,})"
