"""Tell of queries that are longer than the model reads."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from quarry.data.tokenization import TextTokenizer
from quarry.types import Query

logger = logging.getLogger(__name__)


def warn_of_truncation(tokenizer: TextTokenizer, texts: Sequence[str]) -> None:
    """Warn, in one line, how many queries are truncated, and how long the longest one is."""
    limit = tokenizer.longest("query")
    # a token has a byte or more, so that short texts need no look
    longest = max(texts, key=len, default="")
    if len(longest.encode("utf-8", "replace")) <= limit:
        return
    num_cut = sum(is_truncated(tokenizer, text) for text in texts)
    if num_cut:
        logger.warning(
            "%d of %d queries are longer than the model reads (prompt.max_query_length=%d tokens) "
            "and are truncated; the longest has %d characters",
            num_cut, len(texts), tokenizer.prompt.max_query_length, len(longest),
        )  # fmt: skip


def is_truncated(tokenizer: TextTokenizer, text: str) -> bool:
    """Return whether the end of a query does not reach the model."""
    limit = tokenizer.longest("query")
    if len(text.encode("utf-8", "replace")) <= limit - tokenizer.num_prompt_tokens("query") - 1:
        return False
    shorter = Query(query_id="", text=text)
    longer = Query(query_id="", text=f"{text} {text[:100]} and more")
    rows = tokenizer([shorter, longer], "query")
    return len(rows[0]) >= limit - 1 and rows[0].ids.tolist() == rows[1].ids.tolist()
