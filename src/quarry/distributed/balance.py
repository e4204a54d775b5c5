"""Deals work out to processes in shares that cost about the same."""

from __future__ import annotations

import heapq
from collections.abc import Sequence


def balanced_shares(costs: Sequence[int], *, num_shares: int) -> list[list[int]]:
    """Each item to the share that costs least so far, the costliest items first (Graham 1969).

    Depends on the arguments alone. No share costs more than 4/3 of the smallest possible maximum.

    Args:
        costs: of each item, 1 or more.
        num_shares: at most as many as there are items.

    Returns:
        For each share the positions of its items, ascending; at least one, together each once.
    """
    assert 1 <= num_shares <= len(costs), "no share may be empty"
    assert min(costs) >= 1
    shares: list[list[int]] = [[] for _ in range(num_shares)]
    loads = [(0, share) for share in range(num_shares)]
    for item in sorted(range(len(costs)), key=lambda item: (-costs[item], item)):
        load, share = heapq.heappop(loads)
        shares[share].append(item)
        heapq.heappush(loads, (load + costs[item], share))
    return [sorted(share) for share in shares]
