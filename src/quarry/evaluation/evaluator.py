"""Runs a retriever over a benchmark and scores it: the one road to every number."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from quarry.errors import UserError
from quarry.evaluation.benchmark import Benchmark, BenchmarkSet
from quarry.metrics.run_files import check_ids
from quarry.metrics.trec import evaluate_run, mean_scores, parse_measure
from quarry.retrieval.encoder import Encoder
from quarry.retrieval.retriever import Retriever
from quarry.types import Report, Run, SetResult

logger = logging.getLogger(__name__)


class Evaluator:
    """Retrieves and scores every set of a benchmark.

    Args:
        benchmark: the sets.
        measures: report names such as "nDCG@10"; the first is the main one.
        top_k: documents kept a query; at least the largest cut among the measures.
        relevance_level: grade from which recall, MAP, P and MRR count a document as relevant.

    Raises:
        UserError: there is no measure, an unknown one, or one that looks deeper than `top_k`.
    """

    def __init__(
        self, *, benchmark: Benchmark, measures: Sequence[str], top_k: int, relevance_level: int
    ) -> None:
        if not measures:
            raise UserError("evaluation.measures is empty: name at least one, such as nDCG@10.")
        deepest = max(parse_measure(measure).k or 1 for measure in measures)
        if top_k < deepest:
            raise UserError(
                f"evaluation.top_k={top_k} is less than the cut of {deepest} in "
                f"evaluation.measures={list(measures)}; set evaluation.top_k={deepest} or more."
            )
        self.benchmark = benchmark
        self.measures = list(measures)
        self.top_k = top_k
        self.relevance_level = relevance_level
        self._checked: set[str] = set()

    def evaluate(
        self, retriever: Retriever, *, name: str | None = None, encoder: Encoder | None = None
    ) -> Report:
        """A report under the name of the retriever, or `name`."""
        results = []
        for benchmark_set in self.benchmark.sets:
            start = time.perf_counter()
            run = self._retrieve(retriever, benchmark_set, encoder)
            result = self.score(run, benchmark_set)
            results.append(result)
            logger.info(
                "%s on %s: %s (%.1f s)",
                name or retriever.name,
                result.name,
                ", ".join(f"{measure} {value:.4f}" for measure, value in result.metrics.items()),
                time.perf_counter() - start,
            )
        return Report(retriever=name or retriever.name, results=tuple(results))

    def score(self, run: Run, benchmark_set: BenchmarkSet) -> SetResult:
        """Scores a ranking; judged queries that it lacks count 0."""
        data = benchmark_set.data
        per_query = evaluate_run(
            qrels=data.qrels,
            run=run,
            measures=self.measures,
            relevance_level=self.relevance_level,
        )
        return SetResult(
            name=benchmark_set.name,
            metrics=mean_scores(per_query),
            per_query=per_query,
            run=run,
            num_queries=len(data.queries),
            num_documents=len(data.corpus),
            convention=self._convention(benchmark_set),
            group=benchmark_set.group,
        )

    def score_all(self, runs: Sequence[Run], *, name: str) -> Report:
        """Scores one ranking for each set of the benchmark, in its order."""
        pairs = zip(runs, self.benchmark.sets, strict=True)
        return Report(retriever=name, results=tuple(self.score(run, s) for run, s in pairs))

    def _retrieve(
        self, retriever: Retriever, benchmark_set: BenchmarkSet, encoder: Encoder | None
    ) -> Run:
        self._check_ids(benchmark_set)
        if not benchmark_set.remove_self_match:
            return retriever.retrieve(benchmark_set.data, top_k=self.top_k, encoder=encoder)
        # one more, so that top_k are left after the query's own document is gone
        run = retriever.retrieve(benchmark_set.data, top_k=self.top_k + 1, encoder=encoder)
        return {query: _without_self(scores, query, self.top_k) for query, scores in run.items()}

    def _check_ids(self, benchmark_set: BenchmarkSet) -> None:
        """Once a set: an id that the run file cannot hold is told before anything is encoded."""
        if benchmark_set.name not in self._checked:
            data = benchmark_set.data
            check_ids(f"{data.name}: query id", (query.query_id for query in data.queries))
            check_ids(f"{data.name}: document id", (each.document_id for each in data.corpus))
            self._checked.add(benchmark_set.name)

    def _convention(self, benchmark_set: BenchmarkSet) -> dict[str, object]:
        return {
            "remove_self_match": benchmark_set.remove_self_match,
            "relevance_level": self.relevance_level,
            "missing_queries": "count as 0",
            "ties": "document id, descending",
            "title": "title and text joined",
            "top_k": self.top_k,
        }


def _without_self(scores: dict[str, float], query_id: str, top_k: int) -> dict[str, float]:
    """Results arrive best first, so the first top_k that are not the query itself are kept."""
    others = [(document, score) for document, score in scores.items() if document != query_id]
    return dict(others[:top_k])
