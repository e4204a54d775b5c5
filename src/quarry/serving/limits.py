"""Define the bounds of what one client, or all together, may ask of the server."""

from __future__ import annotations

from dataclasses import dataclass

MAX_TOP_K = 1000
"""Documents that one query may ask for."""

MAX_QUERIES = 256
"""Queries of one search request."""

MAX_WAITING_QUERIES = 1024
"""Queries that wait for the search, over all clients."""


MAX_HITS = 10_000
"""Documents of one search request, and of queries that are searched together."""

MAX_SNIPPETS = 100
"""Hits of a request that have snippets, shared evenly by its queries; each query has one."""

MAX_RESPONSE_CHARACTERS = 16_000_000
"""Characters of titles and texts in one response of a search."""

MAX_WAITING_CHARACTERS = 256_000_000
"""The same over all responses that wait to be written."""

MAX_WAITING_SNIPPETS = 64
"""Responses with snippets that wait to be written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """The bounds that a configuration sets.

    Attributes:
        max_body_bytes: of a request, refused with 413.
        max_texts_per_request: refused with 400.
        max_characters_per_text: refused with 400; the tokenizer truncates far shorter texts.
        max_waiting_texts: texts of all clients that wait to be encoded; beyond, 429.
        client_timeout_s: for a client to send a request, or to read a piece of its response.
    """

    max_body_bytes: int
    max_texts_per_request: int
    max_characters_per_text: int
    max_waiting_texts: int
    client_timeout_s: float
