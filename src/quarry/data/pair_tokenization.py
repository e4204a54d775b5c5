"""Tokenize pairs of query and document for rerankers; cut the document of a pair that is too long.

A pair is either two sequences, as the tokenizer itself joins them, or one text that a frame makes.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from quarry.data.prompts import joined_text
from quarry.data.rendering import own_specials
from quarry.data.tokenization import bare_ids, bare_offsets
from quarry.errors import UserError
from quarry.types import Document, Query

logger = logging.getLogger(__name__)

Pair = tuple[Query, Document]

DOCUMENT = "{document}"
FIELDS = ("{query}", DOCUMENT)


@dataclass(frozen=True, kw_only=True)
class PairFrame:
    """What surrounds query and document, as one text.

    Prefix, body and suffix are tokenized apart. A body that is too long is cut at its right end.

    Attributes:
        prefix, suffix: before and after the body.
        body: has {query}, ends with {document}, and may have {instruction}.
        instruction: replaces {instruction}.
    """

    prefix: str = ""
    body: str = "{query} {document}"
    suffix: str = ""
    instruction: str = ""

    @classmethod
    def of(cls, parts: Mapping[str, str], *, key: str) -> PairFrame:
        """Return a frame of parts that a configuration names.

        Args:
            parts: names of attributes -> their texts.
            key: of the parts in the configuration, for messages.

        Raises:
            UserError: a part is unknown or no text; the body lacks a field, or does not end with
                the document.
        """
        known = ", ".join(each.name for each in fields(cls))
        if not isinstance(parts, Mapping):
            raise UserError(
                f"{key}={parts!r}: must be null or name parts ({known}). Fix: "
                f"'{key}={{body: \"{{query}} {{document}}\"}}'"
            )
        for name, text in parts.items():
            if name not in known.split(", "):
                raise UserError(f"{key}.{name}: there is no such part ({known}). Fix: leave it out")
            if not isinstance(text, str):
                raise UserError(
                    f"{key}.{name}={text!r}: must be a text. Fix: put it in quotes, "
                    f"'{key}={{{name}: \"{text}\"}}', or leave it out"
                )
        frame = cls(**parts)
        body = frame.body
        if any(body.count(field) != 1 for field in FIELDS) or not body.endswith(DOCUMENT):
            raise UserError(
                f"{key}.body={body!r}: must have {{query}} once and end with {{document}} (what is "
                f"too long is cut at the end). Fix: "
                f"'{key}={{body: \"{{query}} {{document}}\"}}'"
            )
        return frame

    def rendered(self, query: str, document: str) -> str:
        """Return the body of a pair."""
        parts = self.body.removesuffix(DOCUMENT).split("{query}")
        before, after = (part.replace("{instruction}", self.instruction) for part in parts)
        return f"{before}{query}{after}{document}"


QWEN3 = PairFrame(
    prefix=(
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query "
        'and the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
        "<|im_start|>user\n"
    ),
    body="<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}",
    suffix="<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
    instruction="Given a web search query, retrieve relevant passages that answer the query",
)
"""The frame of Qwen3-Reranker, by its model card (arXiv 2506.05176)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizedPair:
    """A pair as token ids.

    Attributes:
        ids: [num_tokens] int64.
        type_ids: [num_tokens] int64, 0 for the query and 1 for the document; None: the pair is one
            sequence, or the tokenizer has no types among its `model_input_names`.
        is_cut: the document, or a query that is longer than half of the room, was cut.
    """

    ids: NDArray[np.int64]
    type_ids: NDArray[np.int64] | None = None
    is_cut: bool = False

    def __len__(self) -> int:
        return len(self.ids)


