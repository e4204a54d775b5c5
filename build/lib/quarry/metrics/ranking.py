"""The one order of search results: whatever cuts, writes or scores a run ranks it by this."""

from __future__ import annotations

import math
from collections.abc import Mapping

from quarry.errors import UserError


def rank(scores: Mapping[str, float]) -> list[str]:
    """Order documents as trec_eval does: score descending, ties by document id descending.

    Scores are compared in double precision; numpy and torch scalars are converted. Ids compare
    by code point, which for UTF-8 is the byte order of trec_eval's strcmp: "d9" precedes "d10".

    Args:
        scores: document id -> score, of one query.

    Returns:
        The document ids, best first.

    Raises:
        UserError: a score is NaN, which has no place in any order.
    """
    pairs = [(float(score), document_id) for document_id, score in scores.items()]
    for score, document_id in pairs:
        if math.isnan(score):
            raise UserError(
                f"document {document_id!r}: its score is NaN; a ranking needs comparable scores; "
                "check the embeddings of the document and of the query that it was scored for"
            )
    pairs.sort(reverse=True)
    return [document_id for _, document_id in pairs]
