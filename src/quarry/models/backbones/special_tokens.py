"""Make a tokenizer add the BOS and EOS around a text that its configuration asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerBase


def put_wanted_ends(tokenizer: PreTrainedTokenizerBase, settings: Mapping[str, Any]) -> None:
    """Add the BOS and EOS that only tokenizer_config.json asks for to those in tokenizer.json.

    transformers 5 ignores `add_bos_token` and `add_eos_token` if there is a tokenizer.json, and
    setting one of them as an attribute drops the other's token.

    Args:
        tokenizer: changed in place.
        settings: content of tokenizer_config.json.
    """
    start, end = _own_ends(tokenizer)
    new_start, new_end = list(start), list(end)
    if settings.get("add_bos_token") is True and tokenizer.bos_token_id not in (None, *start):
        new_start.insert(0, int(tokenizer.bos_token_id))
    if settings.get("add_eos_token") is True and tokenizer.eos_token_id not in (None, *end):
        new_end.append(int(tokenizer.eos_token_id))
    if (new_start, new_end) != (start, end):
        tokenizer.backend_tokenizer.post_processor = around(tokenizer, new_start, new_end)


def around(
    tokenizer: PreTrainedTokenizerBase, start_ids: Sequence[int], end_ids: Sequence[int]
) -> TemplateProcessing:
    """Return a post-processor that adds token ids before and after a text."""
    ends = {"[start]": list(start_ids), "[end]": list(end_ids)}
    single = " ".join(name for name in ("[start]", "$A", "[end]") if ends.get(name, True))
    return TemplateProcessing(
        single=single,
        pair=f"{single} $B:1",
        special_tokens=[
            {"id": name, "ids": ids, "tokens": tokenizer.convert_ids_to_tokens(ids)}
            for name, ids in ends.items()
            if ids
        ],
    )


def _own_ends(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Return the ids that the tokenizer adds before and after a text.

    Both are empty if it adds them inside the text, which `data.rendering` refuses.
    """
    plain = tokenizer.encode("a", add_special_tokens=False)
    full = tokenizer.encode("a", add_special_tokens=True)
    for start in range(len(full) - len(plain) + 1):
        if full[start : start + len(plain)] == plain:
            return list(full[:start]), list(full[start + len(plain) :])
    return [], []
