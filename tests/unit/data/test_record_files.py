"""Documents and queries in every form that is read."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers.hub_repos import write_coir, write_lines, write_parquet
from quarry.data.beir import read_corpus
from quarry.data.record_files import read_records
from quarry.data.records import QUERY_COLUMNS, judged_queries
from quarry.errors import UserError
from quarry.types import Document, Query

DOCUMENTS = [
    Document(document_id="007", title="One", text='"first" one'),
    Document(document_id="d 2", title="", text="second"),
]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tabs.tsv", '_id\ttitle\ttext\n007\tOne\t"first" one\nd 2\t\tsecond\n'),
        ("order.tsv", 'text\tdocid\ttitle\n"first" one\t007\tOne\nsecond\td 2\t\n'),
        ("more.tsv", 'id\ttext\turl\ttitle\n007\t"first" one\tx\tOne\nd 2\tsecond\ty\t\n'),
        ("csv.tsv", '"_id"\t"title"\t"text"\n"007"\t"One"\t"""first"" one"\n"d 2"\t""\t"second"\n'),
    ],
)  # fmt: skip
def test_documents_of_a_table_of_tabs(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    assert list(read_corpus(path=tmp_path / name, cache_dir=tmp_path / "cache")) == DOCUMENTS


def test_two_columns_need_no_header_and_a_text_keeps_its_own_quotes(tmp_path: Path) -> None:
    (tmp_path / "queries.tsv").write_text('007\t"to be or not"\n\n"8"\tplain\n')
    records = read_records([tmp_path / "queries.tsv"], QUERY_COLUMNS)
    found = [query for _, query in judged_queries(records, qrels={"007": {}, "8": {}}, source="x")]
    assert found == [
        Query(query_id="007", text='"to be or not"'), Query(query_id="8", text="plain")
    ]  # fmt: skip


@pytest.mark.parametrize("line", ["d1\tone\tmore\n", "d1\n"])
def test_other_columns_are_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "corpus.tsv").write_text("d0\tzero\n" + line)
    with pytest.raises(UserError, match=r"corpus\.tsv:2: . columns, not 2 \(_id, text\)"):
        read_corpus(path=tmp_path / "corpus.tsv", cache_dir=tmp_path / "cache")


@pytest.mark.parametrize("key", ["_id", "id", "docid", "doc_id", "document_id"])
@pytest.mark.parametrize("text", ["text", "contents"])
def test_ids_and_texts_under_their_usual_keys(tmp_path: Path, key: str, text: str) -> None:
    rows = [{key: "007", text: "one\nfirst"}, {key: "2", text: "second"}]
    write_lines(tmp_path / "a.jsonl", rows)
    write_parquet(tmp_path / "a.parquet", rows)
    expected = [
        Document(document_id="007", text="one\nfirst"), Document(document_id="2", text="second")
    ]  # fmt: skip
    for name in ("a.jsonl", "a.parquet"):
        assert list(read_corpus(path=tmp_path / name, cache_dir=tmp_path / "cache")) == expected


@pytest.mark.parametrize("key", ["_id", "id", "query_id", "query-id", "qid"])
@pytest.mark.parametrize("text", ["text", "query", "contents"])
def test_queries_under_their_usual_keys(key: str, text: str) -> None:
    records = [(1, "f:1", {key: "q", text: "why?"})]
    ((_, query),) = judged_queries(records, qrels={"q": {}}, source="f")
    assert query == Query(query_id="q", text="why?")


def test_parquet_rows_have_the_columns_that_are_asked_for_and_a_place(tmp_path: Path) -> None:
    repo = write_coir(tmp_path / "copy")
    files = [repo / "queries" / "queries-00000-of-00001.parquet"] * 2
    found = list(read_records(files, ("_id", "text", "nothing")))
    assert [line for line, _, _ in found] == [1, 2, 3, 4, 5, 6]
    assert [where for _, where, _ in found] == [f"{files[0]}:{n}" for n in (1, 2, 3, 1, 2, 3)]
    assert found[1][2] == {"_id": "02", "text": "two?"}


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    shutil.copyfile(__file__, tmp_path / "corpus.csv")
    with pytest.raises(UserError, match=r"corpus\.csv: tables are read from \.jsonl"):
        list(read_records([tmp_path / "corpus.csv"], ("_id",)))


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([1.0, float("nan")], r":1: '_id' is 1\.0"),
        ([b"a"], r":1: '_id' is b'a'"),
        ([None], r":1: '_id' is None"),
        ([["a"]], r":1: '_id' is \['a'\]"),
        ([True], r":1: '_id' is True"),
    ],
)
def test_parquet_of_another_type_is_named(tmp_path: Path, ids: list, message: str) -> None:
    path = tmp_path / "corpus.parquet"
    pq.write_table(pa.table({"_id": ids, "text": ["x"] * len(ids)}), path)
    with pytest.raises(UserError, match=rf"corpus\.parquet{message}"):
        read_corpus(path=path, cache_dir=tmp_path / "cache")


def test_a_corpus_of_training_may_have_any_name(tmp_path: Path) -> None:
    write_lines(tmp_path / "corpus.json", [{"docid": "1", "text": "x"}])
    assert len(read_corpus(path=tmp_path / "corpus.json", cache_dir=tmp_path / "cache")) == 1
