"""Tokens that the texts of a role begin with and that go through the model once a pass."""

from __future__ import annotations

from collections.abc import Mapping

from quarry.data.collation import CHARACTERS_PER_TOKEN
from quarry.data.prompts import Prompt
from quarry.data.tokenization import TextTokenizer
from quarry.retrieval.pass_prefix import is_worth_sharing
from quarry.types import ROLES, Role

PrefixTokens = Mapping[Role, int]


def no_prefix() -> PrefixTokens:
    """Return that no texts share a prefix."""
    return dict.fromkeys(ROLES, 0)


def prefix_tokens(
    prompt: Prompt, *, tokenizer: TextTokenizer | None, shares_prefix: bool
) -> PrefixTokens | None:
    """Return the tokens of each role that are computed once a pass; None: not known.

    Args:
        tokenizer: None: it is not here, and only a prompt that is long in front of the text makes
            a difference.
        shares_prefix: see `PlannedModel`; False where weights are in shards, see
            `Encoder.has_equal_steps`.
    """
    if not shares_prefix:
        return no_prefix()
    if tokenizer is None:
        return None if any(_has_long_head(prompt, role) for role in ROLES) else no_prefix()
    lengths = {role: len(tokenizer.shared_prefixes[role]) for role in ROLES}
    return {role: length * is_worth_sharing(length) for role, length in lengths.items()}


def prefix_note(tokens: PrefixTokens | None) -> str:
    """Return what a page says of them; empty: no texts share any."""
    if tokens is None:
        return "a prefix that texts share is not taken off: the tokenizer is not here to count it"
    found = [
        f"{tokens[role]} tokens of each {role}" for role in ROLES if is_worth_sharing(tokens[role])
    ]
    return f"the first {' and '.join(found)} are computed once a pass" if found else ""


def _has_long_head(prompt: Prompt, role: Role) -> bool:
    head = prompt.template(role).literals[0]
    return prompt.is_chat or is_worth_sharing(len(head) // CHARACTERS_PER_TOKEN)
