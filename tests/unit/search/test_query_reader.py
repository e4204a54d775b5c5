"""Queries from files and standard input."""

from __future__ import annotations

import gzip
import io
import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from quarry.errors import MissingPathError, UserError
from quarry.search.query_reader import read_queries


def _read(folder: Path, content: str | bytes) -> list[tuple[str, str]]:
    path = folder / "queries"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return [(query.query_id, query.text) for query in read_queries(str(path))]


def test_one_query_a_line(tmp_path: Path) -> None:
    text = 'a (b), "c"?\n\n{x: 1} = [y]  \n  é\r\n'
    wanted = [("1", 'a (b), "c"?'), ("3", "{x: 1} = [y]"), ("4", "é")]
    assert _read(tmp_path, text) == wanted


def test_json_lines(tmp_path: Path) -> None:
    text = '{"_id": "q1", "text": "one"}\n\n{"query": "two", "more": 3}\n{"id": 7, "text": "x"}\n'
    assert _read(tmp_path, text) == [("q1", "one"), ("3", "two"), ("7", "x")]


def test_standard_input_and_gzip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"one\ntwo")))
    assert [query.text for query in read_queries("-")] == ["one", "two"]
    path = tmp_path / "queries.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"_id": "a", "text": "b"}\n'))
    assert [query.text for query in read_queries(str(path))] == ["b"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("\n \n", "holds no query"),
        (b"good\n\xff\n", ":2: .*UTF-8"),
        ('{"text": "a"}\nplain\n', ":2: is no JSON object"),
        ('{"text": "a"}\n{"text": " "}\n', ":2: has no text"),
        ('{"text": "a"}\n{"title": "b"}\n', ":2: has no text"),
        ('{"_id": 1, "text": "a"}\n{"_id": "1", "text": "b"}\n', ":2: the id '1' stands on line 1"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        _read(tmp_path, content)


MSMARCO = "121352\tdefine extreme\n634306\twhat does chattel mean\n"
PAIRS = [("121352", "define extreme"), ("634306", "what does chattel mean")]
OBJECTS = [{"_id": query_id, "text": text} for query_id, text in PAIRS]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("q.tsv", MSMARCO),
        ("q.TSV", f"qid\tquery\n{MSMARCO}"),
        ("q.csv", "query,qid\ndefine extreme,121352\nwhat does chattel mean,634306\n"),
        ("q.json", json.dumps(OBJECTS)),
        ("q.json", json.dumps(OBJECTS, indent=1)),
        ("q.jsonl", "\n".join(map(json.dumps, OBJECTS))),
    ],
    ids=["msmarco", "tsv", "csv", "array", "array_of_lines", "jsonl"],
)
def test_the_suffix_chooses_how_a_table_is_read(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content.encode()))
    for path in (tmp_path / name, tmp_path / f"{name}.gz"):
        assert [(query.query_id, query.text) for query in read_queries(str(path))] == PAIRS


def test_parquet_and_records_without_ids(tmp_path: Path) -> None:
    table = pa.table({"more": [1.0, 2.0], "text": ["one", "two"]})
    parquet.write_table(table, tmp_path / "q.parquet")
    (tmp_path / "q.json").write_text('[{"text": "one"}, {"text": "two"}]')
    for name in ("q.parquet", "q.json"):
        found = read_queries(str(tmp_path / name))
        assert [(query.query_id, query.text) for query in found] == [("1", "one"), ("2", "two")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("q.csv", b"define extreme\nwhat does chattel mean\n", r"q\.csv:2: has no text"),
        ("q.tsv", b"a\tb\tc\n", r"q\.tsv:1: 3 columns"),
        ("q.jsonl", b'{"_id": null, "text": "a"}\n', r"q\.jsonl:1: '_id' is None"),
        ("q", b'{"_id": null, "text": "a"}\n', r"q:1: '_id' is None"),
        ("q.txt.gz", b"no gzip", r"q\.txt\.gz:1: the gzip file is damaged"),
        (
            "q.tsv.gz",
            gzip.compress(MSMARCO.encode(), mtime=0)[:-9],
            "damaged or cut off",
        ),
        ("q.json.gz", b"no gzip", r"q\.json\.gz:1: the gzip file is damaged"),
    ],
    ids=["header", "cells", "id", "id_of_a_line", "gzip", "truncated", "gzip_of_json"],
)
def test_a_bad_file_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_queries(str(tmp_path / name))


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match=r"task\.queries=.*no such file"):
        read_queries(str(tmp_path / "none"))
