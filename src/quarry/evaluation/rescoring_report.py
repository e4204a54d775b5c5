"""Format the results of rescoring for the terminal, as `rescore.md` and as `rescore.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from quarry.evaluation.report import corpus_dtypes, term_tokenizers, terminal_table
from quarry.evaluation.rescoring import Change, Means, Rescored
from quarry.evaluation.tables import NOT_MEASURED, escaped, printable
from quarry.types import Report, SetResult

AS_RUN = "as_run"
NO_DIFFERENCE = "no rule makes a difference"


@dataclass(frozen=True, kw_only=True)
class RescoredSet:
    """A run on one set, with its stored result and its rescored ones.

    Attributes:
        result: the stored result, from metrics.json.
        found: the result of `rescore_run`.
    """

    result: SetResult
    found: Rescored


Rescoring = Mapping[str, Sequence[RescoredSet]]
"""Retriever -> its runs."""


def by_convention(sets: Sequence[RescoredSet]) -> list[Report]:
    """Return a report for each convention, the run's own rules first.

    A set that a convention cannot score is left out of its report.
    """
    names = [AS_RUN, *sets[0].found.by_convention]
    return [
        Report(
            retriever=name,
            results=tuple(
                _result(entry.result, means)
                for entry in sets
                if (means := _means(entry.found, name)) is not None
            ),
        )
        for name in names
    ]


def mean_over_sets(report: Report, num_sets: int, measure: str) -> float | None:
    """Return the mean over all sets; None if a set has no value of the measure."""
    is_complete = len(report.results) == num_sets
    if is_complete and all(measure in result.metrics for result in report.results):
        return report.mean(measure)
    return None


def measures_of(sets: Sequence[RescoredSet]) -> list[str]:
    """Return the measures of any set, the main measure first."""
    return list(dict.fromkeys(measure for entry in sets for measure in entry.found.as_run))


def terminal_rescoring(rescoring: Rescoring) -> list[str]:
    """Return text for each retriever: the table, then set by set the rules that change scores."""
    paragraphs = []
    for retriever, sets in rescoring.items():
        table = terminal_table(by_convention(sets), measures=measures_of(sets))
        lines = [line for entry in sets for line in _explained(entry, shows_all=False)]
        paragraphs += [f"{printable(retriever)}\n{table}", "\n".join(lines)]
    return paragraphs


def markdown_rescoring(rescoring: Rescoring) -> str:
    """Return rescore.md: for each retriever a table a measure, and every differing rule by set."""
    parts = ["# One run under several conventions", _HOW_TO_READ]
    for retriever, sets in rescoring.items():
        parts.append(f"## {printable(retriever)}")
        for measure in measures_of(sets):
            parts += [f"### {measure}", _markdown_table(sets, measure)]
        results = tuple(entry.result for entry in sets)
        report = Report(retriever=retriever, results=results)
        parts += [*corpus_dtypes([report]), *map(escaped, term_tokenizers([report]))]
        parts.append("### Which rule makes the difference")
        parts += ["\n".join(_explained(entry, shows_all=True)) for entry in sets]
    return "\n\n".join(parts) + "\n"


def rescoring_document(rescoring: Rescoring) -> dict[str, object]:
    """Return the content of `rescore.json`: retriever -> set -> results at full precision."""
    return {
        retriever: {
            entry.result.name: {**asdict(entry.found), "run": dict(entry.result.convention)}
            for entry in sets
        }
        for retriever, sets in rescoring.items()
    }


_HOW_TO_READ = (
    f"`{AS_RUN}`: scored under the run's own rules. `{NOT_MEASURED}`: the run cannot tell. Below "
    "the tables one rule at a time is replaced by that of a convention, and the others stay those "
    "of the run."
)


def _means(found: Rescored, name: str) -> Means | None:
    return found.as_run if name == AS_RUN else found.by_convention[name]


def _result(stored: SetResult, means: Means) -> SetResult:
    return SetResult(
        name=stored.name,
        metrics=means,
        per_query={},
        run={},
        num_queries=stored.num_queries,
        num_documents=stored.num_documents,
        group=stored.group,
        caveats=stored.caveats,
    )


def _markdown_table(sets: Sequence[RescoredSet], measure: str) -> str:
    reports = by_convention(sets)
    rows = [["set", *(report.retriever for report in reports)]]
    rows.append(["---", *("---:" for _ in reports)])
    for entry in sets:
        means = [_means(entry.found, report.retriever) or {} for report in reports]
        numbers = [_number(found.get(measure)) for found in means]
        rows.append([printable(entry.result.name), *numbers])
    if len(sets) > 1:
        rows.append(["mean", *(_number(mean_over_sets(r, len(sets), measure)) for r in reports)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _number(value: float | None) -> str:
    return NOT_MEASURED if value is None else f"{value:.4f}"


def _explained(entry: RescoredSet, *, shows_all: bool) -> list[str]:
    """Return the set's name, then a line for each rule: all, or those with an effect."""
    lines = []
    effects = [_effect(change, entry.found.as_run) for change in entry.found.changes]
    for change, effect in zip(entry.found.changes, effects, strict=True):
        if effect or shows_all:
            heading = f"{change.rule} {change.before} -> {change.after}"
            who = ", ".join(change.conventions)
            lines.append(f"- {heading} ({who}): {effect or 'no difference'}")
    if not any(effects):
        lines.append(f"- {NO_DIFFERENCE}")
    return [
        f"{printable(entry.result.name)}:",
        *lines,
        *(f"- {text}" for text in entry.found.cautions),
    ]


def _effect(change: Change, as_run: Means) -> str | None:
    """Describe the effect of the replaced rule; None if there is none."""
    if change.means is None:
        return change.obstacle
    moved = [
        f"{measure} {value:.5f} -> {change.means[measure]:.5f}"
        for measure, value in as_run.items()
        if change.means[measure] != value
    ]
    return ", ".join(moved) or None
