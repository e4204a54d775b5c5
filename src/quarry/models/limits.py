"""Check text lengths, pooling width and vocabulary against the limits of a model's config."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from torch import nn
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from quarry.errors import UserError
from quarry.models.attention import first_position, is_causal_by_design
from quarry.models.backbones.text_model import text_model
from quarry.models.memory import outline

logger = logging.getLogger(__name__)

POSITION_TABLES = ("position_embeddings", "wpe", "embed_positions", "position_embedding")
"""Module names that architectures use for learned position embeddings."""


def num_positions(config: PretrainedConfig) -> int | None:
    """Return the maximum number of tokens of a text; None without learned position embeddings."""
    backbone = text_model(outline(config))
    for name, module in backbone.named_modules():
        if isinstance(module, nn.Embedding) and name.rpartition(".")[2] in POSITION_TABLES:
            return int(module.num_embeddings) - first_position(backbone)
    return None


def is_decoder(config: PretrainedConfig) -> bool:
    """Return whether attention is causal by the architecture's default."""
    return is_causal_by_design(text_model(outline(config)))


def check_lengths(config: PretrainedConfig, lengths: Mapping[str, int], *, source: str) -> None:
    """Refuse texts longer than the learned positions; warn of texts longer than trained ones.

    Args:
        lengths: configuration key -> maximum tokens of its texts, prompt and special tokens
            included.
        source: where the model comes from, for messages.

    Raises:
        UserError: a length exceeds the table of learned positions.
    """
    table = num_positions(config)
    if table is not None:
        _refuse_beyond(table, lengths, source=source)
        return
    trained = getattr(config.get_text_config(), "max_position_embeddings", None)
    for key, num_tokens in lengths.items():
        if isinstance(trained, int) and num_tokens > trained > 0:
            logger.warning(
                "%s: texts of up to %d tokens, and %s names %d positions (config.json, "
                "max_position_embeddings): longer ones were not trained",
                key, num_tokens, source, trained,
            )  # fmt: skip


def _refuse_beyond(table: int, lengths: Mapping[str, int], *, source: str) -> None:
    longer = {key: num_tokens for key, num_tokens in lengths.items() if num_tokens > table}
    if longer:
        found = ", ".join(f"{key}: texts of up to {num} tokens" for key, num in longer.items())
        # a length that counts the text alone excludes the tokens of its template
        raise UserError(
            f"{found}; {source} has positions for {table} (config.json). Fix: texts of {table} "
            f"tokens or fewer in all, {' '.join(f'{key}={table}' for key in longer)}"
        )


def check_width(config: PretrainedConfig, width: int, *, where: str) -> None:
    """Refuse a pooling or projection whose width is not the model's hidden size.

    Args:
        width: the stated width.
        where: where it is stated, for messages.

    Raises:
        UserError: the two differ.
    """
    states = getattr(config.get_text_config(), "hidden_size", None)
    if isinstance(states, int) and width != states:
        raise UserError(
            f"{where}: states of width {width}, and those of the model have {states} (config.json, "
            "hidden_size). Fix: restore the files."
        )


def check_vocabulary(
    config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase, *, source: str
) -> None:
    """Refuse a tokenizer with ids beyond the rows of the model's token embedding.

    Raises:
        UserError: an id has no row.
    """
    num_rows = int(config.get_text_config().vocab_size)
    token, largest = max(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
    if largest >= num_rows:
        raise UserError(
            f"The tokenizer of {tokenizer.name_or_path!r} has the token {token!r} with id "
            f"{largest}, and the embedding of {source} has {num_rows} rows (config.json, "
            "vocab_size). Fix: give the tokenizer that belongs to it, model.tokenizer_path=DIR"
        )
