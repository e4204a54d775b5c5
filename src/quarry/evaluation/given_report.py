"""What a report says of rankings that are given: where they come from, what they cover, tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from quarry.evaluation.given_rankings import GivenRanking, remarks_on
from quarry.evaluation.pair_tests import PairTest
from quarry.evaluation.study.comparisons import SignificanceTest
from quarry.evaluation.tables import NOT_MEASURED, Table, escaped, markdown_grid, terminal

_TESTS = ("system", "compared with", "set", "difference", "p", "p corrected", "queries")


def given_sections(
    rankings: Sequence[GivenRanking],
    tests: Sequence[PairTest],
    *,
    measures: Sequence[str],
    test: SignificanceTest,
) -> str:
    """Return the sections of report.md on the runs and on their differences, as Markdown."""
    parts = ["## Runs", _runs_grid(rankings)]
    lines = [
        f"- {escaped(_named(ranking, rankings))}: {escaped('; '.join(remarks))}."
        for ranking in rankings
        if (remarks := remarks_on(ranking, measures=measures))
    ]
    if lines:
        parts.append("\n".join(lines))
    if tests:
        cells = [list(_TESTS), *_test_cells(tests)]
        names = [[*map(escaped, row[:3]), *row[3:]] for row in cells]
        parts += [f"## Differences in {escaped(measures[0])}"]
        parts += [markdown_grid(names, num_texts=3), about_tests(tests, test)]
    return "\n\n".join(parts) + "\n"


def terminal_tests(tests: Sequence[PairTest], test: SignificanceTest, *, measure: str) -> str:
    """Return the differences as plain text."""
    cells = _test_cells(tests)
    table = Table(
        header=list(_TESTS),
        names=[row[0] for row in cells],
        cells=[row[1:] for row in cells],
        is_best=[],
    )
    return f"Differences in {measure}\n{terminal(table)}\n{about_tests(tests, test)}"


def terminal_remarks(rankings: Sequence[GivenRanking], *, measures: Sequence[str]) -> list[str]:
    """Return a line for each run that there is something to say of."""
    return [
        f"{_named(ranking, rankings)}: {'; '.join(remarks)}"
        for ranking in rankings
        if (remarks := remarks_on(ranking, measures=measures))
    ]


def about_tests(tests: Sequence[PairTest], test: SignificanceTest) -> str:
    """Say how the differences were tested."""
    return (
        f"*: paired randomisation test over the queries that both have, two-sided, "
        f"{test.num_permutations:,} permutations (exact where there are no more), seed "
        f"{test.seed}; alpha {test.alpha:g} after Holm's correction for {len(tests)} tests."
    )


def given_document(
    rankings: Sequence[GivenRanking],
    tests: Sequence[PairTest],
    *,
    measures: Sequence[str],
    test: SignificanceTest,
) -> dict[str, Any]:
    """Return the content of score.json as plain data."""
    return {
        "runs": [
            {
                "system": ranking.system,
                "set": ranking.file.set_name,
                "file": str(ranking.file.path),
                "form": ranking.form,
                "tag": ranking.tag,
                "coverage": asdict(ranking.coverage),
                "num_against_scores": ranking.num_against_scores,
                "num_ties_otherwise": ranking.num_ties_otherwise,
                "remarks": remarks_on(ranking, measures=measures),
            }
            for ranking in rankings
        ],
        "tests": {"measure": measures[0], **asdict(test), "pairs": [asdict(t) for t in tests]},
    }


def _runs_grid(rankings: Sequence[GivenRanking]) -> str:
    cells = [
        ["system", "set", "file", "form", "answered", "of judged", "not judged", "not in corpus"]
    ]
    for ranking in rankings:
        found = ranking.coverage
        unknown = found.num_unknown_documents
        cells.append(
            [
                *map(escaped, (ranking.system, ranking.file.set_name, ranking.file.path.name)),
                ranking.form,
                str(found.num_answered),
                str(found.num_judged),
                str(found.num_unjudged),
                NOT_MEASURED if unknown is None else str(unknown),
            ]
        )
    return markdown_grid(cells, num_texts=4)


def _test_cells(tests: Sequence[PairTest]) -> list[list[str]]:
    return [
        [
            each.first,
            each.second,
            each.where,
            f"{each.difference:+.4f}",
            f"{each.p_value:.4f}",
            f"{each.corrected:.4f}{'*' if each.is_significant else ' '}",
            str(each.num_queries),
        ]
        for each in tests
    ]


def _named(ranking: GivenRanking, rankings: Sequence[GivenRanking]) -> str:
    """The system, and where there are several sets also the set."""
    is_one = len({each.file.set_name for each in rankings}) == 1
    return ranking.system if is_one else f"{ranking.system} on {ranking.file.set_name}"
