"""Texts of every kind of source become one corpus, and what is left out is counted."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants

from helpers.hub_repos import write_mteb
from quarry.data import document_source, text_files
from quarry.data.document_reader import DocumentColumns
from quarry.data.document_source import Documents, read_documents
from quarry.data.source_part import SourcePart
from quarry.data.text_splitter import TextSplitter
from quarry.errors import MissingPathError, UserError
from quarry.types import Document

RECORDS = [
    {"_id": "a", "title": "A", "text": "first", "url": "http://a"},
    {"_id": "b", "text": ""},
    {"_id": "c", "title": "", "text": "third"},
]
DOCUMENTS = [
    Document(document_id="a", title="A", text="first"),
    Document(document_id="b", text=""),
    Document(document_id="c", text="third"),
]


def lines(records: list[dict[str, str]]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def read(source: Path | str, tmp_path: Path, **more: object) -> Documents:
    return read_documents(str(source), cache_dir=tmp_path / "cache", **more)  # type: ignore[arg-type]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(lines(RECORDS))
    return path


@pytest.mark.parametrize("form", ["jsonl", "jsonl.gz", "parquet", "beir", "files"])
def test_tables_of_all_forms_are_read(tmp_path: Path, form: str) -> None:
    source = tmp_path / "set"
    source.mkdir()
    if form == "parquet":
        source = source / "x.parquet"
        rows = [{key: record.get(key) for key in RECORDS[0]} for record in RECORDS]
        pq.write_table(pa.Table.from_pylist(rows), source)
    elif form == "jsonl.gz":
        source = source / "x.jsonl.gz"
        source.write_bytes(gzip.compress(lines(RECORDS)))
    elif form == "files":
        (source / "1.jsonl").write_bytes(lines(RECORDS[:1]))
        (source / "2.jsonl").write_bytes(lines(RECORDS[1:]))
        (source / "README.md").write_text("about")
    elif form == "beir":
        (source / "corpus.jsonl").write_bytes(lines(RECORDS))
        (source / "notes.txt").write_text("about")
    else:
        source = source / "x.jsonl"
        source.write_bytes(lines(RECORDS))
    documents = read(source, tmp_path)
    assert list(documents.corpus) == DOCUMENTS
    assert documents.caveats == (
        "1 of 3 documents are empty and are encoded as they are",
        "keys that are not read: url",
    )
    assert read(source, tmp_path).caveats == documents.caveats  # of the cached table, too


def test_columns_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("key,head,body\n7,T,hello\n")
    columns = DocumentColumns(id="key", title="head", text="body")
    found = list(read(path, tmp_path, columns=columns).corpus)
    assert found == [Document(document_id="7", title="T", text="hello")]
    with pytest.raises(UserError, match=r"x\.csv:2: .*'_id'"):
        read(path, tmp_path)


def test_queries_are_those_of_the_folder(tmp_path: Path, table: Path) -> None:
    (tmp_path / "queries.jsonl").write_bytes(lines([{"_id": "q", "text": "what", "title": "T"}]))
    documents = read(tmp_path, tmp_path, role="query")
    assert list(documents.corpus) == [Document(document_id="q", text="what")]
    assert documents.caveats == ("1 queries have titles, which are not encoded",)


def test_a_folder_with_the_other_table_alone_is_no_folder_of_texts(
    tmp_path: Path, table: Path
) -> None:
    with pytest.raises(MissingPathError, match=r"queries\.jsonl: no such file"):
        read(table.parent, tmp_path, role="query")
    code = tmp_path / "code"
    code.mkdir()
    (code / "corpus.py").write_text("x = 1")
    assert [d.document_id for d in read(code, tmp_path).corpus] == ["corpus.py:1-1"]


def test_a_data_set_of_the_hub_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    repo = write_mteb(tmp_path / "repo")
    documents = read(repo, tmp_path, kind="hub")
    assert len(documents.corpus) > 0
    assert len(read(repo, tmp_path, kind="hub", role="query").corpus) > 0
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="nobody/nothing.*task.corpus"):
        read("nobody/nothing", tmp_path)


def code_base(folder: Path) -> Path:
    (folder / "pkg").mkdir(parents=True)
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("secret")
    (folder / "node_modules").mkdir()
    (folder / "node_modules" / "x.js").write_text("x")
    (folder / "pkg" / "a.py").write_text("".join(f"line {i}\n" for i in range(1, 9)))
    (folder / "pkg" / "ünï.weird").write_text("text of any extension")
    (folder / "README").write_bytes(b"\xef\xbb\xbfhello\r\nthere\r\n")
    (folder / "blank.txt").write_text("\n \n")
    (folder / "image.png").write_bytes(b"\x89PNG\0\1")
    (folder / "latin.txt").write_bytes("café".encode("latin-1"))
    (folder / ".hidden").write_text("x")
    (folder / "huge.txt").write_text("x" * 200)
    (folder / "link.txt").symlink_to(folder / "README")
    os.mkfifo(folder / "pipe")
    return folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(text_files, "MAX_FILE_BYTES", 100)
    return code_base(tmp_path / "code")


SPLITTER = TextSplitter(size=30, overlap=10)


def test_a_folder_of_files_is_split_and_everything_left_out_is_counted(
    tmp_path: Path, folder: Path
) -> None:
    documents = read(folder, tmp_path, splitter=SPLITTER)
    assert [(d.document_id, d.title, d.text) for d in documents.corpus] == [
        ("README:1-2", "README", "hello\nthere"),
        ("pkg/a.py:1-4", "pkg/a.py", "line 1\nline 2\nline 3\nline 4"),
        ("pkg/a.py:4-7", "pkg/a.py", "line 4\nline 5\nline 6\nline 7"),
        ("pkg/a.py:7-8", "pkg/a.py", "line 7\nline 8"),
        ("pkg/ünï.weird:1-1", "pkg/ünï.weird", "text of any extension"),
    ]
    counts = [caveat.split(" ", 1) for caveat in documents.caveats]
    assert [(int(number), what.split()[0]) for number, what in counts] == [
        (2, "hidden"), (1, "folders"), (1, "links"), (1, "files"), (2, "binary"), (1, "files"),
        (1, "files"), (1, "of"),
    ]  # fmt: skip
    assert counts[-1][1] == "of 3 documents were split: 5 texts"
    again = read(folder, tmp_path, splitter=SPLITTER)
    assert again.caveats == documents.caveats
    assert again.corpus.table == documents.corpus.table  # type: ignore[attr-defined]
    assert read(folder, tmp_path, splitter=TextSplitter(size=31, overlap=9)).digest != again.digest


def test_counts_that_a_killed_process_did_not_write_are_made_again(
    tmp_path: Path, folder: Path
) -> None:
    documents = read(folder, tmp_path, splitter=SPLITTER)
    (counts,) = (tmp_path / "cache").glob(f"*{document_source.CAVEATS}")
    counts.unlink()
    assert read(folder, tmp_path, splitter=SPLITTER).caveats == documents.caveats


def test_a_changed_file_is_read_again(tmp_path: Path, folder: Path) -> None:
    before = read(folder, tmp_path)
    (folder / "README").write_text("something else")
    after = read(folder, tmp_path)
    assert after.corpus[0].text == "something else"
    assert after.digest != before.digest


def test_parts_make_up_the_folder_and_one_counts_what_none_opens(
    tmp_path: Path, folder: Path
) -> None:
    whole = read(folder, tmp_path, splitter=SPLITTER)
    parts = [
        read(folder, tmp_path, splitter=SPLITTER, part=SourcePart(number=n, count=8))
        for n in range(8)
    ]
    assert [d for part in parts for d in part.corpus] == list(whole.corpus)
    assert {part.digest for part in parts} == {whole.digest}
    assert sum("hidden" in caveat for part in parts for caveat in part.caveats) == 1
    assert any(part.corpus == () for part in parts)


def test_the_splitter_applies_to_tables_on_request(tmp_path: Path, table: Path) -> None:
    documents = read(table, tmp_path, splitter=TextSplitter(unit="words", size=1, overlap=0))
    assert [d.document_id for d in documents.corpus] == ["a", "b", "c"]
    table.write_bytes(lines([{"_id": "a", "title": "T", "text": "one two three"}]))
    documents = read(table, tmp_path, splitter=TextSplitter(unit="words", size=2, overlap=0))
    assert [(d.document_id, d.title) for d in documents.corpus] == [
        ("a:1-1", "T"),
        ("a:1-1#2", "T"),
    ]


def test_repeated_ids_and_sources_without_texts_are_refused(tmp_path: Path, table: Path) -> None:
    table.write_bytes(lines([{"_id": "a", "text": "x"}, {"_id": "a", "text": "y"}]))
    with pytest.raises(UserError, match=r"corpus\.jsonl:2: the id 'a' stands on line 1"):
        read(table, tmp_path)
    table.write_bytes(b"")
    with pytest.raises(UserError, match="holds no texts"):
        read(table, tmp_path)
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.bin").write_bytes(b"\0")
    with pytest.raises(UserError, match="holds no texts.*1 binary files"):
        read(tmp_path / "none", tmp_path)


def test_sources_that_cannot_be_meant_are_refused(tmp_path: Path, table: Path) -> None:
    with pytest.raises(MissingPathError, match="no such file"):
        read(tmp_path / "absent.jsonl", tmp_path)
    with pytest.raises(UserError, match="task.kind=pages"):
        read(table, tmp_path, kind="pages")
    with pytest.raises(UserError, match="task.split=test: has no effect"):
        read(table, tmp_path, split="test")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(UserError, match="files are read as tables"):
        read(tmp_path / "a.txt", tmp_path)


TABLE_FOLDERS = {
    "arrow": ["data-00000.arrow", "dataset_info.json", "state.json"],
    "hub": ["README.md", "data/train-00000.parquet", "data/test-00000.parquet"],
    "nested": ["a/x.jsonl"],
    "compressed": ["x.csv.gz", "notes.txt"],
}


@pytest.mark.parametrize("name", TABLE_FOLDERS)
def test_tables_are_not_read_as_texts(tmp_path: Path, name: str) -> None:
    for file in TABLE_FOLDERS[name]:
        (tmp_path / "set" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / file).write_text('{"_id": "a", "text": "x"}\n')
    with pytest.raises(UserError, match=r"task\.corpus=.*holds tables.*Fix: .*task\.kind=texts"):
        read(tmp_path / "set", tmp_path)
    assert len(read(tmp_path / "set", tmp_path, kind="texts").corpus) >= 1


def test_a_folder_that_spark_wrote_is_a_table(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "part-00000.json").write_bytes(lines(RECORDS))
    (tmp_path / "set" / "_SUCCESS").touch()
    assert list(read(tmp_path / "set", tmp_path).corpus) == DOCUMENTS


def test_a_source_tree_with_json_files_is_texts(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "main.js").write_text("x = 1")
    (tmp_path / "code" / "package.json").write_text("{}")
    found = read(tmp_path / "code", tmp_path).corpus
    assert [d.title for d in found] == ["main.js", "package.json"]


def test_binary_files_are_named_by_their_endings(tmp_path: Path, folder: Path) -> None:
    (folder / "b.PNG").write_bytes(b"\0")
    (folder / "c.bin").write_bytes(b"\0")
    binary = "4 binary files are left out (.bin, .png)"
    assert binary in read(folder, tmp_path).caveats
    assert binary in read(folder, tmp_path).caveats  # of the cached table, too


@pytest.mark.parametrize(
    ("rules", "key"),
    [
        ({"size": 500}, "task.splitter.size=500"),
        ({"overlap": 9}, "task.splitter.overlap=9"),
        ({"borders": "paragraphs"}, "task.splitter.borders=paragraphs"),
    ],
)
def test_rules_that_cut_no_table_are_refused(
    tmp_path: Path, table: Path, rules: dict[str, object], key: str
) -> None:
    splitter = TextSplitter(**rules)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=f"{key}: has no effect.*task.splitter.unit=characters"):
        read(table, tmp_path, splitter=splitter)
    assert len(read(table, tmp_path, splitter=TextSplitter()).corpus) == 3


def test_columns_that_do_not_exist_are_refused(tmp_path: Path, table: Path, folder: Path) -> None:
    with pytest.raises(UserError, match=r"task\.columns\.title=headng: no record.*Fix: "):
        read(table, tmp_path, columns=DocumentColumns(title="headng"))
    part = read(
        table, tmp_path, columns=DocumentColumns(title="headng"), part=SourcePart(number=0, count=1)
    )
    assert "no record of this shard has task.columns.title=headng" in part.caveats
    with pytest.raises(UserError, match=r"task\.columns\.text=body: has no effect.*texts"):
        read(folder, tmp_path, columns=DocumentColumns(text="body"))


def test_a_path_that_does_not_exist_is_named_before_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="^task.corpus=data/scifactt: no such path.*hub's cache"):
        read("data/scifactt", tmp_path)
