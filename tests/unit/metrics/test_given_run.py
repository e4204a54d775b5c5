"""Run files of others: both forms are read, mistakes are named by line, oddities are counted."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from quarry.errors import MissingPathError, UserError
from quarry.metrics.given_run import read_given_run


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_six_columns_are_ordered_by_score_and_name_their_system(tmp_path: Path) -> None:
    given = read_given_run(write(tmp_path / "a", "q Q0 b 1 2.5 bm25\n\nq Q0 é 2 1e1 bm25\r\n"))
    assert given.run == {"q": {"b": 2.5, "é": 10.0}}
    assert (given.form, given.tag, given.depth) == ("TREC", "bm25", 2)


def test_three_columns_are_ordered_by_rank(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"7\td2\t2\n7\td1\t1\n"))
    given = read_given_run(path)
    assert given.run == {"7": {"d2": -2.0, "d1": -1.0}}
    assert (given.form, given.tag) == ("MS MARCO", None)


def test_several_tags_are_none(tmp_path: Path) -> None:
    assert read_given_run(write(tmp_path / "a", "q Q0 a 1 2 x\nq Q0 b 2 1 y\n")).tag is None


@pytest.mark.parametrize(
    ("text", "line", "fact"),
    [
        ("q Q0 a 1 0.5\n", 1, "5 columns (6 (TREC"),
        ("q Q0 a 1 0.5 t\nq\ta\t1\n", 2, "3 columns (6 as before)"),
        ("q Q0 a 1 0.5 t\nq Q0 a 2 0.4 t\n", 2, "document 'a' is there twice for query 'q'"),
        ("q Q0 a 1 nan t\n", 1, "the score 'nan' is not a number"),
        ("q Q0 a 1 high t\n", 1, "the score 'high' is not a number"),
        ("q\ta\t1\nq\tb\t0.83\n", 2, "the rank '0.83' is not a whole number"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, text: str, line: int, fact: str) -> None:
    path = write(tmp_path / "run.trec", text)
    with pytest.raises(UserError) as info:
        read_given_run(path)
    assert str(info.value).startswith(f"{path}:{line}: {fact}")
    assert "Fix: " in str(info.value)


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("\n \n", "the file is empty"),
        ("q\ta\t37\nq\tb\t12\n", "the least rank of query 'q' is 12"),
        ("q\ta\t1\nq\tb\t1\n", "two documents of rank 1"),
    ],
)
def test_a_file_that_ranks_nothing_is_refused(tmp_path: Path, text: str, fact: str) -> None:
    path = write(tmp_path / "run.tsv", text)
    with pytest.raises(UserError) as info:
        read_given_run(path)
    assert str(info.value).startswith(f"{path}: ")
    assert fact in str(info.value)


def test_what_is_not_text_or_not_there_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.trec"
    path.write_bytes("q Q0 a 1 0.5 t\n".encode("utf-16"))
    with pytest.raises(UserError, match=r"run\.trec:1: this is not UTF-8"):
        read_given_run(path)
    with pytest.raises(MissingPathError, match="there is no such file"):
        read_given_run(tmp_path / "gone.trec")


def test_ranks_that_contradict_scores_are_counted(tmp_path: Path) -> None:
    lines = [
        "right Q0 a 1 3 t", "right Q0 b 2 2 t",
        "wrong Q0 a 2 3 t", "wrong Q0 b 1 2 t",
        "same Q0 a 0 1 t", "same Q0 b 0 2 t",  # no ranks at all
    ]  # fmt: skip
    given = read_given_run(write(tmp_path / "a", "\n".join(lines)))
    assert given.num_against_scores() == 1
    unknown = [line.replace("a 1 3", "a - 3") for line in lines]
    assert read_given_run(write(tmp_path / "b", "\n".join(unknown))).num_against_scores() == 0


def test_ties_that_ranks_order_otherwise_are_counted_by_the_rule(tmp_path: Path) -> None:
    text = "q Q0 a 1 5 t\nq Q0 b 2 5 t\np Q0 a 1 5 t\np Q0 b 2 4 t\n"
    given = read_given_run(write(tmp_path / "a", text))
    assert given.num_against_scores() == 0
    assert given.num_ties_otherwise("descending") == 1
    assert given.num_ties_otherwise("ascending") == 0
