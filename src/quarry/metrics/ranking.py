"""The one order of search results: whatever cuts, writes or scores a run ranks it by this."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from quarry.errors import UserError

Ties = Literal["descending", "ascending"]
"""How documents of one score are ordered: by id, "descending" (trec_eval) or "ascending"."""


def rank_documents(scores: Mapping[str, float], *, ties: Ties = "descending") -> list[str]:
    """Order documents by score, descending; by default ties go as in trec_eval.

    Scores are compared in double precision; numpy and torch scalars are converted. Ids compare
    by code point, which for UTF-8 is the byte order of trec_eval's strcmp: "d9" precedes "d10"
    where ties are descending.

    Args:
        scores: document id -> score, of one query.
        ties: order of the ids where scores are equal.

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
    if ties == "descending":
        pairs.sort(reverse=True)
    else:
        pairs.sort(key=lambda pair: (-pair[0], pair[1]))
    return [document_id for _, document_id in pairs]
