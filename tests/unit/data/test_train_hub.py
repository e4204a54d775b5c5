"""Training sets of the hub: the files of one configuration and split at one commit."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from huggingface_hub import constants

from helpers.hub_repos import write_parquet, write_text
from quarry.data.train_examples import TableExamples
from quarry.data.train_files import read_train_hub
from quarry.data.train_forms import TrainColumns
from quarry.errors import UserError

COMMIT = "a" * 40
CARD = """---
configs:
- config_name: pair
  data_files:
  - split: train
    path: pair/train-*.parquet
  - split: test
    path: pair/test-*.parquet
{more}---
"""
TRIPLET = """- config_name: triplet
  data_files:
  - split: train
    path: triplet/train-*.parquet
"""


@pytest.fixture(autouse=True)
def _caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def cached(tmp_path: Path, more: str = "") -> None:
    """A repository in the hub's cache, in the layout of sentence-transformers' data sets."""
    repo = tmp_path / "hub" / "datasets--owner--pairs"
    snapshot = repo / "snapshots" / COMMIT
    write_text(snapshot / "README.md", CARD.format(more=more))
    write_text(repo / "refs" / "main", COMMIT)
    rows = [{"question": f"q{i}", "answer": f"p{i}"} for i in range(4)]
    write_parquet(snapshot / "pair" / "train-00000-of-00002.parquet", rows[:2])
    write_parquet(snapshot / "pair" / "train-00001-of-00002.parquet", rows[2:])
    write_parquet(snapshot / "pair" / "test-00000-of-00001.parquet", [{"question": "", "x": 1}])
    triplet = {"anchor": "q", "positive": "p", "negative": "n"}
    write_parquet(snapshot / "triplet" / "train-00000-of-00001.parquet", [triplet])


def read(tmp_path: Path, **given: object) -> TableExamples:
    given = {"path": "owner/pairs", "revision": COMMIT, "cache_dir": tmp_path / "cache"} | given
    return read_train_hub(**given)  # type: ignore[arg-type]


def test_the_files_of_a_split_are_read_in_order(tmp_path: Path) -> None:
    cached(tmp_path)
    examples = read(tmp_path)
    assert [e.query.text for e in examples] == ["q0", "q1", "q2", "q3"]
    assert [e.positives[0].text for e in examples] == ["p0", "p1", "p2", "p3"]
    assert examples.location(3).endswith("train-00001-of-00002.parquet:2")


def test_one_of_several_configurations_has_to_be_named(tmp_path: Path) -> None:
    cached(tmp_path, TRIPLET)
    (example,) = read(tmp_path, subset="triplet")
    assert [negative.text for negative in example.hard_negatives] == ["n"]
    with pytest.raises(UserError, match="no configuration 'default'; it has pair, triplet"):
        read(tmp_path)
    with pytest.raises(UserError, match="no split 'dev'; it has train"):
        read(tmp_path, subset="triplet", split="dev")


def test_columns_are_named_as_for_files(tmp_path: Path) -> None:
    cached(tmp_path)
    turned = TrainColumns(query="answer", positive="question")
    assert read(tmp_path, columns=turned)[0].query.text == "p0"


def test_what_is_not_pinned_is_logged_with_its_commit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cached(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert len(read(tmp_path, revision=None)) == 4
    (warning,) = [record.getMessage() for record in caplog.records]
    assert COMMIT in warning
    assert "data.revision" in warning
    assert "benchmark" not in warning


def test_what_the_hub_cannot_give_is_refused_with_the_command(tmp_path: Path) -> None:
    command = "hf download --repo-type dataset owner/other, or give files of your own: data=file"
    with pytest.raises(UserError, match=command):
        read(tmp_path, path="owner/other", revision=None)
