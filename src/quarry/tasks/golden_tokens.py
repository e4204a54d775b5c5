"""The golden texts as token ids: a changed tokenizer is found before any weight is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from quarry.data.tokenization import TextTokenizer
from quarry.errors import UserError
from quarry.retrieval.golden import GOLDEN, golden_token_ids, name_of


def check_golden_tokens(
    contract: Mapping[str, Any], tokenizer: TextTokenizer, *, source: str
) -> None:
    """Refuses a tokenizer that makes other tokens of the golden texts than it did.

    Args:
        tokenizer: with the contract's own prompt.
        source: where it is from, for the message.

    Raises:
        UserError: with the first text and token that differ.
    """
    golden = contract.get("golden")
    expected = golden.get("token_ids") if isinstance(golden, dict) else None
    if not isinstance(expected, list) or len(expected) != len(GOLDEN):
        return  # a model without golden texts can be used, not verified
    for item, was, now in zip(GOLDEN, expected, golden_token_ids(tokenizer), strict=True):
        if was == now:
            continue
        place = next((i for i, (a, b) in enumerate(zip(was, now, strict=False)) if a != b), None)
        where = min(len(was), len(now)) if place is None else place
        raise UserError(
            f"The golden text {name_of(item)!r} is other tokens than when the model was saved: "
            f"from token {where} on {_shown(tokenizer, now, where)} instead of "
            f"{_shown(tokenizer, was, where)} ({len(now)} tokens instead of {len(was)}). The "
            f"tokenizer or the prompt in {source} was changed: restore its files."
        )


def _shown(tokenizer: TextTokenizer, ids: Sequence[int], where: int) -> str:
    part = list(ids[where : where + 5])
    return f"{part} ({tokenizer.tokenizer.decode(part)!r})"
