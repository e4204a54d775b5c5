"""Judgements without texts, in either form."""

from __future__ import annotations

from pathlib import Path

import pytest

from quarry.errors import MissingPathError, UserError
from quarry.evaluation.benchmarks.given_judgements import judgements_benchmark

TREC = "1 0 d1 2\n1 0 d2 0\n2 0 d1 1\n"
BEIR = "query-id\tcorpus-id\tscore\n1\td1\t2\n1\td2\t0\n2\td1\t1\n"
QRELS = {"1": {"d1": 2, "d2": 0}, "2": {"d1": 1}}


@pytest.mark.parametrize(("name", "text"), [("dl19.qrels", TREC), ("dl19.tsv", BEIR)])
def test_both_forms_are_a_set_of_the_name_of_the_file(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    (entry,) = judgements_benchmark(str(tmp_path / name)).sets
    assert entry.name == entry.data.name == "dl19"
    assert entry.data.qrels == QRELS
    assert [query.query_id for query in entry.data.queries] == ["1", "2"]
    assert len(entry.data.corpus) == 0
    assert entry.data.source == name


def test_several_sets_are_named(tmp_path: Path) -> None:
    for name, text in (("a", TREC), ("b", BEIR)):
        (tmp_path / name).write_text(text)
    files = {"one": str(tmp_path / "a"), "two": str(tmp_path / "b")}
    benchmark = judgements_benchmark(files, remove_self_match=True)
    assert [(each.name, each.remove_self_match) for each in benchmark.sets] == [
        ("one", True),
        ("two", True),
    ]


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("1 d1\n", ":1: 2 columns"),
        ("", "no judgement is positive"),
        ("1 0 d1 4611686018427387904\n", ":1: the grade '4611686018427387904' is out of range"),
        ("1 0 d1 0\n", "no judgement is positive"),
        ("1 0 d1 1\n1 0 d2 high\n", ":2: the grade 'high'"),
    ],
)
def test_what_judges_nothing_is_refused(tmp_path: Path, text: str, fact: str) -> None:
    path = tmp_path / "qrels"
    path.write_text(text)
    (entry,) = judgements_benchmark(str(path)).sets
    with pytest.raises(UserError) as info:
        _ = entry.data
    assert fact in str(info.value)


def test_a_file_that_is_not_there_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match=r"task\.qrels=.*gone: there is no such file"):
        judgements_benchmark(str(tmp_path / "gone"))
