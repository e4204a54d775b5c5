"""The real test collections beside the repository, and nDCG@10 as Anserini orders ties."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pytest
import pytrec_eval

from quarry.types import Document, Query, RetrievalSet, Run

SHARED = Path(__file__).resolve().parents[2].parent / "shared"


def real_set(name: str) -> RetrievalSet:
    folder = SHARED / "data" / name
    if not folder.is_dir():
        pytest.skip(f"the test collection {name} is not beside the repository")
    with gzip.open(folder / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
        corpus = [json.loads(line) for line in lines]
    with (folder / "queries.jsonl").open(encoding="utf-8") as lines:
        texts = {row["_id"]: row["text"] for row in map(json.loads, lines)}
    qrels: dict[str, dict[str, int]] = {}
    with (folder / "qrels" / "test.tsv").open(encoding="utf-8") as lines:
        for query_id, document_id, grade in list(csv.reader(lines, delimiter="\t"))[1:]:
            qrels.setdefault(query_id, {})[document_id] = int(grade)
    return RetrievalSet(
        name=name,
        queries=[Query(query_id=query_id, text=texts[query_id]) for query_id in qrels],
        corpus=[
            Document(document_id=row["_id"], text=row["text"], title=row["title"]) for row in corpus
        ],
        qrels=qrels,
    )


def ndcg_at_10_by_query(dataset: RetrievalSet, run: Run) -> dict[str, float]:
    """See `ndcg_by_query`."""
    return ndcg_by_query(dataset, run, cut=10)


def ndcg_by_query(dataset: RetrievalSet, run: Run, *, cut: int) -> dict[str, float]:
    """Of each judged query, ties by document id ascending; 0 for one that found nothing."""
    ordered = {}
    for query_id, scores in run.items():
        best = sorted(scores, key=lambda document_id: (-scores[document_id], document_id))
        ordered[query_id] = {document_id: -float(rank) for rank, document_id in enumerate(best)}
    qrels = {query_id: dict(grades) for query_id, grades in dataset.qrels.items()}
    values = pytrec_eval.RelevanceEvaluator(qrels, {f"ndcg_cut.{cut}"}).evaluate(ordered)
    return {query_id: values.get(query_id, {}).get(f"ndcg_cut_{cut}", 0.0) for query_id in qrels}
