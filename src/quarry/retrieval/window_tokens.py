"""Tokenize windows of texts: each rank a share of every window; all ranks receive all tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from quarry.data.tokenization import TokenizedText
from quarry.distributed import world
from quarry.errors import SharedError, UserError

NUM_TEXTS_PER_CALL = 256
"""Texts that are tokenized at a time: few enough that the model's launches never wait long."""

MIN_ROUNDS = 4
"""Pieces of a window that each of several ranks gets at least, from all parts of the window."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """Texts of a window that this rank tokenizes in one call.

    Attributes:
        texts: their positions; may be empty.
        window: positions of all texts of the window.
        is_last: whether it is this rank's last piece of the window.
    """

    texts: range
    window: range
    is_last: bool


def own_pieces(window: range) -> Iterator[Piece]:
    """Cut a window into pieces of equal size and yield this rank's; all ranks have equally many.

    Ranks tokenize ahead by a number of pieces: all must reach the same window, or one could wait
    for tokens of another that waits for its model.
    """
    own = _pieces(window, world.rank())
    for number, texts in enumerate(own, start=1):
        yield Piece(texts=texts, window=window, is_last=number == len(own))


def _pieces(window: range, rank: int) -> list[range]:
    """Return the texts of a rank's pieces, one per round.

    Every other round begins with the last rank: if texts grow longer and longer, all ranks have
    about the same work.
    """
    num_ranks, num_texts = world.size(), len(window)
    num_rounds = -(-num_texts // (NUM_TEXTS_PER_CALL * num_ranks))
    if num_ranks > 1:
        num_rounds = max(num_rounds, min(MIN_ROUNDS, -(-num_texts // num_ranks)))
    num_pieces = num_rounds * num_ranks
    numbers = [
        round_ * num_ranks + (num_ranks - 1 - rank if round_ % 2 else rank)
        for round_ in range(num_rounds)
    ]
    return [
        window[number * num_texts // num_pieces : (number + 1) * num_texts // num_pieces]
        for number in numbers
    ]


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowTokens:
    """The tokens of a window.

    Attributes:
        lengths: [num_texts] tokens of each text.
        texts: [num_texts]; texts of other ranks are created when they are accessed.
    """

    lengths: Sequence[int] | NDArray[np.int64]
    texts: Sequence[TokenizedText]


class WindowTokenizer:
    """Tokenizer of pieces in order; the last piece of a window returns the tokens of all ranks.

    One thread calls it, in the order of windows. Every rank passes its pieces of the same windows,
    and waits in the last piece until the others have finished theirs.

    The main threads of all ranks must construct it at the same point.

    Args:
        tokenize: tokenizes the texts at these positions.
    """

    def __init__(self, tokenize: Callable[[range], list[TokenizedText]]) -> None:
        self._tokenize = tokenize
        self._gathered = world.gathered_by_thread()
        self._own: list[TokenizedText] = []
        self._error: Exception | None = None
        self._has_failed = False

    def __call__(self, piece: Piece) -> WindowTokens | None:
        """Return the tokens of the window if the piece is its last one.

        Raises:
            UserError, RuntimeError: on every rank at the same window, what tokenization raised on
                one of them.
        """
        if self._has_failed:  # not every rank asks for what follows: no rank may wait for it
            return None
        try:
            if self._error is None:
                self._own += self._tokenize(piece.texts)
        except Exception as error:
            if world.size() == 1:
                raise
            self._error = error  # the other ranks receive it with the window
        if not piece.is_last:
            return None
        own, self._own = self._own, []
        if world.size() == 1:
            return WindowTokens(lengths=[len(text) for text in own], texts=own)
        shares = self._gathered(_Share.of(own, self._error))
        self._has_failed = any(share.failure is not None for share in shares)
        self._raise_failures(shares)
        return _joined(piece.window, shares)

    def _raise_failures(self, shares: Sequence[_Share]) -> None:
        for rank, share in enumerate(shares):
            if share.failure is not None:
                is_users, message = share.failure
                if is_users:
                    raise SharedError(message) from self._error
                raise RuntimeError(f"On rank {rank}: {message}") from self._error


@dataclass(frozen=True, kw_only=True, slots=True)
class _Share:
    """A rank's tokens of a window, in the form in which ranks exchange them.

    Attributes:
        ids: [num_tokens] of its texts, concatenated.
        lengths, pool_starts: [num_texts], see `TokenizedText`.
        failure: (whether it is a user's error, message); None: no failure.
    """

    ids: NDArray[np.int32]
    lengths: NDArray[np.int32]
    pool_starts: NDArray[np.int32]
    failure: tuple[bool, str] | None

    @classmethod
    def of(cls, texts: Sequence[TokenizedText], error: Exception | None) -> _Share:
        ids = [np.empty(0, dtype=np.int64), *(text.ids for text in texts)]
        failure = None
        if error is not None:
            is_users = isinstance(error, UserError)
            failure = is_users, str(error) if is_users else f"{type(error).__name__}: {error}"
        return cls(
            ids=np.concatenate(ids).astype(np.int32),
            lengths=np.array([len(text) for text in texts], dtype=np.int32),
            pool_starts=np.array([text.pool_start for text in texts], dtype=np.int32),
            failure=failure,
        )


class _JoinedTexts(Sequence[TokenizedText]):
    """The texts of a window, each created when it is accessed: a rank encodes few of them."""

    def __init__(
        self,
        *,
        ids: NDArray[np.int32],
        starts: NDArray[np.int64],
        lengths: NDArray[np.int64],
        pool_starts: NDArray[np.int32],
    ) -> None:
        self._ids = ids
        self._starts = starts
        self._lengths = lengths
        self._pool_starts = pool_starts

    def __len__(self) -> int:
        return len(self._lengths)

    @overload
    def __getitem__(self, index: int) -> TokenizedText: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[TokenizedText]: ...
    def __getitem__(self, index: int | slice) -> TokenizedText | Sequence[TokenizedText]:
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(len(self)))]
        start = self._starts[index]
        ids = self._ids[start : start + self._lengths[index]].astype(np.int64)
        return TokenizedText(ids=ids, pool_start=int(self._pool_starts[index]))


def _joined(window: range, shares: Sequence[_Share]) -> WindowTokens:
    """Return the tokens of all ranks' pieces, in the order of the window."""
    pieces = [piece for rank in range(len(shares)) for piece in _pieces(window, rank)]
    order = np.concatenate([np.arange(p.start, p.stop) for p in pieces]) - window.start
    by_rank = np.concatenate([share.lengths for share in shares]).astype(np.int64)
    lengths, starts = np.empty_like(by_rank), np.empty_like(by_rank)
    pool_starts = np.empty(len(by_rank), dtype=np.int32)
    lengths[order] = by_rank
    starts[order] = np.cumsum(by_rank) - by_rank
    pool_starts[order] = np.concatenate([share.pool_starts for share in shares])
    ids = np.concatenate([share.ids for share in shares])
    texts = _JoinedTexts(ids=ids, starts=starts, lengths=lengths, pool_starts=pool_starts)
    return WindowTokens(lengths=lengths, texts=texts)
