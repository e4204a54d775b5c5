"""Read requests of `/search`, and write what was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quarry.serving.api_errors import ApiError
from quarry.serving.json_body import (
    checked_bool,
    checked_integer,
    checked_text,
    invalid,
    json_object,
    type_name,
)
from quarry.serving.limits import MAX_HITS, MAX_QUERIES, MAX_SNIPPETS, MAX_TOP_K, Limits
from quarry.serving.search_service import FoundDocument
from quarry.serving.snippets import marked, query_terms, snippet

FIELDS = ("query", "queries", "top_k", "hybrid", "snippets")

DEFAULT_TOP_K = 10

_WORDS = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True, kw_only=True, slots=True)
class AskedSearch:
    """A search that is checked.

    Attributes:
        texts: the queries, at least one.
        has_snippets: whether the first hits have the part of the text with the query's words.
    """

    texts: Sequence[str]
    top_k: int
    is_hybrid: bool
    has_snippets: bool


def read_search(body: bytes, *, limits: Limits) -> AskedSearch:
    """Return the search that a body holds.

    Raises:
        ApiError: 400, a field is wrong.
    """
    return _checked(json_object(body, known=FIELDS), limits)


def read_search_query(items: Sequence[tuple[str, str]], *, limits: Limits) -> AskedSearch:
    """Return the search of a URL's parameters, `q`, `top_k`, `hybrid` and `snippets`.

    Raises:
        ApiError: 400, a parameter is unknown, wrong, or there twice.
    """
    fields: dict[str, Any] = {}
    for name, value in items:
        if name not in ("q", *FIELDS[2:]) or name in fields:
            problem = "is there twice" if name in fields else "there is no such parameter"
            raise invalid(
                name[:80], f"{problem} (q, {', '.join(FIELDS[2:])})", code="unknown_field"
            )
        if name in ("hybrid", "snippets"):
            fields[name] = _WORDS.get(value.lower(), value)
        elif name == "top_k":
            fields[name] = (
                int(value) if value.isascii() and value.isdigit() and len(value) < 9 else value
            )
        else:
            fields[name] = value
    if "q" in fields:
        fields["query"] = fields.pop("q")
    return _checked(fields, limits)


def _checked(fields: Mapping[str, Any], limits: Limits) -> AskedSearch:
    texts = _texts(fields, limits)
    top_k = fields.get("top_k", DEFAULT_TOP_K)
    top_k = checked_integer(top_k, param="top_k", low=1, high=MAX_TOP_K)
    if len(texts) * top_k > MAX_HITS:
        raise ApiError(
            400,
            f"top_k={top_k}: {len(texts):,} queries would find {len(texts) * top_k:,} documents "
            f"(at most {MAX_HITS:,} in a request). Fix: a smaller top_k, or fewer queries in a "
            "request.",
            code="too_many_results",
            param="top_k",
        )
    return AskedSearch(
        texts=texts,
        top_k=top_k,
        is_hybrid=checked_bool(fields.get("hybrid", False), param="hybrid"),
        has_snippets=checked_bool(fields.get("snippets", False), param="snippets"),
    )


def _texts(fields: Mapping[str, Any], limits: Limits) -> list[str]:
    if ("query" in fields) == ("queries" in fields):
        raise invalid("query", "one of query (a string) and queries (an array) is needed")
    if "query" in fields:
        return [_query(fields["query"], param="query", limits=limits)]
    queries = fields["queries"]
    if not isinstance(queries, list):
        raise invalid("queries", f"an array of strings is expected, not {type_name(queries)}")
    if not 1 <= len(queries) <= MAX_QUERIES:
        raise ApiError(
            400,
            f"queries: {len(queries):,} of them (1 to {MAX_QUERIES}). Fix: send several requests.",
            code="too_many_texts",
            param="queries",
        )
    return [
        _query(query, param=f"queries[{place}]", limits=limits)
        for place, query in enumerate(queries)
    ]


def _query(value: object, *, param: str, limits: Limits) -> str:
    text = checked_text(value, param=param, limits=limits)
    if not text.strip():
        raise invalid(param, "is empty", code="empty_text")
    return text


def found_as_data(
    asked: AskedSearch, found: Sequence[Sequence[FoundDocument]], *, model: str
) -> dict[str, Any]:
    """Return the response as plain data: a list of hits for each query, best first."""
    num_snippets = max(MAX_SNIPPETS // len(asked.texts), 1) if asked.has_snippets else 0
    return {
        "model": model,
        "results": [
            {"query": text, "hits": _hits(text, hits, num_snippets=num_snippets)}
            for text, hits in zip(asked.texts, found, strict=True)
        ],
    }


def _hits(query: str, found: Sequence[FoundDocument], *, num_snippets: int) -> list[dict[str, Any]]:
    terms = query_terms(query) if num_snippets else set()
    hits = []
    for rank, hit in enumerate(found, start=1):
        document = hit.document
        entry: dict[str, Any] = {
            "rank": rank,
            "document_id": document.document_id,
            "score": float(hit.score),
            "title": document.title,
            "text": document.text,
        }
        if rank <= num_snippets:
            entry["title_snippet"] = marked(document.title, terms)
            entry["snippet"] = snippet(document.text, terms)
        hits.append(entry)
    return hits
