"""benchmark=folder and benchmark=hub: what is found, how it is called, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from helpers.beir_folders import write_beir_folder
from helpers.hub_repos import write_beir, write_coir
from quarry.errors import MissingPathError, UserError
from quarry.evaluation.benchmark import Benchmark
from quarry.evaluation.benchmarks.folder import folder_benchmark
from quarry.evaluation.benchmarks.hub import hub_benchmark


def from_folder(tmp_path: Path, path: Path | str | None, **more: Any) -> Benchmark:
    arguments: dict[str, Any] = {
        "path": None if path is None else str(path),
        "sets": None,
        "split": "test",
        "remove_self_match": False,
        "content": "text",
        "cache_dir": tmp_path / "cache",
    }
    return folder_benchmark(**(arguments | more))


def test_an_unknown_set_or_split_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    write_beir_folder(tmp_path / "sets" / "one")
    write_beir_folder(tmp_path / "sets" / "two", split="dev")
    sets = tmp_path / "sets"
    with pytest.raises(UserError, match=r"three not found in .*; it has one, two"):
        from_folder(tmp_path, sets, sets=["one", "three"])
    with pytest.raises(MissingPathError, match=r"two: no split 'test'.*choose one of: dev"):
        from_folder(tmp_path, sets)
    assert [one.name for one in from_folder(tmp_path, sets, sets=["one"]).sets] == ["one"]
    with pytest.raises(UserError, match="names one twice"):
        from_folder(tmp_path, sets, sets=["one", "one"])
    with pytest.raises(MissingPathError, match=r"benchmark\.path is not set"):
        from_folder(tmp_path, None)
    for empty in ("", " "):
        with pytest.raises(MissingPathError, match=r"^benchmark\.path is empty"):
            from_folder(tmp_path, empty)


def test_a_link_is_called_by_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_beir_folder(tmp_path / "sets" / "one")
    (tmp_path / "sets" / "linked").symlink_to(tmp_path / "sets" / "one")
    names = [one.name for one in from_folder(tmp_path, tmp_path / "sets").sets]
    assert names == ["linked", "one"]
    monkeypatch.chdir(tmp_path / "sets" / "one")
    assert [one.name for one in from_folder(tmp_path, Path()).sets] == ["one"]


def from_hub(tmp_path: Path, repo: Path | None, **more: Any) -> Benchmark:
    arguments: dict[str, Any] = {
        "repo": None if repo is None else str(repo),
        "revision": None,
        "qrels_repo": None,
        "qrels_revision": None,
        "subset": None,
        "split": "test",
        "name": None,
        "remove_self_match": False,
        "uses_title": True,
        "content": "text",
        "cache_dir": tmp_path / "cache",
    }
    return hub_benchmark(**(arguments | more))


def test_any_repository_of_a_known_layout_is_a_benchmark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    texts, qrels = write_beir(tmp_path)
    (one,) = from_hub(tmp_path, texts, qrels_repo=str(qrels), uses_title=False).sets
    assert (one.name, len(one.data.corpus), one.uses_title) == ("name", 3, False)
    repo = write_coir(tmp_path / "CodeSearchNet", subsets=("go",))
    (go,) = from_hub(tmp_path, repo, subset="go", content="code").sets
    assert (go.name, go.data.name, go.data.content) == ("CodeSearchNet-go",) * 2 + ("code",)
    (named,) = from_hub(tmp_path, repo, subset="go", name="mine").sets
    assert named.name == "mine"


def test_the_hub_needs_a_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"benchmark\.repo=OWNER/NAME"):
        from_hub(tmp_path, None)
