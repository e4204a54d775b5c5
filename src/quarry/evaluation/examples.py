"""Pick a few queries of a set with their top-ranked documents, to inspect rankings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from quarry.data.corpus import Corpus
from quarry.metrics.ranking import rank_documents
from quarry.types import Document, RetrievalSet, Run

NUM_DOCUMENTS = 3
NUM_CHARACTERS = 300


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundDocument:
    """A retrieved document.

    Attributes:
        text: title and text, truncated to `NUM_CHARACTERS`.
        is_relevant: whether its grade is above 0.
    """

    document_id: str
    text: str
    score: float
    is_relevant: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """A query and its top-ranked documents.

    Attributes:
        first_relevant: rank of the first relevant document, from 1; None if none was found.
        documents: the top documents, at most `NUM_DOCUMENTS`.
    """

    set_name: str
    query_id: str
    text: str
    first_relevant: int | None
    documents: tuple[FoundDocument, ...]


def examples_of(data: RetrievalSet, run: Run, *, set_name: str, num_examples: int) -> list[Example]:
    """Return `num_examples` examples, evenly spaced queries, so the same in each evaluation.

    Args:
        run: a ranking for each query.
        set_name: name of the set in reports.
    """
    num_examples = min(num_examples, len(data.queries))
    places = np.linspace(0, len(data.queries) - 1, num_examples).round().astype(int).tolist()
    queries = [data.queries[place] for place in places]
    rankings = {query.query_id: rank_documents(run.get(query.query_id, {})) for query in queries}
    wanted = {name for ranking in rankings.values() for name in ranking[:NUM_DOCUMENTS]}
    texts = _texts_of(data.corpus, wanted)
    return [
        Example(
            set_name=set_name,
            query_id=query.query_id,
            text=_cut(query.text),
            first_relevant=_first_relevant(data, query.query_id, rankings[query.query_id]),
            documents=_found(data, query.query_id, rankings[query.query_id], run=run, texts=texts),
        )
        for query in queries
    ]


def _first_relevant(data: RetrievalSet, query_id: str, ranking: Sequence[str]) -> int | None:
    grades = data.qrels[query_id]
    hits = (place for place, name in enumerate(ranking, start=1) if grades.get(name, 0) > 0)
    return next(hits, None)


def _found(
    data: RetrievalSet, query_id: str, ranking: Sequence[str], *, run: Run, texts: dict[str, str]
) -> tuple[FoundDocument, ...]:
    return tuple(
        FoundDocument(
            document_id=name,
            text=texts.get(name, ""),
            score=float(run[query_id][name]),
            is_relevant=data.qrels[query_id].get(name, 0) > 0,
        )
        for name in ranking[:NUM_DOCUMENTS]
    )


def _texts_of(corpus: Sequence[Document], document_ids: Iterable[str]) -> dict[str, str]:
    """Return document id -> truncated title and text, for the given ids."""
    wanted = sorted(document_ids)
    if isinstance(corpus, Corpus):  # it finds documents without reading the others
        found: Iterable[Document] = (corpus[int(i)] for i in corpus.rows_of(wanted) if i >= 0)
    else:
        names = set(wanted)
        found = (document for document in corpus if document.document_id in names)
    return {d.document_id: _cut(f"{d.title} {d.text}".strip()) for d in found}


def _cut(text: str) -> str:
    text = " ".join(text[: 2 * NUM_CHARACTERS].split())
    return text if len(text) <= NUM_CHARACTERS else text[: NUM_CHARACTERS - 1] + "…"
