"""Split work among ranks into shares of about equal cost."""

from __future__ import annotations

import heapq
from collections.abc import Sequence


def balanced_shares(costs: Sequence[int], *, num_shares: int) -> list[list[int]]:
    """Assign each item to the share with the lowest cost so far, costliest items first.

    This is Graham's LPT rule (1969): no share costs more than 4/3 of the smallest possible maximum.
    The result depends on the arguments alone.

    Args:
        costs: of each item, 1 or more.
        num_shares: at most as many as there are items.

    Returns:
        For each share the ascending positions of its items. Every item is in exactly one share, and
        no share is empty.
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
