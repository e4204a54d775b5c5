"""Score a run file under several conventions, and find the rules that change the scores.

What a run file cannot tell is not guessed: whether titles were encoded cannot be changed
afterwards, and documents that were removed before the run was written are missing from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace

from quarry.data.corpus import Corpus
from quarry.evaluation.benchmark import BenchmarkSet
from quarry.evaluation.convention import Convention, Rules
from quarry.evaluation.scoring import cut_run, score_run
from quarry.metrics.trec import mean_scores, parse_measure
from quarry.types import Qrels, RetrievalSet, Run

Means = Mapping[str, float]
"""Measure -> mean over the queries."""

RECORD_KEYS = {
    "uses_title": "title",
    "removes_self_match": "self_match",
    "ties": "ties",
    "missing_queries": "missing_queries",
    "caps_recall": "recall",
    "relevance_level": "relevance_level",
}
"""Field of `Rules` -> key in `Rules.record`."""

NEEDS_ENCODING = (
    "titles are part of what was encoded: needs a new encoding, convention.title={value}"
)
NEEDS_SEARCH = "the run was written without them: needs a new search, convention.self_match=never"


@dataclass(frozen=True, kw_only=True)
class Change:
    """Effect of replacing one rule of the run by that of other conventions.

    Attributes:
        rule: name of the rule, a key of `Rules.record`.
        before, after: its value for the run, and for the conventions.
        conventions: names of these conventions.
        means: means with the rule replaced; None if the run cannot tell.
        obstacle: why it cannot tell, and what would.
    """

    rule: str
    before: str
    after: str
    conventions: tuple[str, ...]
    means: Means | None
    obstacle: str | None = None


@dataclass(frozen=True, kw_only=True)
class Rescored:
    """Scores of a run of one set under all conventions.

    Attributes:
        as_run: means under the run's own rules.
        by_convention: convention -> means; None if the run cannot tell.
        changes: effect of every rule in which a convention differs from the run.
        cautions: reasons why the means may be inexact.
    """

    as_run: Means
    by_convention: Mapping[str, Means | None]
    changes: tuple[Change, ...]
    cautions: tuple[str, ...]


def rescore_run(
    run: Run,
    benchmark_set: BenchmarkSet,
    *,
    own: Rules,
    conventions: Mapping[str, Convention],
    measures: Sequence[str],
    top_k: int,
) -> Rescored:
    """Score a run under each convention, and with each differing rule replaced on its own.

    Args:
        run: the run as it was written, at most `top_k` documents a query.
        own: the rules that it was made under.

    Raises:
        UserError: as `quarry.metrics.trec.evaluate_run`.
    """
    wanted = {name: entry.rules_on(benchmark_set) for name, entry in conventions.items()}
    others = tuple(wanted.values())
    obstacles = _obstacles(benchmark_set.data, own, others)
    scorer = _Scorer(run=run, qrels=benchmark_set.data.qrels, measures=measures, top_k=top_k)
    by_convention = {
        name: None
        if any(_differ(rules, own, field) for field in obstacles)
        else scorer.means(rules)
        for name, rules in wanted.items()
    }
    changes = (
        _change(own, changed, names, obstacles=obstacles, scorer=scorer)
        for changed, names in _single_changes(own, wanted).items()
    )
    return Rescored(
        as_run=scorer.means(own),
        by_convention=by_convention,
        changes=tuple(changes),
        cautions=(
            *_accidents(run, benchmark_set),
            *_cautions(run, own, others, measures=measures, top_k=top_k),
        ),
    )


class _Scorer:
    """Scores a run under different rules, and caches the means by rules."""

    def __init__(self, *, run: Run, qrels: Qrels, measures: Sequence[str], top_k: int) -> None:
        self._run = run
        self._qrels = qrels
        self._measures = measures
        self._top_k = top_k
        self._known: dict[Rules, Means] = {}

    def means(self, rules: Rules) -> Means:
        if rules not in self._known:
            cut = cut_run(self._run, rules, top_k=self._top_k)
            values = score_run(cut, self._qrels, rules, measures=self._measures)
            self._known[rules] = mean_scores(values)
        return self._known[rules]


def _change(
    own: Rules,
    changed: Rules,
    names: Sequence[str],
    *,
    obstacles: Mapping[str, str],
    scorer: _Scorer,
) -> Change:
    """Return the effect of the one rule in which `changed` differs from `own`."""
    (field,) = (entry.name for entry in fields(Rules) if _differ(changed, own, entry.name))
    rule = RECORD_KEYS[field]
    return Change(
        rule=rule,
        before=str(own.record()[rule]),
        after=str(changed.record()[rule]),
        conventions=tuple(names),
        means=None if field in obstacles else scorer.means(changed),
        obstacle=obstacles.get(field),
    )


def _differ(first: Rules, second: Rules, field: str) -> bool:
    return bool(getattr(first, field) != getattr(second, field))


def _single_changes(own: Rules, wanted: Mapping[str, Rules]) -> dict[Rules, list[str]]:
    """Return the run's rules with one rule replaced -> the conventions that have that rule."""
    changes: dict[Rules, list[str]] = {}
    for entry in fields(Rules):
        for name, rules in wanted.items():
            if _differ(rules, own, entry.name):
                changed = replace(own, **{entry.name: getattr(rules, entry.name)})
                changes.setdefault(changed, []).append(name)
    return changes


