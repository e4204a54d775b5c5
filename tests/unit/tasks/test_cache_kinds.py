"""Each kind of entry says what it is from, and whether that is what it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers.made_cache import make_cache
from quarry.models.backbones.fingerprint import weights_digest
from quarry.tasks.cache_kinds import KINDS, Folders, Kind, of_embeddings, of_ranking, of_table


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    make_cache(tmp_path / "cache", tmp_path / "data")
    return Folders(cache=tmp_path / "cache", store=tmp_path / "cache" / "embeddings")


def kind(name: str) -> Kind:
    return next(one for one in KINDS if one.name == name)


def test_every_kind_finds_its_own(folders: Folders) -> None:
    counts = {one.name: len(list(one.paths(folders))) for one in KINDS}
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
