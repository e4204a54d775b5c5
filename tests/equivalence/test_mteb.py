"""convention=mteb gives the numbers of mteb's own evaluator on the same embeddings, to 1e-5.

mteb rounds nDCG and recall to five digits, which is up to 5e-6; the rest is summation order. The
embeddings are coarse, so that many documents tie, and exact in fp32, so that both sides see the
same ties.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import mteb
import numpy as np
import pytest
import torch
from torch import Tensor

from helpers.conventions import convention
from helpers.mteb_tasks import MEASURES, scores_of
from quarry.data.beir import read_beir
from quarry.data.prompts import joined_text
from quarry.evaluation.benchmark import Benchmark, BenchmarkSet
from quarry.evaluation.evaluator import Evaluator
from quarry.retrieval.dense import DenseRetriever
from quarry.retrieval.embeddings import EmbeddingShare, GatheredEmbeddings
from quarry.retrieval.index.exact import ExactIndex
from quarry.types import Document, Query, RetrievalSet, Role, SetResult

NUM_DIMENSIONS = 256
NUM_STEPS = 64  # a component is a multiple of 1/64: products and their sums are exact in fp32
TOLERANCE = 1e-5


def embeddings_of(texts: Sequence[str]) -> Tensor:
    """A hashed bag of words, normalised and rounded: [num_texts, NUM_DIMENSIONS]."""
    rows = np.zeros((len(texts), NUM_DIMENSIONS))
    for row, text in zip(rows, texts, strict=True):
        for word in re.findall(r"\w+", text.lower()):
            row[crc32(word.encode()) % NUM_DIMENSIONS] += 1
    norms = np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1)
    return torch.from_numpy(np.round(rows / norms * NUM_STEPS) / NUM_STEPS).float()


class OurEncoder:
    """What the evaluator needs of an encoder."""

    device = torch.device("cpu")

    def encode(self, items: Sequence[Query | Document], role: Role, *, label: str = "") -> Tensor:
        return embeddings_of([joined_text(i) if role == "document" else i.text for i in items])  # type: ignore[arg-type]

    def encode_share(
        self, items: Sequence[Query | Document], role: Role, *, label: str = ""
    ) -> EmbeddingShare:
        rows = np.arange(len(items))
        vectors = self.encode(items, role)
        whole = GatheredEmbeddings(
            parts=[(0, vectors.numpy())], rows=rows, dim=vectors.shape[1], dtype=vectors.dtype
        )
        return EmbeddingShare(items=rows, embeddings=whole)


class TheirEncoder:
    """What mteb needs of an encoder; it joins titles and texts itself."""

    mteb_model_meta = mteb.models.ModelMeta.create_empty({"name": "test/bag_of_words"})

    def encode(self, inputs: Any, **_: Any) -> Tensor:
        return embeddings_of([text for batch in inputs for text in batch["text"]])

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        return mteb.similarity_functions.dot_score(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        return mteb.similarity_functions.pairwise_dot_score(embeddings1, embeddings2)


def ours(
    data: RetrievalSet, *, remove_self_match: bool = False, rules: str = "mteb", top_k: int = 100
) -> SetResult:
    benchmark_set = BenchmarkSet(
        name=data.name, load=lambda: data, remove_self_match=remove_self_match
    )
    evaluator = Evaluator(
        benchmark=Benchmark(name="b", sets=[benchmark_set]),
        measures=[*MEASURES],
        top_k=top_k,
        convention=convention(rules),
    )
    retriever = DenseRetriever(index=ExactIndex())
    return evaluator.evaluate(retriever, encoder=OurEncoder()).results[0]  # type: ignore[arg-type]


def theirs(data: RetrievalSet, task: Any) -> dict[str, float]:
    return scores_of(data, task, TheirEncoder())


def num_tied_at(result: SetResult, rank: int) -> int:
    """Queries whose documents at this rank and the next have one score."""
    ranked = [sorted(scores.values(), reverse=True) for scores in result.run.values()]
    return sum(scores[rank - 1] == scores[rank] for scores in ranked)


@pytest.mark.parametrize(("name", "task"), [("scifact", "SciFact"), ("cosqa", "CosQA")])
def test_real_sets(name: str, task: str, shared_data: Path, tmp_path: Path) -> None:
    data = read_beir(path=shared_data / name, split="test", cache_dir=tmp_path)
    result = ours(data)
    expected = theirs(data, mteb.get_task(task))
    assert expected["nDCG@10"] > 0.03
    assert result.metrics == pytest.approx(expected, abs=TOLERANCE, rel=0)

    assert num_tied_at(result, 10) > 10
    other = ours(data, rules="pyserini").metrics  # ties the other way round
    assert abs(other["nDCG@10"] - expected["nDCG@10"]) > 10 * TOLERANCE


def made_set(*, num_documents: int, num_queries: int, num_words: int) -> RetrievalSet:
    """Texts of few words, so nearly all tie; the queries have ids of documents."""
    rng = np.random.default_rng(0)

    def text() -> str:
        return " ".join(f"w{number}" for number in rng.integers(num_words, size=4))

    corpus = [
        Document(document_id=f"d{i}", text=text(), title=text() if i % 2 else "")
        for i in range(num_documents)
    ]
    queries = [Query(query_id=f"d{i}", text=corpus[i].text) for i in range(num_queries)]
    qrels = {
        query.query_id: Counter(
            {f"d{i}": int(rng.integers(0, 3)) for i in rng.integers(num_documents, size=5)}
        )
        for query in queries
    }
    return RetrievalSet(name="made", queries=queries, corpus=corpus, qrels=qrels)


@pytest.mark.parametrize("ignores", [True, False])
def test_self_matches_titles_and_grades_on_a_set_that_nearly_ties(ignores: bool) -> None:
    data = made_set(num_documents=300, num_queries=60, num_words=6)
    task = mteb.get_task("SciFact")
    task.ignore_identical_ids = ignores
    expected = theirs(data, task)
    result = ours(data, remove_self_match=ignores)
    assert result.metrics == pytest.approx(expected, abs=TOLERANCE, rel=0)

    other = ours(data, remove_self_match=not ignores).metrics
    assert abs(other["nDCG@10"] - expected["nDCG@10"]) > 10 * TOLERANCE
    untitled = ours(data, remove_self_match=ignores, rules="coir").metrics
    assert abs(untitled["nDCG@10"] - expected["nDCG@10"]) > 10 * TOLERANCE


def test_a_query_that_finds_nothing_counts_in_both() -> None:
    from mteb._evaluators.retrieval_metrics import calculate_retrieval_scores

    qrels = {"q1": {"a": 1}, "q2": {"a": 1}}
    scores = calculate_retrieval_scores({"q1": {"a": 1.0}, "q2": {}}, qrels, [10, 100])
    assert scores.ndcg["NDCG@10"] == scores.recall["Recall@100"] == scores.mrr["MRR@10"] == 0.5
    assert convention("mteb").missing_queries == "zero"
