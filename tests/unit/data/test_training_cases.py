"""Small training files that went wrong, each with its right outcome: ../shared/cases says which."""

from __future__ import annotations

from pathlib import Path

import pytest

from quarry.data.train_examples import TableExamples
from quarry.data.train_files import read_train_files
from quarry.errors import UserError

CASES = Path(__file__).resolve().parents[3].parent / "shared" / "cases" / "training"


def read(tmp_path: Path, name: str) -> TableExamples:
    if not CASES.is_dir():
        pytest.skip("needs the folder shared/cases beside the repository")
    return read_train_files(path=CASES / name, cache_dir=tmp_path)


@pytest.mark.parametrize(
    ("name", "query", "positive", "negatives"),
    [
        ("f01-flagembedding.jsonl", "q one", "p one", ["n one", "n two"]),
        ("f02-flagembedding-scores.jsonl", "q one", "p one", ["n one"]),
        ("f03-st-anchor.jsonl", "q one", "p one", ["n one"]),
        ("f05-st-ntuple.jsonl", "q", "p", ["n1", "n2"]),
        ("f05b-ntuple-query.jsonl", "q", "p", ["n1", "n2"]),
        ("f10-tevatron-nodocid.jsonl", "q", "p", []),
        ("f19-negatives-and-hard_negatives.jsonl", "q", "p", ["n"]),
        ("g03-csv.csv", "q", "p", []),
    ],
)
def test_files_of_other_tools_are_read(
    tmp_path: Path, name: str, query: str, positive: str, negatives: list[str]
) -> None:
    (example,) = read(tmp_path, name)
    assert example.query.text == query
    assert [passage.text for passage in example.positives] == [positive]
    assert [passage.text for passage in example.hard_negatives] == negatives


def test_scores_are_kept(tmp_path: Path) -> None:
    (example,) = read(tmp_path, "f02-flagembedding-scores.jsonl")
    assert (example.positive_scores, example.hard_negative_scores) == ((0.9,), (0.2,))


def test_a_key_that_was_meant_otherwise_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"typo\.jsonl:1: 'negs' is not read"):
        read(tmp_path, "f21-extra-neg-key-typo.jsonl")


def test_an_id_with_two_texts_is_refused_with_both(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r":1: the passage id '1' .*'b' here, and for 'a' at .*:1"):
        read(tmp_path, "f23-docid-same-text-differs.jsonl")


def test_a_line_without_positives_is_skipped_and_counted(tmp_path: Path) -> None:
    examples = read(tmp_path, "g01-empty-positives.jsonl")
    assert [example.query.query_id for example in examples] == ["1"]
    assert examples.caveats == ("1 of 2 lines have no positive and are skipped (50.0 %)",)
