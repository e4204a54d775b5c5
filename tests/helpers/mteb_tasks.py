"""Runs tasks of mteb on other data than those on the hub."""

from __future__ import annotations

from typing import Any

from quarry.types import RetrievalSet

MEASURES = {"nDCG@10": "ndcg_at_10", "Recall@100": "recall_at_100", "MRR@10": "mrr_at_10"}
"""Name in reports -> mteb's."""


def scores_of(data: RetrievalSet, task: Any, encoder: Any) -> dict[str, float]:
    """Scores of a task of mteb whose data are these, by its own search and evaluator."""
    from datasets import Dataset

    corpus = [{"id": d.document_id, "title": d.title, "text": d.text} for d in data.corpus]
    task.dataset = {
        "default": {
            "test": {
                "corpus": Dataset.from_list(corpus),
                "queries": Dataset.from_list(
                    [{"id": query.query_id, "text": query.text} for query in data.queries]
                ),
                "relevant_docs": {q: dict(grades) for q, grades in data.qrels.items()},
                "top_ranked": None,
            }
        }
    }
    task.data_loaded = True
    options = {"batch_size": 1024, "show_progress_bar": False}
    scores = task.evaluate(encoder, "test", encode_kwargs=options)["default"]
    return {ours: scores[theirs] for ours, theirs in MEASURES.items()}
