"""Define the bounds of what one client, or all together, may ask of the server."""

from __future__ import annotations

from dataclasses import dataclass

MAX_TOP_K = 1000
"""Documents that one query may ask for."""

MAX_QUERIES = 256
"""Queries of one search request."""

MAX_WAITING_QUERIES = 1024
"""Queries that wait for the search, over all clients."""


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
