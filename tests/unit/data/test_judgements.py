"""Judgements in every form that is read, and what is refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from helpers.hub_repos import write_lines, write_parquet
from quarry.data.judgements import read_judgements, read_qrels
from quarry.errors import UserError

QRELS = {"q1": {"d1": 2, "007": -1}, "007": {"d3": 1}}


FORMS = {
    "tabs.tsv": "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\t007\t-1\n007\td3\t1\n",
    "no_header.tsv": "q1\td1\t2\nq1\t007\t-1\n007\td3\t1\n",
    "trec.tsv": "q1\t0\td1\t2\nq1\t0\t007\t-1\n007\t0\td3\t1\n",
    "trec.txt": "q1 0 d1 2\nq1 Q0 007 -1\n007  0 d3   1\n",
    "trec.trec": "\nq1 0 d1 2\n\nq1 0 007 -1\n007 0 d3 1",
    "blanks.txt": "query-id corpus-id score\nq1 d1 2\nq1 007 -1\n007 d3 1\n",
    "floats.tsv": "q1\td1\t2.0\nq1\t007\t-1.00\n007\td3\t+1.\n",
    "quoted.tsv": '"query-id"\t"corpus-id"\t"score"\n"q1"\t"d1"\t2\n'
    '"q1"\t"007"\t-1\n"007"\t"d3"\t"1"\n',
    "commas.csv": "query-id,corpus-id,score\nq1,d1,2\n\"q1\",007,-1\n007,d3,1\n",
    "order.tsv": "score\tdocid\tqid\n2\td1\tq1\n-1\t007\tq1\n1\td3\t007\n",
    "four.tsv": "qid\titeration\tdocno\trel\nq1\t0\td1\t2\nq1\t0\t007\t-1\n007\t0\td3\t1\n",
    "repeated.tsv": "q1\td1\t2\nq1\td1\t2.0\nq1\t007\t-1\n007\td3\t1\n",
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("is_zipped", [False, True])
def test_every_form_of_lines_says_the_same(tmp_path: Path, name: str, is_zipped: bool) -> None:
    content = FORMS[name].encode()
    path = tmp_path / (f"{name}.gz" if is_zipped else name)
    path.write_bytes(gzip.compress(content) if is_zipped else content)
    assert read_qrels(path) == QRELS


@pytest.mark.parametrize(
    "keys",
    [
        ("query-id", "corpus-id", "score"),
        ("query_id", "doc_id", "relevance"),
        ("qid", "docid", "rel"),
        ("query_id", "document_id", "grade"),
    ],
)
def test_records_under_their_usual_keys_say_the_same(tmp_path: Path, keys: tuple) -> None:
    rows = [
        dict(zip(keys, (query_id, document_id, float(grade)), strict=True))
        for query_id, grades in QRELS.items()
        for document_id, grade in grades.items()
    ]
    for write, name in ((write_lines, "a.jsonl"), (write_lines, "b.jsonl.gz"),
                        (write_parquet, "c.parquet")):  # fmt: skip
        write(tmp_path / name, rows)
        assert read_qrels(tmp_path / name) == QRELS
    assert len(list(read_judgements([tmp_path / "a.jsonl", tmp_path / "c.parquet"]))) == 6


def test_ids_that_are_numbers_stay_as_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("007\t1.0\t1\n")
    assert read_qrels(tmp_path / "a.tsv") == {"007": {"1.0": 1}}
    (tmp_path / "a.jsonl").write_text('{"query-id": 7, "corpus-id": "007", "score": 1}\n')
    assert read_qrels(tmp_path / "a.jsonl") == {"7": {"007": 1}}


@pytest.mark.parametrize(
    ("score", "message"),
    [
        *((score, "is not an integer") for score in ("NaN", "Infinity", "0.5", "true", "null")),
        ('"1"', "is not an integer"),
        ("[1]", "is not an integer"),
        ("1001", "is out of range"),
        ("1e300", "is out of range"),
        (str(2**62), "is out of range"),
    ],
)
def test_a_grade_of_a_record_that_cannot_be_is_named(
    tmp_path: Path, score: str, message: str
) -> None:
    path = tmp_path / "qrels.jsonl"
    line = f'{{"query-id": "1", "corpus-id": "2", "score": {score}}}\n'
    path.write_text('{"query-id": "1", "corpus-id": "1", "score": 2.0}\n' + line)
    grades = read_judgements([path])
    assert next(grades)[1:] == ("1", "1", 2)
    with pytest.raises(UserError, match=rf"qrels\.jsonl:2: the grade .* {message}"):
        next(grades)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"corpus-id": "d", "score": 1}, "lacks 'query-id' or 'query_id'"),
        ({"qid": "q", "score": 1}, "lacks 'corpus-id'"),
        ({"qid": "q", "docid": "d"}, "lacks 'score' or 'relevance'"),
        ({"qid": "q", "docid": "d", "score": 1, "rel": 2}, "'score' and 'rel' differ"),
        ({"qid": "q", "docid": 1.5, "score": 1}, r"'docid' is 1\.5"),
        ({"qid": "a\0b", "docid": "d", "score": 1}, "holds no NUL"),
    ],
)
def test_a_record_that_is_no_judgement_is_named(
    tmp_path: Path, record: dict[str, Any], message: str
) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(record))
    with pytest.raises(UserError, match=rf"a\.jsonl:1: .*{message}"):
        read_qrels(tmp_path / "a.jsonl")


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "test.xlsx").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"test\.xlsx: judgements are read from \.tsv, \.txt"):
        read_qrels(tmp_path / "test.xlsx")
    (tmp_path / "test.csv").write_text('"q1,d1,1\n')
    with pytest.raises(UserError, match=r"test\.csv:1: malformed CSV"):
        read_qrels(tmp_path / "test.csv")


@pytest.mark.parametrize("header", ["", "query-id\tcorpus-id\tscore\n", "\ufeffq\td\trelevance\n"])
def test_the_header_is_optional(tmp_path: Path, header: str) -> None:
    path = tmp_path / "test.tsv"
    path.write_text(header + "q1\td1\t1\r\nq1\td2\t-1\n\n", encoding="utf-8")
    assert read_qrels(path) == {"q1": {"d1": 1, "d2": -1}}


def test_a_repeated_judgement_counts_once(tmp_path: Path) -> None:
    path = tmp_path / "test.tsv"
    path.write_text("q1\td1\t1\nq1\td1\t1\n")
    assert read_qrels(path) == {"q1": {"d1": 1}}


@pytest.mark.parametrize(
    ("qrels", "message"),
    [
        ("q1\td1\t1\nq1 0 d1 1\n", r":2: 4 columns, not 3 as on the lines before"),
        ("q1 d1\n", r":1: 2 columns, not 3 or 4"),
        ("q1 Q0 d1 1 3.5 run\n", r":1: 6 columns, not 3 or 4"),
        ("q1\t\t1\n", r":1: an id is empty"),
        ("q1\td1\tyes\n", r":1: the grade 'yes' is not an integer.*a header names query-id"),
        ("q1\td1\tnan\n", r":1: the grade 'nan' is not an integer"),
        ("q1\td1\t1_0\n", r":1: the grade '1_0' is not an integer"),
        ("q1\td1\t1001\n", r":1: the grade '1001' is out of range"),
        ("q1\td1\t-1001.0\n", r":1: the grade '-1001' is out of range"),
        (f"q1\td1\t{2**62}\n", r":1: the grade '4611686018427387904' is out of range"),
        (f"q1\td1\t1{'0' * 5000}\n", r":1: the grade '10+\.\.\. is out of range"),
        ("q1\td1\t1\nq1\td2\tyes\n", r":2: the grade 'yes' is not an integer"),
        ("q1\td1\t1.5\n", r":1: the grade '1.5' is not an integer"),
        ("h\th\tscore\nh\th\tscore\n", r":2: the grade 'score' is not an integer"),
        ("q1\td1\t1\nq2\td1\t1\nq1\td1\t2\n", r":3: .*'q1'.*'d1' .*another grade on line 1"),
        ("q1\td1\t0\n", "no judgement is positive"),
        ("query-id\tcorpus-id\tscore\n", "no judgement is positive"),
    ],
)
def test_bad_judgements_are_named(tmp_path: Path, qrels: str, message: str) -> None:
    path = tmp_path / "test.tsv"
    path.write_text(qrels)
    with pytest.raises(UserError, match=rf"test\.tsv.*{message}"):
        read_qrels(path)
