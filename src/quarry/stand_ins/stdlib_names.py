"""A second collection from the standard library: the qualified name of a definition, in words, and
its code. Same code, same modules apart from training as `stdlib_code`, other queries."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from quarry.stand_ins.stdlib_code import stdlib_code_set
from quarry.types import Qrels, Query, RetrievalSet

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
"""Of an identifier: `HTTPServer2` -> HTTP, Server, 2."""


def stdlib_names_set(*, split: str, cache_dir: Path | str) -> RetrievalSet:
    """The retrieval set of a split, `dev` or `test`: no query is in any training pair's place."""
    return names_set(stdlib_code_set(split=split, cache_dir=cache_dir))


def names_set(code: RetrievalSet) -> RetrievalSet:
    """The same documents, searched by their names; definitions of one name in words are one query,
    which all of them answer."""
    queries: dict[str, Query] = {}
    qrels: dict[str, dict[str, int]] = {}
    for document in code.corpus:
        text = " ".join(name_words(document.document_id))
        # unlike the document's id, which some conventions drop from a query's results
        query = queries.setdefault(text, Query(query_id=f"name:{document.document_id}", text=text))
        qrels.setdefault(query.query_id, {})[document.document_id] = 1
    judged: Qrels = qrels
    return RetrievalSet(
        name=code.name.replace("stdlib_code", "stdlib_names"),
        queries=tuple(queries.values()),
        corpus=code.corpus,
        qrels=judged,
        content="code",
        source=code.source,
    )


def name_words(qualified_name: str) -> Iterator[str]:
    """`json.decoder:JSONDecoder.raw_decode` -> json, decoder, json, decoder, raw, decode."""
    for match in _WORD.finditer(qualified_name):
        yield match[0].lower()
