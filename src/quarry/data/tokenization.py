"""From text to token ids: prompt, text cut to length, end token. The template is never cut."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from quarry.data.prompts import Prompt, joined_text
from quarry.errors import UserError
from quarry.types import ROLES, Document, Query, Role

TokenIds = NDArray[np.int64]


class TextTokenizer:
    """Turns queries and documents into token ids that fit the prompt's lengths.

    The template's own tokens and the end token are reserved first; only the text is cut. The end
    token is appended by id, so no tokenizer setting can lose or double it, and an empty text
    still becomes its template and end token.

    Args:
        tokenizer: any fast Hugging Face tokenizer.
        prompt: templates, lengths and the end-token rule of both roles.

    Raises:
        UserError: the tokenizer has no end token, or a template leaves no room for text; when
            called: an empty text gets no token at all, since neither template nor end token add
            one.
    """

    def __init__(self, *, tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> None:
        if prompt.has_eos and tokenizer.eos_token_id is None:
            raise UserError(
                f"The tokenizer of {tokenizer.name_or_path!r} names no end token, and "
                "prompt.has_eos=true needs one. Set eos_token in its tokenizer_config.json, or "
                "prompt.has_eos=false."
            )
        # the template's head stands before the text: a tokenizer that cuts there would cut it off
        tokenizer.truncation_side = "right"
        self.tokenizer = tokenizer
        self.prompt = prompt
        self._frame = {role: self._build_frame(role) for role in ROLES}

    def __call__(self, items: Sequence[Query | Document], role: Role) -> list[TokenIds]:
        """Token ids of each item, in order. Length at least 1 and at most the prompt's."""
        before, after = self._frame[role]
        room = self.prompt.max_length(role) - len(before) - len(after)
        lead = self.prompt.split(role)[0]
        texts = [lead + joined_text(item) for item in items]
        if not texts:
            return []
        encoded = self.tokenizer(
            texts,
            add_special_tokens=False,
            truncation=True,
            max_length=room,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )["input_ids"]
        rows = [np.array([*before, *ids, *after], dtype=np.int64) for ids in encoded]
        for item, ids in zip(items, rows, strict=True):
            if not ids.size:
                raise UserError(
                    f"The {role} {_id_of(item)!r} has no tokens, its text is {item.text[:40]!r}: "
                    "with prompt.has_eos=false and no template nothing is added to it. Set "
                    f"prompt.has_eos=true, give prompt.{role} a template, or take the text out."
                )
        return rows

    def _build_frame(self, role: Role) -> tuple[list[int], list[int]]:
        """Special tokens before the text; the template's tail and the end token after it.

        The template's head is tokenised together with the text, since byte-pair merges may cross
        that border exactly as they do in published recipes ("Query:" + text).
        """
        head, tail = self.prompt.split(role)
        before = self._leading_specials()
        after = self.tokenizer.encode(tail, add_special_tokens=False) if tail else []
        if self.prompt.has_eos:
            after = [*after, self.tokenizer.eos_token_id]
        head_length = len(self.tokenizer.encode(head, add_special_tokens=False)) if head else 0
        needed = len(before) + head_length + len(after) + 1
        if self.prompt.max_length(role) < needed:
            raise UserError(
                f"prompt.max_{role}_length={self.prompt.max_length(role)} leaves no room for text: "
                f"the prompt's template and the end token need {needed - 1} tokens. Raise it to "
                f"{needed} or more."
            )
        return before, after

    def _leading_specials(self) -> list[int]:
        """Tokens that the tokenizer itself puts first (a BOS), found by encoding a probe."""
        plain = self.tokenizer.encode("a", add_special_tokens=False)
        dressed = self.tokenizer.encode("a", add_special_tokens=True)
        for start in range(len(dressed) - len(plain) + 1):
            if dressed[start : start + len(plain)] == plain:
                return list(dressed[:start])
        return []


def _id_of(item: Query | Document) -> str:
    return item.query_id if isinstance(item, Query) else item.document_id
