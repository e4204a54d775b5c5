"""task=index, from a corpus and from vectors of task=encode, and what task=search finds in it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra.utils import instantiate

import quarry
from helpers.models import tiny_folder, tiny_qwen
from quarry.config.composing import composed_job
from quarry.errors import MissingPathError, UserError
from quarry.search.search_index import SearchIndex
from quarry.tasks.search import SearchRequest, found
from quarry.types import Query

TEXTS = [f"{word} a {thing}" for word in ("read", "write", "close") for thing in "abcdefgh"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a corpus, a cache."""
    folder = tmp_path_factory.mktemp("home")
    tiny_folder(folder / "model")
    lines = [json.dumps({"_id": f"d{i}", "text": text}) for i, text in enumerate(TEXTS)]
    (folder / "corpus.jsonl").write_text("\n".join(lines))
    return folder


def run(home: Path, task: str, *overrides: str, model: str | None = "model") -> Any:
    """Run a task as eval.py does, in this process."""
    named = [] if model is None else [f"model.path={home / model}"]
    given = [f"task={task}", *named, f"paths.cache_dir={home / 'cache'}", *overrides]
    with composed_job("eval", given) as config:
        return instantiate(config.task)(config)


@pytest.fixture(scope="module")
def index(home: Path) -> SearchIndex:
    run(home, "index", f"task.corpus={home}/corpus.jsonl", f"task.output={home}/index")
    return SearchIndex.open(home / "index")


def _request(home: Path, *texts: str, folder: str = "index", **more: Any) -> SearchRequest:
    queries = [Query(query_id=str(i), text=text) for i, text in enumerate(texts)]
    own = more.pop("overrides", ())
    return SearchRequest(
        folders=[str(home / folder)],
        queries=queries,
        overrides=[f"paths.cache_dir={home / 'cache'}", *own],
        **more,
    )


def test_the_index_has_the_corpus_and_its_origin(home: Path, index: SearchIndex) -> None:
    manifest = index.manifest
    assert [index.document(row).text for row in range(len(index))] == TEXTS
    assert manifest.model["overrides"][0] == f"model.path={home}/model"
    assert "model.dtype=float32" in manifest.model["overrides"]
    assert manifest.source["corpus"] == f"{home}/corpus.jsonl"
    assert manifest.recall["recall@10"] == 1
    own = quarry.load(home / "model").encode_documents(TEXTS)
    assert np.allclose(index.vectors(range(len(TEXTS))), own, atol=1e-3)


def test_search_takes_the_model_of_the_index(home: Path, index: SearchIndex) -> None:
    hits, other = found(_request(home, "read a c", 'a (b), "c"? {x: 1} = [y]', top_k=5))
    retriever = quarry.load(home / "model")
    scores = retriever.encode_queries(["read a c"]) @ retriever.encode_documents(TEXTS).T
    best = scores[0].max()
    assert hits[0].score == pytest.approx(float(best), abs=2e-3)
    assert [len(hits), len(other)] == [5, 5]
    (hybrid,) = found(_request(home, "write", top_k=8, hybrid=True))
    assert {hit.document.text[:5] for hit in hybrid[:3]} == {"write"}


def test_an_index_from_python(home: Path, index: SearchIndex) -> None:
    searcher = quarry.open_index(index.folder, paths__cache_dir=str(home / "cache"))
    assert searcher.search(["read a c"], 5) == found(_request(home, "read a c", top_k=5))
    with pytest.raises(UserError, match=r"task\.index=null"):
        quarry.open_index()


def test_a_model_of_another_contract_is_refused(home: Path, index: SearchIndex) -> None:
    with pytest.raises(UserError, match=r"another model or contract.*\n- prompt") as error:
        found(_request(home, "read", overrides=["prompt.query='q: {text}'"]))
    assert "weights" not in str(error.value)
    tiny_folder(home / "other")
    tiny_qwen(initializer_range=0.3).save_pretrained(home / "other")
    with pytest.raises(UserError, match="- weights"):
        found(_request(home, "read", overrides=[f"model.path={home}/other"]))


def test_shards_of_vectors_give_the_same_index(home: Path, index: SearchIndex) -> None:
    where = f"task.corpus={home}/corpus.jsonl", f"task.output={home}/vectors"
    for number in range(2):
        run(home, "encode", *where, f"task.shard={number}/2")
    run(home, "index", f"task.vectors={home}/vectors", f"task.output={home}/second", model=None)
    second = SearchIndex.open(home / "second")
    rows = range(len(TEXTS))
    assert [second.document(row) for row in rows] == [index.document(row) for row in rows]
    assert np.array_equal(second.vectors(rows), index.vectors(rows))
    assert second.manifest.digest == index.manifest.digest
    one, two = (found(_request(home, "read a b", folder=name)) for name in ("index", "second"))
    assert one == two


