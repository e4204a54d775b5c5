"""Queries from files and standard input."""

from __future__ import annotations

import gzip
import io
import sys
from pathlib import Path

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
        (b"good\n\xff\n", ":2: is no UTF-8"),
        ('{"text": "a"}\nplain\n', ":2: is no JSON object"),
        ('{"text": "a"}\n{"text": " "}\n', ":2: has no text"),
        ('{"text": "a"}\n{"title": "b"}\n', ":2: has no text"),
        ('{"_id": 1, "text": "a"}\n{"_id": "1", "text": "b"}\n', ":2: the id '1' stands on line 1"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        _read(tmp_path, content)


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match=r"task\.queries=.*no such file"):
        read_queries(str(tmp_path / "none"))
