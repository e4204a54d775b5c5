"""Write the report sections on run files of others: origin, coverage, significance tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from quarry.evaluation.given_rankings import GivenRanking, remarks_on
from quarry.evaluation.pair_tests import PairTest
from quarry.evaluation.significance_test import SignificanceTest
from quarry.evaluation.tables import NOT_MEASURED, Table, escaped, markdown_grid, terminal

_TESTS = ("system", "compared with", "set", "difference", "p", "p corrected", "queries")


@dataclass(frozen=True, kw_only=True)
class GivenScores:
    """Content of a report on run files of others, besides their scores.

    Attributes:
        rankings: the scored run files.
        tests: significance tests of differences in the main measure.
        test: settings of the tests.
        measures: report names, the main one first.
    """

    rankings: Sequence[GivenRanking]
    tests: Sequence[PairTest]
    test: SignificanceTest
    measures: Sequence[str]

    def as_document(self) -> dict[str, Any]:
        """Return the content of score.json as plain data."""
        runs = [
            {
                "system": ranking.system,
                "set": ranking.file.set_name,
                "file": str(ranking.file.path),
                "form": ranking.form,
                "tag": ranking.tag,
                "coverage": asdict(ranking.coverage),
                "num_against_scores": ranking.num_against_scores,
                "num_ties_otherwise": ranking.num_ties_otherwise,
                "remarks": remarks_on(ranking, measures=self.measures),
            }
            for ranking in self.rankings
        ]
        pairs = [asdict(each) for each in self.tests]
        return {
            "runs": runs,
            "tests": {"measure": self.measures[0], **asdict(self.test), "pairs": pairs},
        }


def given_sections(scores: GivenScores) -> str:
    """Return the sections of report.md on the runs and their differences, as Markdown."""
    parts = ["## Runs", _runs_grid(scores.rankings)]
    if lines := given_remarks(scores):
        parts.append("\n".join(f"- {escaped(line)}" for line in lines))
    if scores.tests:
        cells = [list(_TESTS), *_test_cells(scores.tests)]
        parts += [
            f"## Differences in {escaped(scores.measures[0])}",
            markdown_grid([[escaped(cell) for cell in row] for row in cells], num_texts=3),
            escaped(_about_tests(scores)),
        ]
    return "\n\n".join(parts) + "\n"


def terminal_tests(scores: GivenScores) -> str:
    """Return the differences as plain text."""
    cells = _test_cells(scores.tests)
    table = Table(
        header=list(_TESTS),
        names=[row[0] for row in cells],
        cells=[row[1:] for row in cells],
        is_best=[],
    )
    return f"Differences in {scores.measures[0]}\n{terminal(table)}\n{_about_tests(scores)}"


def given_remarks(scores: GivenScores) -> list[str]:
    """Return a line for each run that has remarks."""
    has_one_set = len({each.file.set_name for each in scores.rankings}) == 1
    lines = []
    for ranking in scores.rankings:
        if remarks := remarks_on(ranking, measures=scores.measures):
            where = "" if has_one_set else f" on {ranking.file.set_name}"
            lines.append(f"{ranking.system}{where}: {'; '.join(remarks)}")
    return lines


def _about_tests(scores: GivenScores) -> str:
    test = scores.test
    return (
        f"*: paired randomization test over the queries that both have, two-sided, "
        f"{test.num_permutations:,} permutations (exact where there are no more), seed "
        f"{test.seed}; alpha {test.alpha:g} after Holm's correction for {len(scores.tests)} tests."
    )


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
            _p_value(each.p_value),
            f"{_p_value(each.corrected)}{'*' if each.is_significant else ' '}",
            str(each.num_queries),
        ]
        for each in tests
    ]


def _p_value(value: float) -> str:
    return "<0.0001" if value < 0.0001 else f"{value:.4f}"