class PairTokenizer:
    """Tokenizer of pairs within a length.

    The document is cut, so that the pair fits. A query of more than half of the room is cut to that
    half first. A document is its title, a space and its text.

    Args:
        tokenizer: any fast Hugging Face tokenizer.
        max_length: tokens of a pair.
        frame: the pair as one text; None: as the tokenizer joins two sequences.
        add_special_tokens: put the tokenizer's own tokens around a frame, as around any text.
        key: of the reranker in the configuration, for messages.

    Raises:
        UserError: the length leaves no room for texts.
    """

    def __init__(
        self,
        *,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        frame: PairFrame | None,
        add_special_tokens: bool = True,
        key: str,
    ) -> None:
        tokenizer.truncation_side = "right"
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.frame = frame
        self._has_types = "token_type_ids" in tokenizer.model_input_names
        self._head: list[int] = []
        self._tail: list[int] = []
        if frame is None:
            num_own = tokenizer.num_special_tokens_to_add(pair=True)
            self._check_pair(num_own, key=key)
        else:
            start, end = own_specials(tokenizer) if add_special_tokens else ((), ())
            self._head = [*start, *bare_ids(tokenizer, [frame.prefix])[0]]
            self._tail = [*bare_ids(tokenizer, [frame.suffix])[0], *end]
            body = len(bare_ids(tokenizer, [frame.rendered("", "")])[0])
            num_own = len(self._head) + len(self._tail) + body
        self._room = max_length - num_own
        if self._room < 2:
            raise UserError(
                f"{key}.max_length={max_length}: leaves no room for query and document (the tokens "
                f"around them are {num_own}). Fix: {key}.max_length={num_own + 256}"
            )

    def __call__(self, pairs: Sequence[Pair]) -> list[TokenizedPair]:
        """Return the tokens of each pair, in order."""
        if not pairs:
            return []
        cut = self._cut_queries({query.text for query, _ in pairs})
        queries = [cut.get(query.text, query.text) for query, _ in pairs]
        documents = [joined_text(document) for _, document in pairs]
        is_cut = [query.text in cut for query, _ in pairs]
        if self.frame is None:
            return self._joined(queries, documents, is_cut)
        return self._framed(self.frame, queries, documents, is_cut)

    def digest(self) -> str:
        """Return a hash of all that decides about the tokens of a pair."""
        backend = self.tokenizer.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        facts = repr((self.max_length, self.frame, self._head, self._tail, self._has_types))
        return hashlib.sha256(f"{facts}\n{backend.to_str()}".encode()).hexdigest()

    def _joined(
        self, queries: list[str], documents: list[str], is_cut: list[bool]
    ) -> list[TokenizedPair]:
        encoded: Any = self.tokenizer(
            queries,
            documents,
            truncation="only_second",
            max_length=self.max_length,
            return_attention_mask=False,
            verbose=False,
        )
        return [
            TokenizedPair(
                ids=np.array(each.ids, dtype=np.int64),
                type_ids=np.array(each.type_ids, dtype=np.int64) if self._has_types else None,
                is_cut=query_is_cut or bool(each.overflowing),
            )
            for each, query_is_cut in zip(encoded.encodings, is_cut, strict=True)
        ]

    def _framed(
        self, frame: PairFrame, queries: list[str], documents: list[str], is_cut: list[bool]
    ) -> list[TokenizedPair]:
        room = self.max_length - len(self._head) - len(self._tail)
        bodies = [frame.rendered(*pair) for pair in zip(queries, documents, strict=True)]
        rows = bare_ids(
            self.tokenizer, bodies, max_length=room + 1
        )  # one more, to know what is too long
        return [
            TokenizedPair(
                ids=np.array([*self._head, *row[:room], *self._tail], dtype=np.int64),
                is_cut=query_is_cut or len(row) > room,
            )
            for row, query_is_cut in zip(rows, is_cut, strict=True)
        ]

    def _check_pair(self, num_own: int, *, key: str) -> None:
        """Refuse a tokenizer that joins pairs otherwise than it surrounds one text.

        Args:
            num_own: tokens that it adds to a pair.
            key: of the reranker in the configuration.

        Raises:
            UserError: the end token of one text is not at the end of a pair.
        """
        one: list[int] = self.tokenizer.encode("a")
        two: list[int] = self.tokenizer.encode("a", "a")
        if one[-1] == self.tokenizer.eos_token_id != two[-1]:
            raise UserError(
                f"{key}.frame=null: the tokenizer ends one text with {self.tokenizer.eos_token!r}, "
                "and a pair without it, so how it joins pairs is not known. Fix: "
                f"'{key}.frame={{body: \"{{query}} {{document}}\"}}' as the model was trained"
            )
        if not num_own:
            logger.warning(
                "%s.frame=null: the tokenizer puts no token between query and document. If the "
                "model was trained with words around them, name them: %s.frame={body: ...}",
                key, key,
            )  # fmt: skip

    def _cut_queries(self, texts: set[str]) -> dict[str, str]:
        """Return the queries that are longer than half of the room -> their beginnings."""
        limit = self._room // 2
        long = [text for text in texts if len(text) > limit]  # a token has a character or more
        cut = {}
        for text in long:
            offsets = bare_offsets(self.tokenizer, text)
            if len(offsets) > limit:
                cut[text] = text[: offsets[limit][0]]
        return cut
