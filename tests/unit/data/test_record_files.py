"""Documents and queries in every form that is read."""

from __future__ import annotations

import csv
import datetime
import gzip
import io
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers.hub_repos import write_coir, write_lines, write_parquet
from quarry.data.beir import read_corpus
from quarry.data.record_files import read_records
from quarry.data.records import QUERY_COLUMNS, judged_queries
from quarry.data.source_part import SourcePart
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
    shutil.copyfile(__file__, tmp_path / "corpus.xml")
    for columns in (("_id",), None):
        with pytest.raises(UserError, match=r"corpus\.xml: tables are read from \.jsonl, \.json"):
            list(read_records([tmp_path / "corpus.xml"], columns))


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([1.0, 1.5], r":2: '_id' is 1\.5"),
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


ROWS = [
    {"query": "why,\nwhy?", "positive": 'he said "so"'},
    {"query": "007", "positive": '"to be"'},
    {"query": "é\u2028x", "positive": ""},
]


def written(name: str, rows: list[dict]) -> bytes:
    """The content of a file with that name, as the usual writers make it."""
    form = name.removesuffix(".gz").rpartition(".")[2]
    text = io.StringIO()
    if form == "json":
        json.dump(rows, text, indent=2)
    elif form == "jsonl":
        text.writelines(json.dumps(row) + "\n" for row in rows)
    else:
        writer = csv.DictWriter(text, list(rows[0]), delimiter="\t" if form == "tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)
    content = text.getvalue().encode()
    return gzip.compress(content) if name.endswith(".gz") else content


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("a.jsonl", [1, 2, 3]), ("a.jsonl.gz", [1, 2, 3]), ("a.json", [2, 6, 10]),
        ("a.JSON.GZ", [2, 6, 10]), ("a.csv", [2, 4, 5]), ("a.csv.gz", [2, 4, 5]),
    ],
)  # fmt: skip
def test_all_columns_of_every_form(tmp_path: Path, name: str, lines: list[int]) -> None:
    file = tmp_path / name
    file.write_bytes(written(name.lower(), ROWS))
    assert list(read_records([file])) == [
        (line, f"{file}:{line}", row) for line, row in zip(lines, ROWS, strict=True)
    ]


def test_json_is_read_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf \n" + written("a.json", ROWS))
    (tmp_path / "a.json").write_bytes(written("a.jsonl", ROWS))
    for name in ("a.jsonl", "a.json"):
        for columns in (None, ("query",)):
            assert [row for *_, row in read_records([tmp_path / name], columns)] == ROWS


def test_an_array_on_one_line_counts_its_records(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text(json.dumps(ROWS))
    found = [(line, place) for line, place, _ in read_records([file, file])]
    places = [f"{file}:1", f"{file}:1 (record 2)", f"{file}:1 (record 3)"]
    assert found == [(line, place) for line in (1, 2) for place in places]


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    rows = [
        {
            "query": "q",
            "negatives": ["a", None],
            "passage": {"docid": 7, "scores": [0.5]},
            "number": 3,
            "day": datetime.date(2024, 2, 29),
            "nothing": None,
        },
        {"query": None, "negatives": [], "passage": None, "number": None, "day": None},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    expected = [rows[0], {**rows[1], "nothing": None}]
    file = tmp_path / "a.parquet"
    assert list(read_records([file])) == [
        (number, f"{file}:{number}", row) for number, row in enumerate(expected, start=1)
    ]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([b"\xff"], pa.binary()).view(pa.string()),  # no UTF-8
        pa.array([2**62], pa.timestamp("us")),  # the year 148000
        pa.array([0], pa.timestamp("us", tz="Mars/Phobos")),
    ],
)
def test_parquet_that_python_cannot_hold_is_named(tmp_path: Path, column: pa.Array) -> None:
    pq.write_table(pa.table({"query": column}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a\.parquet: not a sound Parquet file"):
        list(read_records([tmp_path / "a.parquet"]))


def test_parquet_with_a_column_twice_is_refused(tmp_path: Path) -> None:
    table = pa.table([["a"], ["b"]], names=["query", "query"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a\.parquet: the column 'query' stands twice"):
        list(read_records([tmp_path / "a.parquet"]))


class CountingPath(type(Path())):  # type: ignore[misc]
    """Counts how often paths are compared."""

    num_compared = 0

    def __eq__(self, other: object) -> bool:
        CountingPath.num_compared += 1
        return bool(super().__eq__(other))

    __hash__ = type(Path()).__hash__


def test_a_part_of_many_files_compares_few_of_them(tmp_path: Path) -> None:
    files = [CountingPath(tmp_path / f"{i}.csv.gz") for i in range(100)]
    files += [CountingPath(tmp_path / f"{i}.parquet") for i in range(100)]
    for file in files:
        file.touch()
    list(read_records(files, part=SourcePart(number=0, count=1000)))
    assert CountingPath.num_compared < 1000
