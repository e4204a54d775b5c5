"""Score run files of other systems, and count how they and the judgements overlap."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from quarry.data.corpus import Corpus
from quarry.errors import UserError
from quarry.evaluation.benchmark import BenchmarkSet
from quarry.evaluation.evaluator import Evaluator
from quarry.evaluation.given_files import GivenFile, system_names
from quarry.metrics.given_run import Form, GivenRun, read_given_run
from quarry.metrics.trec import parse_measure
from quarry.types import Report, RetrievalSet, SetResult

logger = logging.getLogger(__name__)

SCORING = "quarry.tasks.score.score"
"""`_target_` of the task that scores run files of other systems."""

TITLE = "no effect: the ranking is given"
NO_RUN = "no run of it was given"


@dataclass(frozen=True, kw_only=True, slots=True)
class Coverage:
    """Overlap of a run with the queries and documents of a set.

    Attributes:
        num_judged: judged queries of the set.
        num_answered: judged queries with at least one document in the run.
        num_unjudged: queries of the run without judgements; they are not scored.
        num_unknown_documents: distinct documents of the run that the corpus lacks; they keep
            their ranks. None: there is no corpus.
        depth: length of the longest ranking.
    """

    num_judged: int
    num_answered: int
    num_unjudged: int
    num_unknown_documents: int | None
    depth: int


@dataclass(frozen=True, kw_only=True, slots=True)
class GivenRanking:
    """A scored run file: its system, its format, and how it fits the set.

    Attributes:
        system: name of the system.
        file: the run file, and its set.
        form: format of its lines.
        tag: its sixth column.
        coverage: overlap with the set.
        num_against_scores: queries whose rank column contradicts the scores; scores decide.
        num_ties_otherwise: queries whose rank column orders tied documents differently from the
            convention's tie-breaking.
    """

    system: str
    file: GivenFile
    form: Form
    tag: str | None
    coverage: Coverage
    num_against_scores: int
    num_ties_otherwise: int


def score_given(
    files: Sequence[GivenFile],
    evaluator: Evaluator,
    *,
    names: Sequence[object] | None,
    is_cut: bool,
) -> tuple[list[Report], list[GivenRanking]]:
    """Score run files; return a report for each system, and each file's coverage.

    Sets are in the order of the benchmark. A system without a run on a set that another system has
    gets a failure there, so that no mean includes the set.

    Args:
        names: names of the systems, one a file; None: tags, or names of files.
        is_cut: rankings are cut at the evaluator's `top_k`; otherwise they count in full.

    Raises:
        UserError: a file cannot be read, or answers no judged query.
    """
    sets = {entry.name: entry for entry in evaluator.benchmark.sets}
    results: list[SetResult] = []
    rankings: list[GivenRanking] = []
    for file in files:
        given = read_given_run(file.path)
        benchmark_set = sets[file.set_name]
        coverage = coverage_of(given, benchmark_set.data)
        results.append(_score(given, benchmark_set, evaluator, is_cut=is_cut))
        rankings.append(_ranking(given, file, coverage, benchmark_set, evaluator))
    chosen = system_names(files, [each.tag for each in rankings], names)
    rankings = [replace(r, system=name) for r, name in zip(rankings, chosen, strict=True)]
    return _reports(results, chosen, list(sets)), rankings


def coverage_of(given: GivenRun, data: RetrievalSet) -> Coverage:
    """Count the overlap of a run with a set.

    Raises:
        UserError: the run has no judged query at all.
    """
    num_answered = sum(query_id in given.run for query_id in data.qrels)
    if not num_answered:
        raise UserError(
            f"task.runs={given.path}: none of its {len(given.run)} queries is judged in "
            f"{data.name} (it has {next(iter(given.run))!r}, the judgements have "
            f"{next(iter(data.qrels))!r}). Fix: name the run of this set, or the judgements of "
            "this run."
        )
    return Coverage(
        num_judged=len(data.qrels),
        num_answered=num_answered,
        num_unjudged=len(given.run) - num_answered,
        num_unknown_documents=_num_unknown(given, data) if len(data.corpus) else None,
        depth=given.depth,
    )


def remarks_on(ranking: GivenRanking, *, measures: Sequence[str]) -> list[str]:
    """Return remarks on a run's possible mistakes, such as unanswered queries, a clause each."""
    found = ranking.coverage
    num_queries = found.num_answered + found.num_unjudged
    counts = {
        "judged queries without a ranking": (
            found.num_judged - found.num_answered,
            found.num_judged,
        ),
        "queries without judgements, which are not scored": (found.num_unjudged, num_queries),
        "queries whose ranks contradict scores (scores decide, as in trec_eval)": (
            ranking.num_against_scores,
            num_queries,
        ),
        "queries whose ranks order ties differently from the convention (ids decide)": (
            ranking.num_ties_otherwise,
            num_queries,
        ),
    }
    remarks = [f"{what}: {number} of {total}" for what, (number, total) in counts.items() if number]
    if found.num_unknown_documents:
        remarks.append(f"documents that are not in the corpus: {found.num_unknown_documents}")
    deeper = [name for name in measures if (parse_measure(name).k or 0) > found.depth]
    if deeper:
        remarks.append(f"rankings end at {found.depth}, before the cutoff of {', '.join(deeper)}")
    return remarks


def _num_unknown(given: GivenRun, data: RetrievalSet) -> int:
    ranked = sorted({document_id for scores in given.run.values() for document_id in scores})
    if isinstance(data.corpus, Corpus):
        return int((data.corpus.rows_of(ranked) < 0).sum())
    known = {document.document_id for document in data.corpus}
    return sum(document_id not in known for document_id in ranked)


def _score(
    given: GivenRun, benchmark_set: BenchmarkSet, evaluator: Evaluator, *, is_cut: bool
) -> SetResult:
    qrels = benchmark_set.data.qrels
    judged = {query_id: given.run[query_id] for query_id in qrels if query_id in given.run}
    result = evaluator.score(judged, benchmark_set)
    convention = {k: v for k, v in result.convention.items() if k != "title_rule"}
    convention |= {"title": TITLE, "top_k": evaluator.top_k if is_cut else "all"}
    return replace(result, convention=convention)


def _ranking(
    given: GivenRun,
    file: GivenFile,
    coverage: Coverage,
    benchmark_set: BenchmarkSet,
    evaluator: Evaluator,
) -> GivenRanking:
    ties = evaluator.convention.rules_on(benchmark_set).ties
    return GivenRanking(
        system=file.name,
        file=file,
        form=given.form,
        tag=given.tag,
        coverage=coverage,
        num_against_scores=given.num_against_scores(),
        num_ties_otherwise=given.num_ties_otherwise(ties),
    )


def _reports(
    results: Sequence[SetResult], systems: Sequence[str], sets: Sequence[str]
) -> list[Report]:
    by_system: dict[str, dict[str, SetResult]] = {}
    for result, system in zip(results, systems, strict=True):
        by_system.setdefault(system, {})[result.name] = result
    measured = {result.name for result in results}
    shown = [name for name in sets if name in measured]
    return [
        Report(
            retriever=system,
            results=tuple(found[name] for name in shown if name in found),
            failures={name: NO_RUN for name in shown if name not in found},
        )
        for system, found in by_system.items()
    ]
