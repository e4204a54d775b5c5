"""What is fetched from the hub, at which commit, and what is said where that fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from helpers.hub_repos import write_mteb, write_text
from quarry.data.hub_tables import HubTable, find_table_files
from quarry.data.record_files import read_records
from quarry.errors import UserError

PINNED, OTHER = "a" * 40, "b" * 40


@pytest.fixture(autouse=True)
def _caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def cached(tmp_path: Path, commit: str, text: str) -> None:
    """A repository in the hub's cache, as a download leaves it."""
    repo = tmp_path / "hub" / "datasets--mteb--tiny"
    write_mteb(repo / "snapshots" / commit, queries=[{"_id": "1", "text": text}])
    write_text(repo / "refs" / "main", OTHER)


def texts(table: HubTable) -> list[str]:
    records = read_records(find_table_files(table), ("_id", "text"))
    return [record["text"] for _, _, record in records]


def queries_at(revision: str | None) -> HubTable:
    return HubTable(repo="mteb/tiny", revision=revision, configs=("queries",), splits=("queries",))


def test_without_a_network_the_pinned_commit_is_read_and_no_other(tmp_path: Path) -> None:
    cached(tmp_path, PINNED, "pinned")
    cached(tmp_path, OTHER, "newest")
    assert texts(queries_at(PINNED)) == ["pinned"]
    assert texts(queries_at(None)) == ["newest"]
    with pytest.raises(UserError, match=r"mteb/tiny@cccccccc: .*not in the hub's cache") as caught:
        find_table_files(queries_at("c" * 40))
    command = f"hf download --repo-type dataset mteb/tiny --revision {'c' * 40}, or"
    assert command in str(caught.value)


def test_of_what_the_hub_says_the_first_sentence_is_shown_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = "The repository\n  owner.name " + "is not there " * 12 + "at all. Please read on ..."

    def refuse(name: str, **arguments: Any) -> str:
        raise OSError(said)

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(UserError) as caught:
        find_table_files(queries_at(None))
    assert "(The repository owner.name is not there " in str(caught.value)
    assert " is not there at all). Fetch it where there is a network, hf down" in str(caught.value)
    assert "dataset mteb/tiny, or give" in str(caught.value)  # no commit was asked for


def test_the_hub_is_asked_for_the_commit_and_not_for_what_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = write_mteb(tmp_path / "copy")
    (repo / "corpus.jsonl").unlink()
    asked: list[dict[str, Any]] = []

    def download(name: str, **arguments: Any) -> str:
        asked.append({"name": name, **arguments})
        return str(repo)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    table = HubTable(repo="mteb/tiny", revision=PINNED, splits=("test",), skips=("*corpus*",))
    assert [file.name for file in find_table_files(table)] == ["test.jsonl"]
    assert asked == [
        {
            "name": "mteb/tiny",
            "repo_type": "dataset",
            "revision": PINNED,
            "ignore_patterns": ["*corpus*"],
            "local_files_only": True,
        }
    ]


def test_a_copy_that_is_not_complete_is_refused(tmp_path: Path) -> None:
    repo = write_mteb(tmp_path / "copy")
    (repo / "corpus.jsonl").unlink()
    table = HubTable(repo=str(repo), configs=("corpus",), splits=("corpus",))
    with pytest.raises(UserError, match=r"its files cannot be found \(.*corpus\.jsonl"):
        find_table_files(table)


def test_a_name_on_the_hub_is_never_a_folder_that_happens_to_be_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_mteb(tmp_path / "mteb" / "tiny")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="not in the hub's cache"):
        find_table_files(queries_at(None))
    local = HubTable(repo="./mteb/tiny", configs=("queries",), splits=("queries",))
    assert len(texts(local)) == 3
    with pytest.raises(UserError, match=r"\./nowhere: no such folder"):
        find_table_files(HubTable(repo="./nowhere", splits=("test",)))
