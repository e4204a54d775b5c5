"""Turn scores into an order: the exact best k, ties by document id descending as in trec_eval.

Every retriever orders its documents here, so that a run and the measures made from it agree.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from quarry.errors import UserError

NO_RANKING = (
    "a score is NaN, so there is no ranking: the embeddings or scores it was made from are "
    "not finite. Look for a diverged model or an overflow in half precision"
)


def tie_order(document_ids: Sequence[str]) -> NDArray[np.int64]:
    """Return the place of each document when ids are sorted in descending order: lower wins a tie.

    Python compares strings by code point, which is also the order of their UTF-8 bytes, in which
    trec_eval compares.

    Returns:
        [num_documents], a permutation of 0..num_documents - 1. Compute it once for a corpus.
    """
    order = np.empty(len(document_ids), dtype=np.int64)
    by_id = sorted(range(len(document_ids)), key=document_ids.__getitem__, reverse=True)
    order[by_id] = np.arange(len(document_ids))
    return order


def top_k_by_score(
    scores: NDArray[np.floating], tie_order: NDArray[np.int64], *, k: int
) -> NDArray[np.int64]:
    """Return the positions of the k best scores, best first; ties by `tie_order`, lowest first.

    Linear in the number of documents, even if all scores are equal; only the k winners are sorted.
    A library's own top-k chooses arbitrarily among equal scores at the border.

    Args:
        scores: [num_documents].
        tie_order: [num_documents], see `tie_order`.
        k: number of documents; all if there are fewer.

    Raises:
        UserError: a score is NaN.
    """
    assert k >= 1
    assert scores.shape == tie_order.shape
    if np.isnan(scores).any():
        raise UserError(NO_RANKING)
    best = np.arange(len(scores))
    if k < len(scores):
        threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
        above = np.flatnonzero(scores > threshold)
        tied = np.flatnonzero(scores == threshold)
        num_open = k - len(above)
        if num_open < len(tied):
            tied = tied[np.argpartition(tie_order[tied], num_open - 1)[:num_open]]
        best = np.concatenate([above, tied])
    return best[np.lexsort((tie_order[best], -scores[best]))]
