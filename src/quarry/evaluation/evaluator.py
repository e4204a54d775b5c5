"""Run a retriever over the sets of a benchmark and score its rankings under a convention."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace

from quarry.distributed import world
from quarry.errors import UserError
from quarry.evaluation.benchmark import Benchmark, BenchmarkSet
from quarry.evaluation.collection_views import AscendingTies, without_titles
from quarry.evaluation.constant_rankings import constant_ranking
from quarry.evaluation.convention import Convention
from quarry.evaluation.reading import read_sets, reading_error
from quarry.evaluation.retrieval_times import RetrievalTimes
from quarry.evaluation.scoring import check_range, cut_run, score_run
from quarry.metrics.trec import mean_scores, parse_measure
from quarry.retrieval.embeddings import TextEncoder
from quarry.retrieval.retriever import LexicalRetriever, Retriever
from quarry.types import Report, RetrievalSet, Run, SetResult

logger = logging.getLogger(__name__)


class Evaluator:
    """Retrieves and scores every set of a benchmark.

    Args:
        benchmark: the sets.
        measures: report names such as "nDCG@10"; the first is the main one.
        top_k: documents retrieved for each query; at least the largest cutoff of the measures.
        convention: rules for making and scoring rankings.
        corpus_dtype: dtype in which encoders hold corpus embeddings; recorded in the results of
            retrievers that use an encoder.

    Attributes:
        times: seconds spent on encoding and search so far.

    Raises:
        UserError: there is no measure, an unknown one, or one with a cutoff above `top_k`.
    """

    def __init__(
        self,
        *,
        benchmark: Benchmark,
        measures: Sequence[str],
        top_k: int,
        convention: Convention,
        corpus_dtype: str = "float32",
    ) -> None:
        if not measures:
            raise UserError("evaluation.measures=[]: name at least one measure, such as nDCG@10.")
        deepest = max(parse_measure(measure).k or 1 for measure in measures)
        if top_k < deepest:
            raise UserError(
                f"evaluation.top_k={top_k} is less than the cutoff of {deepest} in "
                f"evaluation.measures={list(measures)}. Fix: evaluation.top_k={deepest} or more."
            )
        self.benchmark = benchmark
        self.measures = list(measures)
        self.top_k = top_k
        self.convention = convention
        self.corpus_dtype = corpus_dtype
        self.times = RetrievalTimes()
        self._logged: set[str] = set()
        self._warn_of_a_flag_without_effect()

    def evaluate(
        self, retriever: Retriever, *, name: str | None = None, encoder: TextEncoder | None = None
    ) -> Report:
        """Evaluate a retriever on every set; return a report named `name`, or as the retriever.

        A set that fails, for whatever reason, is logged and listed in the report's failures;
        evaluation continues with the others. With several ranks only sets that cannot be read are
        left out: a later failure on one rank would let the others wait for it.

        Raises:
            UserError: every set failed. With a single set its own error is raised.
        """
        name = name or retriever.name
        results: list[SetResult] = []
        failures: dict[str, str] = {}
        for benchmark_set in self.benchmark.sets:
            is_read = False
            try:
                self._read(benchmark_set)
                is_read = True
                results.append(self._evaluate_set(retriever, benchmark_set, name, encoder))
            except Exception as error:
                if len(self.benchmark.sets) == 1 or (is_read and world.size() > 1):
                    raise
                failures[benchmark_set.name] = _reason(error)
                logger.error("%s on %s failed: %s", name, benchmark_set.name, _reason(error))
                logger.debug("%s on %s failed", name, benchmark_set.name, exc_info=True)
        if not results:
            raise UserError(f"{name} failed on every set: {', '.join(failures)}. Errors are above.")
        return Report(retriever=name, results=tuple(results), failures=failures)

    def read(self, *, needs_all: bool) -> None:
        """Read the sets before expensive work; see `read_sets`."""
        read_sets(self.benchmark, self.convention, needs_all=needs_all)

    def _evaluate_set(
        self,
        retriever: Retriever,
        benchmark_set: BenchmarkSet,
        name: str,
        encoder: TextEncoder | None,
    ) -> SetResult:
        start = time.perf_counter()
        run = self._retrieve(retriever, benchmark_set, encoder)
        result = self.score(run, benchmark_set)
        if retriever.uses_encoder:
            result = replace(result, corpus_dtype=self.corpus_dtype)
        if isinstance(retriever, LexicalRetriever):
            terms = retriever.term_tokenizer(benchmark_set.data.content)
            result = replace(result, term_tokenizer=terms)
        if (constant := constant_ranking(run)) is not None:
            logger.warning("%s on %s: %s", name, result.name, constant)
            result = replace(result, caveats=(*result.caveats, f"{name}: {constant}"))
        logger.info(
            "%s on %s: %s (%.1f s)",
            name,
            result.name,
            ", ".join(f"{measure} {value:.4f}" for measure, value in result.metrics.items()),
            time.perf_counter() - start,
        )
        return result

    def score(self, run: Run, benchmark_set: BenchmarkSet) -> SetResult:
        """Score a run under the convention; the result's run lacks the documents it removes.

        Raises:
            RuntimeError: a value is outside 0 to 1.
        """
        data, rules = benchmark_set.data, self.convention.rules_on(benchmark_set)
        run = cut_run(run, rules, top_k=self.top_k)
        per_query = score_run(run, data.qrels, rules, measures=self.measures)
        check_range(per_query, set_name=benchmark_set.name)
        return SetResult(
            name=benchmark_set.name,
            metrics=mean_scores(per_query),
            per_query=per_query,
            run=run,
            num_queries=len(data.queries),
            num_documents=len(data.corpus),
            convention=self.convention.record(benchmark_set) | {"top_k": self.top_k},
            group=benchmark_set.group,
            source=data.source,
            licence=benchmark_set.licence,
            caveats=data.caveats,
        )

    def collection(self, benchmark_set: BenchmarkSet) -> RetrievalSet:
        """Return the collection to search, with the convention's titles and self matches."""
        rules = self.convention.rules_on(benchmark_set)
        data = benchmark_set.data if rules.uses_title else without_titles(benchmark_set.data)
        if not rules.removes_self_match:
            return data
        return replace(data, self_matches={q.query_id: q.query_id for q in data.queries})

    def _retrieve(
        self, retriever: Retriever, benchmark_set: BenchmarkSet, encoder: TextEncoder | None
    ) -> Run:
        data, rules = self.collection(benchmark_set), self.convention.rules_on(benchmark_set)
        # one more, so that top_k remain after the query's own document is removed
        top_k = self.top_k + 1 if rules.removes_self_match else self.top_k
        if rules.ties == "descending":
            run = self.times.measure(
                lambda timed: retriever.retrieve(data, top_k=top_k, encoder=timed), encoder
            )
        else:
            view = AscendingTies(data)
            run = self.times.measure(
                lambda timed: retriever.retrieve(view.data, top_k=top_k, encoder=timed), encoder
            )
            run = view.restore(run)
        self._log_kept_self_matches(run, benchmark_set)
        return run

    def _log_kept_self_matches(self, run: Run, benchmark_set: BenchmarkSet) -> None:
        """Log self matches that are not removed, once a set: training evaluates repeatedly."""
        rules, name = self.convention.rules_on(benchmark_set), benchmark_set.name
        if (
            self.convention.self_match != "always"
            or rules.removes_self_match
            or name in self._logged
        ):
            return
        if num_found := sum(query_id in scores for query_id, scores in run.items()):
            logger.info(
                "%s: %d of %d queries found a document with their own id. It is not removed: ids "
                "may be equal by accident. Fix, if they mean the same text: "
                "benchmark.remove_self_match=true",
                name,
                num_found,
                len(run),
            )
            self._logged.add(name)

    def _warn_of_a_flag_without_effect(self) -> None:
        sets = self.benchmark.sets
        is_asked = any(entry.ids_may_collide and entry.remove_self_match for entry in sets)
        if is_asked and self.convention.self_match == "never":
            logger.warning(
                "benchmark.remove_self_match=true has no effect: convention=%s keeps every self "
                "match. Fix: leave it out, or set convention.self_match=set",
                self.convention.name,
            )

    def _read(self, benchmark_set: BenchmarkSet) -> None:
        """Load a set on all ranks before anything is encoded; raise if any rank cannot.

        A rank that continued alone would wait for the others forever. Ranks exchange the outcome
        every time: rank 0 may have loaded the set alone before, for a baseline.
        """
        error = reading_error(benchmark_set, self.convention)
        reasons = world.gathered(None if error is None else _reason(error))
        if error is not None:
            raise error
        if reason := next(filter(None, reasons), None):
            raise UserError(f"On another rank: {reason}")


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
