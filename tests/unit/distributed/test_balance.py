"""Shares of work: each item once, none empty, balanced, and always the same."""

from __future__ import annotations

import numpy as np
import pytest

from quarry.distributed.balance import balanced_shares


def test_by_hand() -> None:
    # 9 and 8 open the shares, 5 joins the 8, 4 the 9, 3 the 13 of both: the first of the two
    assert balanced_shares([3, 9, 4, 8, 5], num_shares=2) == [[0, 1, 2], [3, 4]]


@pytest.mark.parametrize("num_shares", [1, 2, 3, 8])
def test_each_item_once_no_share_empty_and_balanced(num_shares: int) -> None:
    costs = np.random.default_rng(0).lognormal(5, 1, 64).astype(int) + 1
    shares = balanced_shares(costs.tolist(), num_shares=num_shares)
    assert len(shares) == num_shares
    assert all(shares)
    assert sorted(item for share in shares for item in share) == list(range(64))
    assert all(share == sorted(share) for share in shares)
    loads = [costs[share].sum() for share in shares]
    assert max(loads) - min(loads) <= costs.max()
    in_order = [part.sum() for part in np.array_split(costs, num_shares)]
    assert num_shares == 1 or max(loads) - min(loads) < 0.2 * (max(in_order) - min(in_order))


def test_as_many_shares_as_items() -> None:
    assert balanced_shares([5, 1, 1], num_shares=3) == [[0], [1], [2]]


def test_more_shares_than_items_is_refused() -> None:
    with pytest.raises(AssertionError):
        balanced_shares([5, 1], num_shares=3)
