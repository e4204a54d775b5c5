"""Repositories in the hub's layouts give the same collection, whatever their files are."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from huggingface_hub import constants

from helpers.hub_repos import (
    CORPUS,
    QRELS,
    QUERIES,
    write_beir,
    write_coir,
    write_coir_eval,
    write_lines,
    write_mteb,
    write_tevatron,
    write_text,
)
from quarry.data.corpus import Corpus
from quarry.data.hub_set import HubTables, mteb_tables, read_hub_set
from quarry.data.hub_tables import HubTable
from quarry.errors import UserError
from quarry.types import Document, Query, RetrievalSet


@pytest.fixture(autouse=True)
def _cache_of_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")


def read(tables: HubTables, folder: Path) -> RetrievalSet:
    return read_hub_set(tables=tables, name="tiny", content="text", cache_dir=folder / "cache")


def tevatron_tables(folder: Path) -> HubTables:
    passages, queries = write_tevatron(folder)
    judged = mteb_tables(str(write_mteb(folder / "mteb")), split="test")
    return HubTables(
        corpus=HubTable(repo=str(passages), splits=("train",)),
        queries=HubTable(repo=str(queries), splits=("validation",)),
        qrels=judged.qrels,
    )


def layout(name: str, folder: Path) -> HubTables:
    if name == "mteb":
        return mteb_tables(str(write_mteb(folder)), split="test")
    if name == "beir":
        texts, qrels = write_beir(folder)
        return mteb_tables(str(texts), qrels_repo=str(qrels), split="test")
    if name == "coir":
        return mteb_tables(str(write_coir(folder)), split="test")
    if name == "codesearchnet":
        repo = write_coir(folder, subsets=("python", "go"))
        return mteb_tables(str(repo), split="test", subset="go")
    if name == "coir-eval":
        texts, qrels = write_coir_eval(folder)
        return mteb_tables(str(texts), qrels_repo=str(qrels), split="test")
    return tevatron_tables(folder)


LAYOUTS = ("mteb", "beir", "coir", "codesearchnet", "coir-eval", "tevatron")


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_gives_the_same_collection(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        found = read(layout(name, tmp_path / "hub"), tmp_path)
    assert list(found.corpus) == [
        Document(document_id=row["_id"], title=row["title"], text=row["text"]) for row in CORPUS
    ]
    # in the order of the table, and only those that this split judges
    assert found.queries == [
        Query(query_id=row["_id"], text=row["text"]) for row in QUERIES if row["_id"] != "9"
    ]
    assert found.qrels == {"1": {"d1": 2, "007": 0}, "02": {"007": 1}}
    assert all(type(g) is int for judged in found.qrels.values() for g in judged.values())
    assert (found.name, found.content) == ("tiny", "text")
    assert caplog.text == ""


def test_the_source_is_each_repository_at_its_commit_and_the_split() -> None:
    assert mteb_tables("mteb/x", revision="a" * 40, split="dev").source == f"mteb/x@{'a' * 40}, dev"
    apart = mteb_tables(
        "BeIR/x",
        revision="a" * 40,
        qrels_repo="BeIR/x-qrels",
        qrels_revision="b" * 40,
        split="test",
    )
    texts = f"BeIR/x@{'a' * 40}"
    assert apart.source == (
        f"corpus {texts}; queries {texts}; judgements BeIR/x-qrels@{'b' * 40}, test"
    )


def test_of_a_local_copy_the_source_is_its_name(tmp_path: Path) -> None:
    assert read(layout("mteb", tmp_path / "hub"), tmp_path).source == "hub, test"


def test_all_tables_are_read_at_one_commit_which_is_recorded_and_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    commit, cached = "a" * 40, tmp_path / "hub" / "datasets--mteb--tiny"
    write_mteb(cached / "snapshots" / commit)
    for branch in ("main", "other"):
        write_text(cached / "refs" / branch, commit)
    with caplog.at_level(logging.WARNING):
        newest = read(mteb_tables("mteb/tiny", split="test"), tmp_path)
    assert newest.source == f"mteb/tiny@{commit}, test"
    (record,) = caplog.records
    assert "mteb/tiny is not pinned" in record.message
    assert f"commit {commit}" in record.message
    branch = read(mteb_tables("mteb/tiny", revision="other", split="test"), tmp_path)
    assert branch.source == newest.source
    caplog.clear()
    pinned = read(mteb_tables("mteb/tiny", revision=commit, split="test"), tmp_path)
    assert pinned.source == newest.source
    assert caplog.text == ""


def test_the_corpus_is_the_memory_mapped_table_and_is_built_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tables = layout("mteb", tmp_path / "hub")
    with caplog.at_level(logging.INFO, logger="quarry"):
        first, second = read(tables, tmp_path), read(tables, tmp_path)
    assert isinstance(first.corpus, Corpus)
    assert list(first.corpus.rows_of(["007", "7", "d3"])) == [1, -1, 2]
    assert list(second.corpus) == list(first.corpus)
    assert caplog.text.count("building ") == 1
    assert len(list((tmp_path / "cache").glob("corpus-*.arrow"))) == 1


def test_another_split_has_its_own_judgements_and_queries(tmp_path: Path) -> None:
    repo = str(write_mteb(tmp_path / "hub"))
    found = read(mteb_tables(repo, split="train"), tmp_path)
    assert found.qrels == {"9": {"d1": 1}}
    assert [query.query_id for query in found.queries] == ["9"]
    texts, qrels = write_beir(tmp_path / "beir")
    dev = read(mteb_tables(str(texts), qrels_repo=str(qrels), split="dev"), tmp_path)
    assert dev.qrels == {"02": {"007": 1}}


def test_an_unknown_split_or_subset_names_those_that_there_are(tmp_path: Path) -> None:
    repo = write_coir(tmp_path / "hub", subsets=("python", "go"))
    with pytest.raises(UserError, match=r"no split 'dev' or 'validation'; it has train, test, val"):
        read(mteb_tables(str(repo), split="dev", subset="go"), tmp_path)
    with pytest.raises(UserError, match=r"no configuration 'rust-qrels'; it has .*go-queries"):
        read(mteb_tables(str(repo), split="test", subset="rust"), tmp_path)


def test_judgements_without_positives_are_refused_before_the_corpus_is_read(tmp_path: Path) -> None:
    nothing = [{**row, "score": 0} for row in QRELS]
    repo = write_mteb(tmp_path / "hub", qrels=nothing)
    with pytest.raises(UserError, match="no judgement is positive"):
        read(mteb_tables(str(repo), split="test"), tmp_path)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([*QRELS, {**QRELS[0], "score": 1}], r"qrels/test\.jsonl:4: .*another grade on line 1"),
        ([{**QRELS[0], "score": 1.5}], r"qrels/test\.jsonl:1: the grade 1\.5 is not an integer"),
        ([{"query-id": "1", "score": 1}], r"test\.jsonl:1: lacks 'corpus-id' or 'corpus_id'"),
        ([{**QRELS[0], "query-id": "8"}], r"1 of 1 judged queries are not there, .* '8'"),
        ([{**QRELS[0], "corpus-id": "x"}], r"none of its 1 judged documents is in the corpus"),
    ],
)
def test_judgements_that_cannot_be_used_are_named(
    rows: list[dict], message: str, tmp_path: Path
) -> None:
    repo = write_mteb(tmp_path / "hub", qrels=rows)
    with pytest.raises(UserError, match=message):
        read(mteb_tables(str(repo), split="test"), tmp_path)


@pytest.mark.parametrize(
    ("key", "rows", "message"),
    [
        ("queries", [*QUERIES, QUERIES[1]], r"queries\.jsonl:4: the id '02' stands on line 2"),
        ("queries", [*QUERIES[:2], {"_id": "1", "text": " "}], "query '1' is empty"),
        ("corpus", [*CORPUS, CORPUS[1]], r"corpus\.jsonl:4: the id '007' stands on line 2"),
        ("corpus", [*CORPUS, {"_id": "d4"}], r"corpus\.jsonl:4: 'text' is missing"),
    ],
)
def test_texts_that_cannot_be_used_are_named(
    key: str, rows: list[dict], message: str, tmp_path: Path
) -> None:
    repo = write_mteb(tmp_path / "hub")
    write_lines(repo / f"{key}.jsonl", rows)
    with pytest.raises(UserError, match=message):
        read(mteb_tables(str(repo), split="test"), tmp_path)


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    repo = write_coir(tmp_path / "hub")
    file = repo / "queries" / "queries-00000-of-00001.parquet"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"queries-00000-of-00001\.parquet: not a sound Parquet"):
        read(mteb_tables(str(repo), split="test"), tmp_path)


def test_ids_that_are_numbers_become_strings(tmp_path: Path) -> None:
    repo = write_mteb(
        tmp_path / "hub",
        corpus=[{"_id": 5, "title": None, "text": "five"}],
        queries=[{"_id": 1, "text": "one?"}],
        qrels=[{"query-id": 1, "corpus-id": 5, "score": 1}],
    )
    found = read(mteb_tables(str(repo), split="test"), tmp_path)
    assert found.qrels == {"1": {"5": 1}}
    assert found.corpus[0] == Document(document_id="5", text="five")
