"""Order search results; everything that cuts, writes or scores a run uses this order."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from quarry.errors import UserError

Ties = Literal["descending", "ascending"]
"""Order of ids among documents of equal score: "descending" (trec_eval) or "ascending"."""


def rank_documents(scores: Mapping[str, float], *, ties: Ties = "descending") -> list[str]:
    """Return document ids by descending score; by default tie-breaking is trec_eval's.

    Scores are compared in double precision; numpy and torch scalars are converted. Ids compare
    by code point, which for UTF-8 is the byte order of trec_eval's strcmp: "d9" precedes "d10" in
    descending order.

    Args:
        scores: document id -> score, for one query.
        ties: order of the ids where scores are equal.

    Returns:
        The document ids, best first.

    Raises:
        UserError: a score is NaN, which cannot be ordered.
    """
    pairs = [(float(score), document_id) for document_id, score in scores.items()]
    for score, document_id in pairs:
        if math.isnan(score):
            raise UserError(
                f"document {document_id!r}: its score is NaN; a ranking needs comparable scores; "
                "check the embeddings of the document and of the query that it was scored for"
            )
    if ties == "descending":
        pairs.sort(reverse=True)
    else:
        pairs.sort(key=lambda pair: (-pair[0], pair[1]))
    return [document_id for _, document_id in pairs]
