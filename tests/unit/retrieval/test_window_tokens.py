"""Pieces of windows: every text once, shares of equal size; tokens of all ranks in order."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, local

import numpy as np
import pytest

from quarry.data.tokenization import TokenizedText
from quarry.distributed import world
from quarry.errors import SharedError, UserError
from quarry.retrieval.window_tokens import (
    NUM_TEXTS_PER_CALL,
    Piece,
    WindowTokenizer,
    WindowTokens,
    own_pieces,
)


def be(monkeypatch: pytest.MonkeyPatch, *, rank: int, num_ranks: int) -> None:
    monkeypatch.setattr(world, "rank", lambda: rank)
    monkeypatch.setattr(world, "size", lambda: num_ranks)


def pieces_of_all(
    monkeypatch: pytest.MonkeyPatch, window: range, *, num_ranks: int
) -> list[list[Piece]]:
    found = []
    for rank in range(num_ranks):
        be(monkeypatch, rank=rank, num_ranks=num_ranks)
        found.append(list(own_pieces(window)))
    return found


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 8, 64])
@pytest.mark.parametrize("num_texts", [1, 2, 7, 1000, 1024, 16_384])
def test_pieces_cover_a_window_once(
    num_texts: int, num_ranks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = range(500, 500 + num_texts)
    found = pieces_of_all(monkeypatch, window, num_ranks=num_ranks)
    assert sorted(row for pieces in found for piece in pieces for row in piece.texts) == [*window]
    assert len({len(pieces) for pieces in found}) == 1, "as many on every rank"
    for pieces in found:
        assert [piece.is_last for piece in pieces] == [False] * (len(pieces) - 1) + [True]
        assert all(piece.window == window for piece in pieces)
        assert all(len(piece.texts) <= NUM_TEXTS_PER_CALL for piece in pieces)
    sizes = [sum(len(piece.texts) for piece in pieces) for pieces in found]
    assert max(sizes) - min(sizes) <= max(len(pieces) for pieces in found)


@pytest.mark.parametrize("num_ranks", [2, 3, 8])
def test_a_window_sorted_by_length_gives_all_ranks_as_much(
    num_ranks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = np.arange(1, 1025)
    found = pieces_of_all(monkeypatch, range(1024), num_ranks=num_ranks)
    shares = [sum(int(lengths[piece.texts].sum()) for piece in pieces) for pieces in found]
    assert max(shares) < 1.01 * min(shares)


def tokenized(texts: range) -> list[TokenizedText]:
    """Text n is the id n, two to six times."""
    return [
        TokenizedText(ids=np.full(2 + n % 5, n, dtype=np.int64), pool_start=n % 2) for n in texts
    ]


def gathering(monkeypatch: pytest.MonkeyPatch, gathered: Callable[[object], list[object]]) -> None:
    monkeypatch.setattr(world, "gathered_by_thread", lambda: gathered)


@pytest.mark.parametrize("num_texts", [1, 2, 3, 50])
def test_the_tokens_of_all_ranks_are_in_the_order_of_the_window(
    num_texts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    num_ranks, window = 3, range(10, 10 + num_texts)
    here, together, shares = local(), Barrier(num_ranks), dict[int, object]()

    def gathered(share: object) -> list[object]:
        shares[here.rank] = share
        together.wait(timeout=10)
        return [shares[rank] for rank in range(num_ranks)]

    def tokens_of(rank: int) -> WindowTokens:
        here.rank = rank
        tokenize = WindowTokenizer(tokenized)
        *before, last = [tokenize(piece) for piece in own_pieces(window)]
        assert before == [None] * len(before)
        assert last is not None
        return last

    monkeypatch.setattr(world, "size", lambda: num_ranks)
    monkeypatch.setattr(world, "rank", lambda: here.rank)
    gathering(monkeypatch, gathered)
    with ThreadPoolExecutor(num_ranks) as ranks:
        found = list(ranks.map(tokens_of, range(num_ranks)))
    for tokens in found:
        assert np.asarray(tokens.lengths).tolist() == [2 + n % 5 for n in window]
        for text, expected in zip(tokens.texts, tokenized(window), strict=True):
            assert text.ids.dtype == expected.ids.dtype
            assert text.ids.tolist() == expected.ids.tolist()
            assert text.pool_start == expected.pool_start


def test_one_rank_exchanges_nothing() -> None:
    tokenize = WindowTokenizer(tokenized)
    found = [tokenize(piece) for piece in own_pieces(range(600))]
    *before, last = found
    assert before == [None, None]
    assert last is not None
    assert last.lengths == [len(text) for text in last.texts]
    assert len(last.texts) == 600


class Failing:
    """Raises, and counts how often ranks were asked for their shares."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.num_calls = self.num_gathered = 0

    def __call__(self, texts: range) -> list[TokenizedText]:
        self.num_calls += 1
        raise self.error

    def gathered(self, share: object) -> list[object]:
        self.num_gathered += 1
        return [share, share]


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (UserError("no tokens"), SharedError, "^no tokens$"),
        (KeyError("a"), RuntimeError, "^On rank 0: KeyError: 'a'$"),
    ],
)
def test_a_failure_is_raised_with_its_window_and_nothing_is_gathered_after_it(
    error: Exception, kind: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    be(monkeypatch, rank=1, num_ranks=2)
    failing = Failing(error)
    gathering(monkeypatch, failing.gathered)
    tokenize = WindowTokenizer(failing)
    *pieces, last = own_pieces(range(100))
    assert [tokenize(piece) for piece in pieces] == [None] * len(pieces)
    with pytest.raises(kind, match=message) as caught:
        tokenize(last)
    assert caught.value.__cause__ is error
    # what was asked for in advance
    assert [tokenize(piece) for piece in own_pieces(range(100, 200))] == [None] * 4
    assert (failing.num_calls, failing.num_gathered) == (1, 1)
