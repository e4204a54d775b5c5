"""Tokenize texts: render the prompt, truncate the text to fit, append the end token."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from quarry.data.prompts import Prompt
from quarry.data.rendering import Frame, build_frames
from quarry.errors import UserError
from quarry.types import ROLES, Document, Query, Role

_PROBES = ("a", "The", " b", "7", "(", '"', ".", "\n", "é", "中", "_x", "")
"""Beginnings of texts that tokenizers merge differently with what precedes them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizedText:
    """A framed text as token ids.

    Attributes:
        ids: [num_tokens] int64, at least one.
        pool_start: index of the first token that a pooling without the prompt uses: that of the
            text, or of its last copy where the prompt repeats it.
    """

    ids: NDArray[np.int64]
    pool_start: int = 0

    def __len__(self) -> int:
        return len(self.ids)


class TextTokenizer:
    """Tokenizer that turns queries and documents into token ids within the prompt's lengths.

    A framed text is tokenized as one string, since byte-pair merges cross the border between
    template and text exactly as in published recipes. Truncation cuts the text alone, before the
    first token that does not fit. The end token is appended by id, so no tokenizer setting can
    lose or double it. An empty text still becomes its template and end token.

    Args:
        tokenizer: any fast Hugging Face tokenizer.
        prompt: templates, lengths and the end-token rule of both roles.

    Attributes:
        frames: what surrounds a text of each role.
        shared_prefixes: role -> the token ids with which its texts begin, [num_tokens] int64; rare
            texts may begin differently.

    Raises:
        UserError: the tokenizer lacks what the prompt needs (see `rendering.build_frames`), or a
            template leaves no room for text. On a call: an empty text has no token, because
            neither template nor end token adds one.
    """

    def __init__(self, *, tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> None:
        # the template's head precedes the text: truncation from the left would remove it
        tokenizer.truncation_side = "right"
        self.tokenizer = tokenizer
        self.prompt = prompt
        self.frames = build_frames(tokenizer, prompt)
        self._room = {role: self._room_for_text(role) for role in ROLES}
        self._prompt_length = {role: self.num_prompt_tokens(role) for role in ROLES}
        self.shared_prefixes = {role: self._shared_prefix(role) for role in ROLES}

    def __call__(self, items: Sequence[Query | Document], role: Role) -> list[TokenizedText]:
        """Return the token ids of each item, in order."""
        return self._tokenized(items, role)

    def rendered(self, items: Sequence[Query | Document], role: Role) -> list[str]:
        """Return each item in its frame as a string, for a server that adds special tokens.

        A text is cut here where the end of the string cannot be: something follows the text, or
        lengths count the text alone. Elsewhere the server cuts.
        """
        frame = self.frames[role]
        texts, _ = self._fitted([frame.text_of(item) for item in items], role)
        return [frame.render(text) for text in texts]

    def _tokenized(self, items: Sequence[Query | Document], role: Role) -> list[TokenizedText]:
        frame = self.frames[role]
        if not items:
            return []
        texts, rows = self._fitted([frame.text_of(item) for item in items], role)
        result = []
        for item, text, ids in zip(items, texts, rows, strict=True):
            row = np.array([*frame.start_ids, *ids, *frame.end_ids], dtype=np.int64)
            if not row.size:
                raise UserError(
                    f"The {role} {_id_of(item)!r} has no tokens, its text is {item.text[:40]!r}: "
                    f"with prompt.end_token={self.prompt.end_token} and no template nothing is "
                    "added to it. Take the text out, or give every text something of its own: "
                    f"prompt.{role}=TEMPLATE"
                )
            if frame.num_copies > 1:
                start = self._last_copy(frame, text, ids, role)
            else:
                start = min(self._prompt_length[role], len(row) - 1)
            result.append(TokenizedText(ids=row, pool_start=start))
        return result

    def _shared_prefix(self, role: Role) -> NDArray[np.int64]:
        """Return the token ids with which a few very different texts all begin.

        The last token before a text is left out if it may merge with what follows.
        """
        if not self._prompt_length[role]:
            return np.empty(0, dtype=np.int64)
        items: list[Query | Document] = []
        for text in _PROBES:
            if role == "query":
                items.append(Query(query_id="", text=text))
            else:
                items.append(Document(document_id="", text=text))
                items.append(Document(document_id="", text=text, title=text))
        rows = [text.ids for text in self._tokenized(items, role)]
        shortest = min(map(len, rows)) - 1  # every text has one token of its own
        agree = np.all([row[:shortest] == rows[0][:shortest] for row in rows], axis=0)
        return rows[0][: shortest if agree.all() else int(agree.argmin())]

    def room(self, role: Role) -> int:
        """Return the number of tokens that a text of this role may have beside its template."""
        frame = self.frames[role]
        return self._room[role] - (len(self._encode([frame.counted])[0]) if frame.counted else 0)

    def num_too_long(self, items: Sequence[Query | Document], role: Role) -> int:
        """Return how many of the items are longer than the limit, and are truncated."""
        frame = self.frames[role]
        texts = [frame.text_of(item) for item in items]
        if self.prompt.length_counts == "all":
            rows = self._encode([frame.render(text) for text in texts])
            limit = self.prompt.max_length(role) - len(frame.start_ids) - len(frame.end_ids)
        else:
            rows = self._encode([frame.counted + text for text in texts])
            limit = self._room[role]
        return sum(len(row) > limit for row in rows)

    def longest(self, role: Role) -> int:
        """Return the maximal number of tokens of a text of this role, template included."""
        frame, limit = self.frames[role], self.prompt.max_length(role)
        if self.prompt.length_counts == "all":
            return limit
        counted = len(self._encode([frame.counted])[0]) if frame.counted else 0
        template = sum(len(self._encode([piece])[0]) for piece in frame.literals if piece)
        on_top = len(frame.start_ids) + len(frame.end_ids) + template - counted
        return limit + on_top

    def num_prompt_tokens(self, role: Role) -> int:
        """Return the number of tokens before a text, special tokens at the beginning included.

        Counted as sentence-transformers does: of the template alone, which may merge with a text. 0
        without a template, so that a [CLS] is then pooled, too.
        """
        frame = self.frames[role]
        head = frame.literals[0]
        return len(frame.start_ids) + len(self._encode([head])[0]) if head else 0

    def digest(self) -> str:
        """Return a SHA-256 hex digest of the tokenizer: its vocabulary and all its rules.

        Tokenizers with equal digests give equal ids. Do not call this while another thread
        tokenizes.
        """
        backend = self.tokenizer.backend_tokenizer
        # not part of the tokenizer: left by the last call, and set again by the next
        backend.no_truncation()
        backend.no_padding()
        return hashlib.sha256(backend.to_str().encode()).hexdigest()

    def _fitted(self, texts: list[str], role: Role) -> tuple[list[str], list[list[int]]]:
        """Return the texts, truncated if too long, and their ids without start and end ids."""
        frame, limit = self.frames[role], self.prompt.max_length(role)
        budget = limit - len(frame.start_ids) - len(frame.end_ids)
        is_open = frame.num_copies == 1 and not frame.literals[1]
        if is_open and self.prompt.length_counts == "all":  # the text comes last: truncate the row
            return texts, self._encode([frame.render(text) for text in texts], max_length=budget)
        texts, rows = list(texts), self._encode([frame.render(text) for text in texts])
        if self.prompt.length_counts != "all":
            budget = limit  # a longer row may have too long a text
        for index, row in enumerate(rows):
            if len(row) > budget:
                texts[index] = self._cut(texts[index], role)
                rows[index] = self._encode([frame.render(texts[index])])[0]
        return texts, rows

    def _cut(self, text: str, role: Role) -> str:
        """Return the longest beginning of the text, in complete tokens, that fits the lengths."""
        frame = self.frames[role]
        offsets = self._encode_with_offsets(frame.counted + text)
        room = min(self._room[role], len(offsets))
        budget = self.prompt.max_length(role) - len(frame.start_ids) - len(frame.end_ids)
        while room > 0:
            end = len(frame.counted + text) if room == len(offsets) else offsets[room][0]
            head = text[: max(0, end - len(frame.counted))]
            if self.prompt.length_counts != "all":
                return head
            # merges across the border may make more tokens than the parts have
            excess = len(self._encode([frame.render(head)])[0]) - budget
            if excess <= 0:
                return head
            room -= -(-excess // frame.num_copies)
        return ""

    def _last_copy(self, frame: Frame, text: str, ids: list[int], role: Role) -> int:
        """Return the index of the token in which the last copy of a repeated text begins."""
        offsets = self._encode_with_offsets(frame.render(text))
        assert len(offsets) == len(ids), "the text is the one that was encoded"
        start = frame.last_copy_start(text)
        index = next((i for i, (_, end) in enumerate(offsets) if end > start), len(ids))
        # after an empty text at the very end, the end token or the template's last token
        last = len(ids) + len(frame.end_ids) - 1
        return len(frame.start_ids) + min(index, last)

    def _encode(self, texts: list[str], *, max_length: int | None = None) -> list[list[int]]:
        return bare_ids(self.tokenizer, texts, max_length=max_length)

    def _encode_with_offsets(self, text: str) -> list[tuple[int, int]]:
        return bare_offsets(self.tokenizer, text)

    def _room_for_text(self, role: Role) -> int:
        """Return the token limit of each copy of a text (and what is counted with it)."""
        frame, limit = self.frames[role], self.prompt.max_length(role)
        if self.prompt.length_counts == "all":
            template = frame.render("") if any(frame.literals) else ""
            num_ids, num_copies = len(frame.start_ids) + len(frame.end_ids), frame.num_copies
        else:
            template, num_ids, num_copies = frame.counted, 0, 1
        needed = num_ids + (len(self._encode([template])[0]) if template else 0)
        if limit < needed + num_copies:
            raise UserError(
                f"prompt.max_{role}_length={limit} leaves no room for text: the prompt's template "
                f"and the end token need {needed} tokens. Raise it to {needed + num_copies} or "
                "more, or let it count the text alone: prompt.length_counts=text."
            )
        return (limit - needed) // num_copies if self.prompt.length_counts == "all" else limit


def _id_of(item: Query | Document) -> str:
    return item.query_id if isinstance(item, Query) else item.document_id


def bare_ids(
    tokenizer: PreTrainedTokenizerBase, texts: list[str], *, max_length: int | None = None
) -> list[list[int]]:
    """Return the token ids of texts without special tokens, cut to `max_length` if it is given."""
    ids: list[list[int]] = tokenizer(
        texts,
        add_special_tokens=False,
        truncation=max_length is not None,
        max_length=max_length,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )["input_ids"]
    return ids


def bare_offsets(tokenizer: PreTrainedTokenizerBase, text: str) -> list[tuple[int, int]]:
    """Return where each token of a text begins and ends, in characters, without special tokens."""
    offsets: list[tuple[int, int]] = tokenizer(
        text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )["offset_mapping"]
    return offsets