def _obstacles(data: RetrievalSet, own: Rules, wanted: Sequence[Rules]) -> dict[str, str]:
    """Return the fields of `Rules` that cannot be changed after the search -> why.

    Title rules do not matter for a set without titles, nor self-match rules for a set whose
    queries share no id with a document.
    """
    obstacles = {}
    if any(rules.uses_title != own.uses_title for rules in wanted) and _has_titles(data):
        value = "none" if own.uses_title else "joined"
        obstacles["uses_title"] = NEEDS_ENCODING.format(value=value)
    is_removed = own.removes_self_match and not all(rules.removes_self_match for rules in wanted)
    if is_removed and _shares_ids(data):
        obstacles["removes_self_match"] = NEEDS_SEARCH
    return obstacles


def _has_titles(data: RetrievalSet) -> bool:
    return any(document.title for document in data.corpus)


def _shares_ids(data: RetrievalSet) -> bool:
    query_ids = {query.query_id for query in data.queries}
    if isinstance(data.corpus, Corpus):  # it has an index of ids
        return bool((data.corpus.rows_of(sorted(query_ids)) >= 0).any())
    return any(document.document_id in query_ids for document in data.corpus)


def _accidents(run: Run, benchmark_set: BenchmarkSet) -> Iterator[str]:
    """Warn about query ids that are also document ids, which may be equal by accident."""
    if not benchmark_set.ids_may_collide or benchmark_set.remove_self_match:
        return
    if num_found := sum(query_id in scores for query_id, scores in run.items()):
        yield (
            f"self_match: {num_found} queries found a document with their own id, which no "
            "convention removes, since ids may be equal by accident; to see the effect of removing "
            "it: benchmark.remove_self_match=true"
        )


def _cautions(
    run: Run, own: Rules, wanted: Sequence[Rules], *, measures: Sequence[str], top_k: int
) -> Iterator[str]:
    """Warn where truncation at `top_k` may change a measure of that depth."""
    deep = [name for name in measures if (parse_measure(name).k or top_k) >= top_k]
    if not deep:
        return
    full = {query_id: scores for query_id, scores in run.items() if len(scores) >= top_k}
    removes = any(rules.removes_self_match for rules in wanted) and not own.removes_self_match
    num_short = sum(query_id in scores for query_id, scores in full.items())
    if removes and num_short:
        yield (
            f"self_match: without its own document the ranking of {num_short} queries has "
            f"{top_k - 1} documents, one fewer than a new search would give: "
            f"{', '.join(deep)} may be too low"
        )
    num_tied = sum(_ends_in_a_tie(scores) for scores in full.values())
    if num_tied and any(rules.ties != own.ties for rules in wanted):
        yield (
            f"ties: the ranking of {num_tied} queries may have been cut among tied documents, and "
            f"those behind the cut are not in the run: {', '.join(deep)} may differ from a new "
            "search"
        )


def _ends_in_a_tie(scores: Mapping[str, float]) -> bool:
    lowest = sorted(scores.values())[:2]
    return len(lowest) == 2 and lowest[0] == lowest[1]
