"""Hold the texts of one client's request while they are tokenized and encoded."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from quarry.data.tokenization import TokenizedText
from quarry.serving.api_errors import ApiError
from quarry.types import Document, Query, Role

logger = logging.getLogger(__name__)

NUM_TEXTS_PER_CALL = 64
NUM_CHARACTERS_PER_CALL = 200_000
"""What is tokenized at a time: a slice of a big request, so that others do not wait for all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoded:
    """The embeddings of a request.

    Attributes:
        vectors: [num_texts, dim] float32, finite.
        num_tokens: of all texts, prompts and end tokens included.
    """

    vectors: NDArray[np.float32]
    num_tokens: int


class WaitingRequest:
    """Texts of one client, some of them tokenized, some encoded."""

    def __init__(self, items: Sequence[Query | Document], role: Role, *, dim: int) -> None:
        self.items = items
        self.role = role
        self.future: Future[Encoded] = Future()
        self.vectors = np.empty((len(items), dim), dtype=np.float32)
        self.ready: deque[WaitingText] = deque()
        self.num_tokenized = 0
        self.num_open = len(items)
        self.num_tokens = 0
        self.is_fresh = True  # none of its texts was in a batch
        self.is_alone = False  # it was in a batch that failed: it shares no other

    @property
    def is_taken(self) -> bool:
        """Whether all texts are in batches."""
        return not self.ready and self.num_tokenized == len(self.items)

    def next_slice(self) -> Sequence[Query | Document]:
        """Return the texts to tokenize next; at least one while there are any."""
        end, num_characters = self.num_tokenized, 0
        while end < len(self.items) and end - self.num_tokenized < NUM_TEXTS_PER_CALL:
            num_characters += len(self.items[end].text)
            if end > self.num_tokenized and num_characters > NUM_CHARACTERS_PER_CALL:
                break
            end += 1
        return self.items[self.num_tokenized : end]

    def add(self, tokens: Sequence[TokenizedText]) -> None:
        """Add the tokens of the next texts."""
        self.ready += [
            WaitingText(self, self.num_tokenized + i, text) for i, text in enumerate(tokens)
        ]
        self.num_tokenized += len(tokens)
        self.num_tokens += sum(map(len, tokens))

    def turn(self, *, room: int, most: int, is_first: bool) -> list[WaitingText]:
        """Take tokenized texts of at most `most` tokens, but at least one where `room` has it.

        Args:
            room: tokens that still fit the batch; its first text may be longer.
            is_first: whether the batch is empty.
        """
        taken: list[WaitingText] = []
        num_tokens = 0
        while self.ready:
            num_tokens += len(self.ready[0].tokens)
            is_own = is_first and not taken
            if not is_own and (num_tokens > room or (taken and num_tokens > most)):
                break
            taken.append(self.ready.popleft())
            self.is_fresh = False
        return taken

    def finish(self) -> None:
        """Hand the embeddings over; NaN and infinity are an error, which no client can mend."""
        if not np.isfinite(self.vectors).all():
            logger.error("The model gives embeddings that are not finite")
            message = "The model gives embeddings that are not finite. Fix: its dtype or weights."
            self.fail(ApiError(500, message, code="not_finite"))
            return
        with suppress(InvalidStateError):  # the client has left
            self.future.set_result(Encoded(vectors=self.vectors, num_tokens=self.num_tokens))

    def fail(self, error: Exception) -> None:
        """Hand an error over."""
        with suppress(InvalidStateError):
            self.future.set_exception(error)


class WaitingText(NamedTuple):
    """A tokenized text, and its place in its request."""

    request: WaitingRequest
    place: int
    tokens: TokenizedText
