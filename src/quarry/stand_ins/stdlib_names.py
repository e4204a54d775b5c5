"""Build a retrieval set from the standard library: names of definitions, in words, and their code.

Code and held-out modules are those of `stdlib_code`; the queries differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from quarry.stand_ins.stdlib_code import stdlib_code_set
from quarry.types import Qrels, Query, RetrievalSet

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
"""Words of an identifier: `HTTPServer2` -> HTTP, Server, 2."""


def stdlib_names_set(*, split: str, cache_dir: Path | str) -> RetrievalSet:
    """Return the retrieval set of a split, `dev` or `test`, from modules held out of training."""
    return names_set(stdlib_code_set(split=split, cache_dir=cache_dir))


def names_set(code: RetrievalSet) -> RetrievalSet:
    """Return a set with the same documents and their names, in words, as queries.

    Definitions with the same name in words share a query, for which all of them are relevant.
    """
    queries: dict[str, Query] = {}
    qrels: dict[str, dict[str, int]] = {}
    for document in code.corpus:
        text = " ".join(name_words(document.document_id))
        # not the document's id: some conventions drop a result whose id is the query's
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
    """Yield the lowercase words of a qualified name, module included.

    `json.decoder:JSONDecoder.raw_decode` -> json, decoder, json, decoder, raw, decode.
    """
    for match in _WORD.finditer(qualified_name):
        yield match[0].lower()
