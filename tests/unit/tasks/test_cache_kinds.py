"""Each kind of entry says what it is from, and whether that is what it was."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from helpers.made_cache import LEFTOVER, make_cache
from quarry.data.arrow_table import LINE, open_table
from quarry.models.backbones.fingerprint import file_digest, weights_digest
from quarry.retrieval.cached_rankings import CachedRankings
from quarry.retrieval.rerankers.score_cache import ScoreCache
from quarry.retrieval.store.shelf import Shelf
from quarry.runtime import cache_use
from quarry.stand_ins import stdlib_code
from quarry.stand_ins.made_folder import made_once
from quarry.stand_ins.stdlib_code import build_stdlib_code
from quarry.tasks.cache_kinds import (
    KINDS,
    Folders,
    Kind,
    Origin,
    of_embeddings,
    of_pair_scores,
    of_ranking,
    of_table,
)
from quarry.types import RetrievalSet


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    make_cache(tmp_path / "cache", tmp_path / "data")
    return Folders(cache=tmp_path / "cache", store=tmp_path / "cache" / "embeddings")


def kind(name: str) -> Kind:
    return next(one for one in KINDS if one.name == name)


def test_every_kind_finds_its_own(folders: Folders) -> None:
    counts = Counter(one.name for one in KINDS for _ in one.paths(folders))
    assert counts == {
        "corpus": 4, "examples": 4, "ranking": 4, "embeddings": 3, "replica": 3,
        "stdlib_code": 1, "unfinished": 1,
    }  # fmt: skip


def test_tables_know_whether_their_source_is_what_it_was(folders: Folders) -> None:
    found = [
        of_table(path) for name in ("corpus", "examples") for path in kind(name).paths(folders)
    ]
    states = {Path(one.source).parent.name + Path(one.source).stem: one.state for one in found}
    assert states.pop("fiqacorpus") == "changed"
    assert states.pop("trainold") == "gone"
    assert set(states.values()) == {"unchanged"}
    damaged = next(kind("corpus").paths(folders))
    damaged.write_bytes(b"x")
    assert of_table(damaged).source == "damaged"


def test_a_ranking_says_what_was_ranked(folders: Folders) -> None:
    path = next(kind("ranking").paths(folders))
    assert of_ranking(path).source.endswith(", test")
    assert [file.suffix for file in kind("ranking").files_of(path)] == [".json", ".about", ".lock"]
    path.with_suffix(".about").unlink()
    assert (of_ranking(path).source, of_ranking(path).state) == ("not recorded", "-")


def test_embeddings_know_whether_the_weights_are_what_they_were(
    folders: Folders, tmp_path: Path
) -> None:
    zero, one, two = kind("embeddings").paths(folders)
    assert of_embeddings(zero).state == of_embeddings(one).state == "gone"
    assert of_embeddings(two).state == "changed"
    model = tmp_path / "data" / "model-2"
    (model / "config.json").write_text("{}")
    digest = weights_digest(str(model), memo=folders.store / "weights")
    (two / "contract.json").write_text(json.dumps({"weights": [digest]}))
    assert of_embeddings(two).state == "unchanged"
    (model / "config.json").write_text("{ }")
    assert of_embeddings(two).state == "changed"


def use_table(folders: Folders, name: str) -> None:
    source = folders.cache / "source.jsonl"
    if not source.exists():
        source.write_text("one")
    open_table(
        cache_dir=folders.cache, kind=name, sources=[source], rows=[(1,)],
        schema=pa.schema([(LINE, pa.int64())]),
    )  # fmt: skip


def use_ranking(folders: Folders) -> None:
    dataset = RetrievalSet(name="s", queries=[], qrels={}, corpus=[])
    cached = CachedRankings(folders.cache / "rankings")
    cached.get(lambda: {"q": {"d": 1.0}}, dataset=dataset, method="bm25")


def use_shelf(folders: Folders) -> None:
    contract = {"weights": ["x"]}
    shelf = Shelf(store=folders.store, contract=contract, dim=2, dtype="float32", made_by={})
    if not shelf.folder.exists():
        shelf.folder.mkdir(parents=True)
        (shelf.folder / "contract.json").write_text(json.dumps(contract))


def use_hash(folders: Folders) -> None:
    file = folders.cache / "config.json"
    if not file.exists():
        file.write_text("{}")
    file_digest(file, memo=folders.store / "weights")


def use_reranker_hash(folders: Folders) -> None:
    file = folders.cache / "config.json"
    if not file.exists():
        file.write_text("{}")
    file_digest(file, memo=folders.cache / "pair_scores" / "weights")


def use_replica(folders: Folders) -> None:
    made_once(
        folders.cache / "models" / f"qwen-tiny-{'0' * 16}",
        lambda folder: (folder / "model.safetensors").touch(),
    )


USES: dict[str, Callable[[Folders], object]] = {
    "corpus": lambda folders: use_table(folders, "corpus"),
    "examples": lambda folders: use_table(folders, "beir-examples"),
    "ranking": use_ranking,
    "embeddings": use_shelf,
    "weights_hash": use_hash,
    "pair_scores": lambda folders: ScoreCache(folders.cache, identity={}, model="m"),
    "reranker_hash": use_reranker_hash,
    "replica": use_replica,
    "stdlib_code": lambda folders: build_stdlib_code(cache_dir=folders.cache),
}


@pytest.mark.parametrize("name", [one.name for one in KINDS if one.name != "unfinished"])
def test_an_entry_that_is_used_is_marked_as_used(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # one module, not the complete library
    monkeypatch.setattr(stdlib_code, "_source_files", lambda root: [root / "textwrap.py"])
    folders = Folders(cache=tmp_path, store=tmp_path / "embeddings")
    USES[name](folders)
    (path,) = kind(name).paths(folders)
    os.utime(path, (1, 1))
    monkeypatch.setattr(cache_use, "_kept", {})  # as another process
    USES[name](folders)
    assert list(kind(name).paths(folders)) == [path]
    assert path.stat().st_mtime > 1


def test_the_files_of_others_are_not_listed(folders: Folders) -> None:
    foreign = (
        "corpus-of-my-thesis.arrow", f"corpus-{'f' * 24}.arrow", f"examples-{'f' * 24}.arrow",
        ".editor.tmp", ".corpus-1.arrow.1.ab.tmp", "stdlib_code-notes.jsonl",
        "rankings/mine.json", "rankings/.mine.tmp", "models/bert-0123456789abcdef/config.json",
        "models/bert-0123456789abcdef/model.safetensors",
        "models/qwen-tiny-0123456789abcdef/notes.txt", "models/bert-0123456789abcdefghijklmn/x",
        "embeddings/pact/contract.json", f"embeddings/{'e' * 32}/contract.json",
        f"embeddings/{'d' * 32}/work.txt", "embeddings/weights/notes.txt",
        "embeddings/.mine.removed.tmp",
    )  # fmt: skip
    before = {path for one in KINDS for path in one.paths(folders)}
    for name in foreign:
        path = folders.cache / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    assert {path for one in KINDS for path in one.paths(folders)} == before


def test_what_killed_processes_left_is_listed(folders: Folders) -> None:
    table = next(kind("corpus").paths(folders))
    built = f".{table.name}.7.0a1b2c3d"
    left = {
        f"{built}.tmp", f"{built[:-1]}e.ids.npy.tmp", f"{built[:-1]}f.ids.npy",
        f"corpus-{'a' * 24}.ids.npy",
        ".stdlib_code-v1-py3.11.7-c473d17ac5b3.jsonl.7.tmp",
        f"rankings/.bm25-{'a' * 24}.json.7.tmp", f"rankings/.bm25-{'a' * 24}.about.7.tmp",
        "models/qwen-tiny-0123456789abcdefab12cd_9",
        "models/.qwen-vl-replica-0123456789abcdef.removed.tmp",
        f"embeddings/.{'a' * 32}.removed.tmp", f"embeddings/weights/.{'a' * 64}.7.tmp",
    }  # fmt: skip
    installed = f"corpus-{'b' * 24}"
    for name in {
        *left,
        f"{built}.ids.npy.tmp",
        f"{installed}.ids.npy",
        f".{installed}.arrow.7.0a1b2c3d.tmp",
    }:
        (folders.cache / name).parent.mkdir(exist_ok=True)
        (folders.cache / name).touch()
    found = {
        path.relative_to(folders.cache).as_posix()
        for one in KINDS if one.name == "unfinished" for path in one.paths(folders)
    }  # fmt: skip
    table_and_index = kind("unfinished").files_of(folders.cache / f"{built}.tmp")
    assert [path.name for path in table_and_index] == [f"{built}.tmp", f"{built}.ids.npy.tmp"]
    assert found == left | {LEFTOVER, f".{installed}.arrow.7.0a1b2c3d.tmp"}


def test_hashes_of_files_are_listed_once_no_store_needs_them(
    folders: Folders, tmp_path: Path
) -> None:
    memo, model = folders.store / "weights", tmp_path / "data" / "model-2"
    (model / "config.json").write_text("{}")
    weights_digest(str(model), memo=memo)
    (needed,) = memo.iterdir()
    (memo / ("a" * 64)).write_text("f" * 64)
    assert list(kind("weights_hash").paths(folders)) == [memo / ("a" * 64)]
    (folders.store / ("2" * 32) / "contract.json").unlink()
    assert set(kind("weights_hash").paths(folders)) == {needed, memo / ("a" * 64)}
    manifest = folders.store / ("1" * 32) / "abc" / "manifest.json"
    manifest.write_text(json.dumps({"made_by": {"model": "of/the-hub"}}))
    assert not list(kind("weights_hash").paths(folders))


def test_scores_of_pairs_name_their_reranker(tmp_path: Path) -> None:
    model = tmp_path / "reranker"
    model.mkdir()
    made = ScoreCache(tmp_path / "cache", identity={"weights": "x"}, model=str(model))
    made.write(np.array([b"1" * 16], dtype="S16"), np.zeros((2, 1), np.float32))
    folders = Folders(cache=tmp_path / "cache", store=tmp_path / "cache" / "embeddings")
    (found,) = kind("pair_scores").paths(folders)
    assert found == made.folder
    assert of_pair_scores(found) == Origin(source=str(model), state="-")
    model.rmdir()
    assert of_pair_scores(found).state == "gone"
    (found / "about.json").write_text("[")
    assert of_pair_scores(found).source == "not recorded"
