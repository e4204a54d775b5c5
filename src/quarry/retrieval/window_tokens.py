"""Tokenise windows of texts: each rank a share of every window, and all ranks get its tokens."""

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
"""Texts that are tokenised at a time: few enough that the model's launches never wait for long."""

MIN_ROUNDS = 4
"""Pieces of a window that each of several ranks gets at least, from all its parts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """Hold texts of a window that this rank tokenises in one call.

    Attributes:
        texts: their positions; may be empty.
        window: positions of all texts of the window.
        is_last: whether it is this rank's last piece of the window.
    """

    texts: range
    window: range
    is_last: bool


def own_pieces(window: range) -> Iterator[Piece]:
    """Cut a window into pieces of equal size and yield this rank's, as many as every rank has.

    How far ranks tokenise ahead is counted in pieces: all have to reach the same window, or one
    could wait for tokens of another that waits for its model.
    """
    own = _pieces(window, world.rank())
    for number, texts in enumerate(own, start=1):
        yield Piece(texts=texts, window=window, is_last=number == len(own))


def _pieces(window: range, rank: int) -> list[range]:
    """Return the texts of a rank's pieces, one of each round.

    Every other round begins with the last rank: where texts grow longer and longer, all ranks have
    about the same to do.
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
    """Hold the tokens of a window.

    Attributes:
        lengths: [num_texts] tokens of each text.
        texts: [num_texts]; made when they are taken out if they come from other ranks.
    """

    lengths: Sequence[int] | NDArray[np.int64]
    texts: Sequence[TokenizedText]


class WindowTokenizer:
    """Tokenise pieces one after the other; the last one of a window brings the tokens of all ranks.

    One thread calls it, in the order of windows. Every rank hands in its pieces of the same
    windows, and waits in the last piece until the others have theirs.

    To be made by the main threads of all ranks at the same point.

    Args:
        tokenise: texts at these positions.
    """

    def __init__(self, tokenise: Callable[[range], list[TokenizedText]]) -> None:
        self._tokenise = tokenise
        self._gathered = world.gathered_by_thread()
        self._own: list[TokenizedText] = []
        self._error: Exception | None = None
        self._has_failed = False

    def __call__(self, piece: Piece) -> WindowTokens | None:
        """Return the tokens of the window if the piece is the last one of it.

        Raises:
            UserError, RuntimeError: on every rank at the same window, what tokenising raised on
                one of them.
        """
        if self._has_failed:  # not every rank asks for what follows: nobody may wait for it
            return None
        try:
            if self._error is None:
                self._own += self._tokenise(piece.texts)
        except Exception as error:
            if world.size() == 1:
                raise
            self._error = error  # the others learn of it with the window
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
                raise RuntimeError(f"In rank {rank}: {message}") from self._error


@dataclass(frozen=True, kw_only=True, slots=True)
class _Share:
    """Hold what a rank has tokenised of a window, as it travels.

    Attributes:
        ids: [num_tokens] of its texts, end to end.
        lengths, pool_starts: [num_texts], see `TokenizedText`.
        failure: whether it is a user's mistake, and the message; None: it went well.
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
    """The texts of a window, each made when it is taken out: a rank encodes few of them."""

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