def test_vectors_of_a_corpus_that_was_changed(home: Path, index: SearchIndex) -> None:
    where = f"task.corpus={home}/changed.jsonl", f"task.output={home}/old"
    (home / "changed.jsonl").write_text('{"_id": "a", "text": "read"}\n')
    run(home, "encode", *where)
    (home / "changed.jsonl").write_text('{"_id": "a", "text": "writ"}\n')
    with pytest.raises(UserError, match=r"task\.vectors=.*not those that were encoded"):
        run(home, "index", f"task.vectors={home}/old", f"task.output={home}/new", model=None)
    assert not (home / "new").exists()


@pytest.mark.parametrize("shards", [(), ("task.shard=0/2", "task.shard=1/2")])
def test_vectors_of_a_corpus_that_was_changed_in_the_middle(
    home: Path, tmp_path: Path, shards: tuple[str, ...]
) -> None:
    """Where the digest of files, which has their ends alone, tells nothing."""
    rows = [{"_id": f"f{i}", "text": f"read {i} " + " " * 4000} for i in range(40)]
    corpus = tmp_path / "large.jsonl"
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    where = f"task.corpus={corpus}", f"task.output={tmp_path / 'old'}"
    for shard in shards or ("task.shard=null",):
        run(home, "encode", *where, shard)
    again = f"task.vectors={tmp_path / 'old'}", f"task.output={tmp_path / 'new'}"
    content = corpus.read_text()
    corpus.write_text(content.replace("read 20 ", "writ 20 "))
    with pytest.raises(UserError, match=r"task\.vectors=.*not those that were encoded"):
        run(home, "index", *again, model=None)
    assert not (tmp_path / "new").exists()
    corpus.write_text(content)
    run(home, "index", *again, model=None)
    assert len(SearchIndex.open(tmp_path / "new")) == 40


def test_recall_by_queries_of_a_file(home: Path) -> None:
    (home / "queries.txt").write_text("read a b\nclose\n")
    pytest.importorskip("faiss")
    result = run(
        home, "index", f"task.corpus={home}/corpus.jsonl", f"task.output={home}/graph",
        f"task.queries={home}/queries.txt", "task/index=faiss_hnsw", "task.index.m=4",
    )  # fmt: skip
    manifest = SearchIndex.open(home / "graph").manifest
    assert manifest.recall["num_queries"] == 2
    assert manifest.index["parameters"]["m"] == 4
    assert result["index/recall@10"] == manifest.recall["recall@10"] > 0.8


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], r"task\.corpus=null: nothing says what is to be indexed"),
        (["task.corpus=none.jsonl"], "none.jsonl"),
        (["task.corpus=x", "task.output=null"], r"task\.output=null"),
        (["task.corpus=x", "task.index=faiss_hnsw"], "Fix: task/index=faiss_hnsw"),
        (["task.corpus=x", "task.dtype=int8"], r"task\.dtype=int8"),
        (["task.corpus=x", "task.bm25=latin"], r"task\.bm25=latin"),
        (["task.corpus=x", "task.num_recall_queries=-1"], r"task\.num_recall_queries=-1"),
        (["task.corpus=x", "task/index=faiss_hnsw", "task.index.m=0"], r"task\.index\.m=0"),
        (["task.corpus=x", "evaluation.top_k=5"], r"evaluation\.top_k has no effect"),
        (["task.corpus=x", "task.queries=none.txt"], r"task\.queries=none.txt"),
        (["task.vectors=none"], "none"),
    ],
)
def test_wrong_values_are_refused(home: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run(home, "index", f"task.output={home}/never", *overrides)
    assert not (home / "never").exists()


def test_without_a_model_nothing_is_built(home: Path) -> None:
    with pytest.raises(UserError, match=r"model\.path"):
        run(home, "index", f"task.corpus={home}/corpus.jsonl", f"task.output={home}/never",
            model=None)  # fmt: skip


def test_relative_names_are_stored_as_absolute(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(home)
    run(Path(), "index", "task.corpus=corpus.jsonl", "task.output=relative")
    monkeypatch.chdir(tmp_path)
    manifest = SearchIndex.open(home / "relative").manifest
    assert os.fspath(home) in manifest.model["overrides"][0]
    assert len(found(_request(home, "read", folder="relative", top_k=2))[0]) == 2


def test_no_folder_is_an_error(home: Path) -> None:
    with pytest.raises(MissingPathError, match="no such folder"):
        found(_request(home, "read", folder="nothing"))
