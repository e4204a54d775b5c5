"""Whatever is in the files of a set, or in a training file: right values, or a message that names
the file."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quarry.data.beir import read_beir
from quarry.data.judgements import read_qrels
from quarry.data.record_files import read_records
from quarry.data.train_files import read_train_files
from quarry.errors import UserError
from quarry.types import MAX_GRADE


def examples(number: int) -> settings:
    """The same ones in every run."""
    return settings(
        max_examples=number,
        derandomize=True,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


DOCUMENTS = [{"_id": f"d{i}", "title": "é", "text": f"text {i}"} for i in range(4)]
QUERIES = [{"_id": f"q{i}", "text": "why?"} for i in range(3)]
JUDGED = [{"query-id": f"q{i}", "corpus-id": f"d{i}", "score": i % 3 + 1} for i in range(3)]


TRAIN = [
    {"query": f"why, {i}?", "positive": 'so "é"', "negatives": ["a", "b"], "rank": 0.5}
    for i in range(3)
]
TRAIN_CELLS = [{"query": f"why, {i}?", "positive": 'so "é"', "rank": "0.5"} for i in range(3)]


def lines(rows: list[dict]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def table(rows: list[dict], between: str = "\t", *, header: bool = True) -> bytes:
    cells = [[str(value) for value in row.values()] for row in rows]
    text = [between.join(row) + "\n" for row in ([list(rows[0])] if header else []) + cells]
    return "".join(text).encode()


def array(rows: list[dict]) -> bytes:
    return json.dumps(rows, ensure_ascii=False, indent=1).encode()


def commas(rows: list[dict]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def parquet(rows: list[dict]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


TREC = [{"qid": r["query-id"], "0": 0, "docid": r["corpus-id"], "rel": r["score"]} for r in JUDGED]
FILES: dict[str, bytes] = {
    "corpus.jsonl": lines(DOCUMENTS),
    "corpus.json": array(DOCUMENTS),
    "corpus.csv": commas(DOCUMENTS),
    "corpus.tsv": table(DOCUMENTS),
    "corpus.parquet": parquet(DOCUMENTS),
    "queries.jsonl": lines(QUERIES),
    "queries.json": array(QUERIES),
    "queries.csv": commas(QUERIES),
    "queries.tsv": table(QUERIES, header=False),
    "queries.parquet": parquet(QUERIES),
    "qrels/test.tsv": table(JUDGED),
    "qrels/test.txt": table(TREC, " ", header=False),
    "qrels/test.trec": table(TREC, "\t", header=False),
    "qrels/test.csv": table(JUDGED, ","),
    "qrels/test.jsonl": lines(JUDGED),
    "qrels/test.parquet": parquet(JUDGED),
}
TRAIN_FILES: dict[str, bytes] = {
    "train.jsonl": lines(TRAIN),
    "train.json": array(TRAIN),
    "train.csv": commas(TRAIN_CELLS),
    "train.tsv": table(TRAIN_CELLS),
    "train.parquet": parquet(TRAIN),
}
ALL_FILES = FILES | TRAIN_FILES
WHOLE = {name: FILES[name] for name in ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv")}

NASTY = [
    b"", b"\0", b"\r", b"\n", b"\t", b" ", b",", b'"', b"\\", b"[", b"{", b"}", b"\xff\xfe",
    b"\xe9",
    b"\xef\xbb\xbf", b"NaN", b"-Infinity", b"1e999", b"9" * 5000, b"1.5", b"-", b"null", b"\\ud800",
    b'"_id": "x", ', b"\xe2\x80\xa8", b"\x1e",
]  # fmt: skip

RECODED: list[Callable[[bytes], bytes]] = [
    lambda content: content,
    lambda content: content.decode("utf-8", "replace").encode("utf-16"),
    lambda content: content.decode("utf-8", "replace").encode("cp1252", "replace"),
    lambda content: b"\xef\xbb\xbf" + content,
    lambda content: content.replace(b"\n", b"\r"),
    lambda content: content.replace(b"\n", b"\r\n"),
    lambda content: b"[" + content.replace(b"\n", b",\n") + b"]",
    lambda content: b"[" + content.strip().replace(b"}\n", b"},\n") + b"]",
]


def one_of_its_kind(name: str) -> str:
    return name.partition(".")[0]


def read_training(tmp_path: Path, name: str, content: bytes) -> None:
    """Read a training file; whatever is in it, only one kind of end is allowed."""
    file = tmp_path / name
    file.write_bytes(content)
    found = []
    message = f"{file}:1"
    try:
        found.extend(read_records([file]))
    except UserError as error:
        message = str(error)
    line = "" if name == "train.parquet" else r":\d+\b"
    assert re.match(re.escape(str(file)) + line, message), message
    assert len(message) < 1000
    numbers = [line for line, _, _ in found]
    assert numbers == sorted(numbers)
    for line, place, record in found:
        assert re.fullmatch(rf"{re.escape(str(file))}:{line}( \(record \d+\))?", place)
        assert type(record) is dict
        repr(record).encode()  # no half characters
        if name.startswith(("train.csv", "train.tsv")):
            assert all(type(cell) is str for cell in record.values())
            assert len(record) == len(found[0][2])
    train_on(tmp_path, file)


def train_on(tmp_path: Path, file: Path) -> None:
    """Read a training file as examples; the same two ends are allowed."""
    message = str(file)
    try:
        for example in read_train_files(path=file, cache_dir=tmp_path / "cache"):
            assert example.query.text.strip()
            assert example.positives
    except UserError as error:
        message = str(error)
    assert str(file) in message
    assert len(message) < 1000


def read_with(tmp_path: Path, name: str, content: bytes) -> None:
    """Read a file for what it is, see `read_set` and `read_training`."""
    read = read_training if one_of_its_kind(name) == "train" else read_set
    read(tmp_path, name, content)


def read_set(tmp_path: Path, name: str, content: bytes) -> None:
    """Read a set with that file; whatever is in it, only one kind of end is allowed."""
    folder = tmp_path / "set"
    shutil.rmtree(folder, ignore_errors=True)
    kept = {k: v for k, v in WHOLE.items() if one_of_its_kind(k) != one_of_its_kind(name)}
    for place, data in (kept | {name: content}).items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes(data)
    found = None
    message = str(folder)
    try:
        found = read_beir(path=folder, split="test", cache_dir=tmp_path / "cache")
    except UserError as error:
        message = str(error)
    assert str(folder) in message
    assert len(message) < 1000
    if found is None:
        return
    assert all(document.document_id for document in found.corpus)
    assert {query.query_id for query in found.queries} == set(found.qrels)
    for judged in found.qrels.values():
        assert all(type(grade) is int and abs(grade) <= MAX_GRADE for grade in judged.values())


@pytest.mark.parametrize("name", FILES)
def test_files_as_they_should_be_are_read(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "set"
    read_with(tmp_path, name, FILES[name])
    found = read_beir(path=folder, split="test", cache_dir=tmp_path / "cache")
    assert found.qrels == {"q0": {"d0": 1}, "q1": {"d1": 2}, "q2": {"d2": 3}}
    assert [document.title for document in found.corpus] == ["é"] * 4


@pytest.mark.parametrize("name", TRAIN_FILES)
def test_training_files_as_they_should_be_are_read(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(TRAIN_FILES[name])
    rows = TRAIN_CELLS if name in ("train.csv", "train.tsv") else TRAIN
    assert [record for *_, record in read_records([tmp_path / name])] == rows


@examples(250)
@given(
    name=st.sampled_from([name for name in ALL_FILES if not name.endswith(".parquet")]),
    places=st.lists(st.tuples(st.floats(0, 1), st.sampled_from(NASTY), st.integers(0, 3))),
    recode=st.sampled_from(RECODED),
    cut=st.none() | st.floats(0, 1),
    is_zipped=st.booleans(),
)
def test_spoilt_lines_are_values_or_a_message(
    tmp_path: Path,
    name: str,
    places: list[tuple[float, bytes, int]],
    recode: Callable[[bytes], bytes],
    cut: float | None,
    is_zipped: bool,
) -> None:
    content = ALL_FILES[name]
    for place, nasty, num_replaced in places:
        start = int(place * len(content))
        content = content[:start] + nasty + content[start + num_replaced :]
    content = recode(content)
    if is_zipped:
        content, name = gzip.compress(content, mtime=0), f"{name}.gz"
    if cut is not None:
        content = content[: int(cut * len(content))]
    read_with(tmp_path, name, content)


@examples(60)
@given(
    name=st.sampled_from([name for name in ALL_FILES if name.endswith(".parquet")]),
    cut=st.floats(0, 1),
)
def test_cut_parquet_is_a_message(tmp_path: Path, name: str, cut: float) -> None:
    read_with(tmp_path, name, ALL_FILES[name][: int(cut * len(ALL_FILES[name]))])


@examples(150)
@given(
    name=st.sampled_from([*TRAIN_FILES, "train.json.gz", "train.csv.gz"]),
    content=st.binary(max_size=200),
)
def test_any_bytes_are_a_value_or_a_message(tmp_path: Path, name: str, content: bytes) -> None:
    read_with(tmp_path, name, content)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@examples(70)
@given(
    name=st.sampled_from(["corpus.jsonl", "queries.jsonl", "qrels/test.jsonl"]),
    key=st.sampled_from(["_id", "id", "title", "text", "query-id", "qid", "corpus-id", "score"]),
    value=JSON,
)
def test_any_value_under_any_key_is_a_value_or_a_message(
    tmp_path: Path, name: str, key: str, value: Any
) -> None:
    first, *rest = FILES[name].decode().splitlines()
    record = json.dumps({**json.loads(first), key: value})
    read_with(tmp_path, name, "\n".join([record, *rest]).encode("utf-8", "surrogatepass"))


CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)


@examples(100)
@given(
    rows=st.lists(
        st.fixed_dictionaries({"query": CELLS, "positive": CELLS}), min_size=1, max_size=4
    ),
    values=JSON,
)
def test_texts_come_back_from_every_form(
    tmp_path: Path, rows: list[dict[str, str]], values: Any
) -> None:
    nested = [{**row, "more": {"values": values}} for row in rows]
    forms = {
        "a.jsonl": (lines(nested), nested),
        "b.json": (array(nested), nested),
        "c.jsonl": (json.dumps(nested).encode(), nested),
        "d.parquet": (parquet(rows), rows),
        "e.csv": (commas(rows), rows),
    }
    for name, (content, expected) in forms.items():
        (tmp_path / name).write_bytes(content)
        found = [record for *_, record in read_records([tmp_path / name])]
        # as text, for NaN is not NaN
        assert json.dumps(found, sort_keys=True) == json.dumps(expected, sort_keys=True), name


IDS = st.text(
    st.characters(exclude_categories=["C", "Z"], exclude_characters='",'), min_size=1, max_size=6
)


@examples(70)
@given(
    qrels=st.dictionaries(
        IDS, st.dictionaries(IDS, st.integers(1, MAX_GRADE), min_size=1, max_size=3), min_size=1
    )
)
def test_judgements_of_any_ids_come_back_from_every_form(
    tmp_path: Path, qrels: dict[str, dict[str, int]]
) -> None:
    rows = [
        {"query-id": query_id, "corpus-id": document_id, "score": grade}
        for query_id, judged in qrels.items()
        for document_id, grade in judged.items()
    ]
    trec = [{"q": r["query-id"], "0": 0, "d": r["corpus-id"], "s": r["score"]} for r in rows]
    forms = {
        "a.tsv": table(rows),
        "b.tsv": table(rows, header=False),
        "c.csv": table(rows, ","),
        "d.txt": table(trec, " ", header=False),
        "e.trec": table(trec, header=False),
        "f.jsonl": lines(rows),
        "g.parquet": parquet(rows),
    }
    for name, content in forms.items():
        (tmp_path / name).write_bytes(content)
        assert read_qrels(tmp_path / name) == qrels, name
