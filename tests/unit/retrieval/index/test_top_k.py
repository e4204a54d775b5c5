"""The running top k: one order, whatever the chunks and the shares."""

from __future__ import annotations

import pytest
import torch

from quarry.errors import UserError
from quarry.retrieval.index.top_k import RunningTopK, TopK, merge_top_k

CPU = torch.device("cpu")


def top_k(scores: torch.Tensor, places: torch.Tensor, *, k: int, num_filled: int = 0) -> TopK:
    running = RunningTopK(num_queries=len(scores), top_k=k, device=CPU)
    filling = torch.full((len(scores), num_filled), 99.0)
    running.add(torch.cat([scores, filling], dim=1), places)
    return running.result(num_documents=len(places))


def test_rows_with_and_without_ties() -> None:
    scores = torch.tensor([[1.0, 2.0, 2.0, 2.0], [4.0, 3.0, 2.0, 1.0], [5.0, 5.0, 5.0, 9.0]])
    best = top_k(scores, torch.tensor([0, 3, 2, 1]), k=2)
    assert best.places.tolist() == [[1, 2], [0, 3], [1, 0]]
    assert best.scores.tolist() == [[2, 2], [4, 3], [9, 5]]


def test_scores_come_back_bit_for_bit() -> None:
    numbers = [1e38, 1.5, 1e-38, 1e-45, 0.0, -1e-45, -1e-38, -1.5, -1e38, torch.inf, -torch.inf]
    scores = torch.tensor([numbers])
    best = top_k(scores, torch.arange(len(numbers)), k=20, num_filled=5)
    assert best.scores.tolist() == scores.sort(descending=True).values.tolist()
    assert best.places.tolist() == [[9, *range(9), 10]]


def test_zero_and_minus_zero_are_equal() -> None:
    best = top_k(torch.tensor([[0.0, -0.0, 0.0, -0.0]]), torch.tensor([3, 2, 1, 0]), k=3)
    assert best.places.tolist() == [[0, 1, 2]]
    assert not torch.signbit(best.scores).any()


def test_places_need_no_more_than_their_order() -> None:
    best = top_k(torch.ones(1, 3), torch.tensor([4_000_000_000, 7, 2_500_000_000]), k=3)
    assert best.places.tolist() == [[7, 2_500_000_000, 4_000_000_000]]


@pytest.mark.parametrize("k", [1, 3, 16, 100, 1000])
@pytest.mark.parametrize("num_levels", [1, 3, 50, 10**6])
@pytest.mark.parametrize("num_shares", [1, 2, 3, 7])
def test_merged_shares_equal_the_whole(k: int, num_levels: int, num_shares: int) -> None:
    """Shares of unequal sizes, dealt out at random, one of them smaller than k."""
    generator = torch.Generator().manual_seed(num_levels)
    scores = torch.randint(num_levels, (5, 512), generator=generator).float()
    places = torch.randperm(512, generator=generator)
    whole = top_k(scores, places, k=k)
    cuts = torch.randint(1, 512, (num_shares - 1,), generator=generator).sort().values
    columns = torch.randperm(512, generator=generator).tensor_split(cuts)
    shares = [top_k(scores[:, part], places[part], k=k) for part in columns]
    merged = merge_top_k(shares, top_k=k)
    assert torch.equal(merged.scores, whole.scores)
    assert torch.equal(merged.places, whole.places)


def test_shares_of_nothing() -> None:
    nothing = top_k(torch.empty(2, 0), torch.empty(0, dtype=torch.long), k=3, num_filled=4)
    assert nothing.scores.shape == nothing.places.shape == (2, 0)
    some = top_k(torch.ones(2, 1), torch.tensor([5]), k=3)
    assert merge_top_k([nothing, some], top_k=3).places.tolist() == [[5], [5]]
    assert merge_top_k([nothing], top_k=3).scores.shape == (2, 0)


def test_one_score_that_is_no_number_is_found_in_any_column() -> None:
    for column in range(64):
        scores = torch.zeros(2, 64)
        scores[1, column] = torch.nan
        with pytest.raises(UserError, match="a score is NaN"):
            top_k(scores, torch.arange(64), k=2)
