"""Numbers under other rules, of other versions or on other queries never share a column."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from helpers.study_runs import a_set, entries_in, tables_of, write_run_directory
from quarry.errors import UserError
from quarry.types import Report, SetResult


def two_runs(
    tmp_path: Path, first: SetResult, second: SetResult, **second_settings: Any
) -> list[Path]:
    settings = {key.replace("__", "."): value for key, value in second_settings.items()}
    return [
        write_run_directory(
            tmp_path / model,
            [Report(retriever="dense", results=(result,))],
            model=model,
            settings=own,
        )
        for model, result, own in (("one", first, {}), ("two", second, settings))
    ]


def message(runs: list[Path], **more: Any) -> str:
    with pytest.raises(UserError, match="Numbers of one column would not be comparable") as info:
        tables_of(entries_in(runs), **more)
    return str(info.value)


def test_another_convention_is_refused_by_name_and_directory(tmp_path: Path) -> None:
    other = {"name": "mteb", "self_match": "removed"}
    runs = two_runs(tmp_path, a_set("alpha", [0.5]), a_set("alpha", [0.5], convention=other))
    text = message(runs)
    assert f"alpha: convention name is beir in {runs[0]}, but mteb in {runs[1]}" in text
    assert f"convention self_match is kept in {runs[0]}, but removed in {runs[1]}" in text
    assert "task=rescore" in text


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        ({"num_documents": 101}, "num_documents is 100 in"),
        ({"num_queries": 7}, "num_queries is 1 in"),
        ({"group": "g"}, "group is None in"),
    ],
)
def test_another_size_is_refused(tmp_path: Path, difference: dict[str, Any], words: str) -> None:
    runs = two_runs(tmp_path, a_set("alpha", [0.5]), a_set("alpha", [0.5], **difference))
    assert words in message(runs)


def test_another_revision_is_refused_even_where_counts_agree(tmp_path: Path) -> None:
    run = two_runs(tmp_path, a_set("alpha", [0.5]), a_set("alpha", [0.5]))
    assert tables_of(entries_in(run))
    named = [
        write_run_directory(
            tmp_path / revision,
            [Report(retriever="dense", results=(a_set("alpha", [0.5]),))],
            model=revision,
            settings={"benchmark.repo": "o/n", "benchmark.revision": revision},
        )
        for revision in ("abc", "def")
    ]
    assert "alpha: benchmark.revision is abc in" in message(named)


def test_another_commit_that_was_read_is_refused_though_none_was_set(tmp_path: Path) -> None:
    """Of a suite the commits stand in the code; of `benchmark.revision=null` it is the newest."""

    def run(name: str, *sources: str) -> list[Path]:
        one, two = (a_set("alpha", [0.5], source=source) for source in sources)
        return two_runs(tmp_path / name, one, two)

    runs = run("newer", "o/n@aaa, test", "o/n@bbb, test")
    assert f"alpha: source is o/n@aaa, test in {runs[0]}, but o/n@bbb, test in" in message(runs)
    release = "standard library of Python 3.11.7, test"
    assert "alpha: source is" in message(run("python", release, release.replace("7", "8")))
    assert tables_of(entries_in(run("folders", "my_copy, test", "o/n@aaa, test")))


def test_other_queries_are_refused_where_each_must_have_a_value(tmp_path: Path) -> None:
    first, second = a_set("alpha", [0.5, 0.25]), a_set("alpha", [0.5, 0.25])
    per_query = {"nDCG@10": {"q0": 0.5, "other": 0.25}}
    second = SetResult(
        **{name: getattr(second, name) for name in second.__slots__} | {"per_query": per_query}
    )
    text = message(two_runs(tmp_path, first, second))
    assert "have different queries (2 are in one alone, such as other)" in text
    # trec_eval without -c leaves out a query that found nothing
    left_out = {"missing_queries": "left_out"}
    first = a_set("alpha", [0.5, 0.25, 1.0], convention=left_out)
    second = a_set("alpha", [0.5, 0.25], convention=left_out, num_queries=3)
    (table,) = tables_of(entries_in(two_runs(tmp_path / "c", first, second)))
    assert table.comparisons[1, 0].num_queries == 2


def test_depth_is_a_rule_for_measures_that_look_as_deep(tmp_path: Path) -> None:
    def result(top_k: int) -> SetResult:
        return a_set("alpha", [0.5], more={"MAP": 0.3}, convention={"top_k": top_k})

    runs = two_runs(tmp_path, result(100), result(1000))
    assert len(tables_of(entries_in(runs))) == 1  # nDCG@10
    assert "alpha: evaluation.top_k is 100 in" in message(runs, measures=["MAP"])


def test_sets_that_are_not_shown_may_differ(tmp_path: Path) -> None:
    runs = [
        write_run_directory(
            tmp_path / model,
            [
                Report(
                    retriever="dense",
                    results=(a_set("alpha", [0.5]), a_set("beta", [0.5], num_documents=size)),
                )
            ],
            model=model,
        )
        for model, size in (("one", 10), ("two", 11))
    ]
    assert "beta: num_documents" in message(runs)
    (table,) = tables_of(entries_in(runs), sets=["alpha"])
    assert [column.row.name for column in table.columns] == ["alpha"]
