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
    with pytest.raises(UserError, match=r"three not found in .* \(it has one, two"):
        from_folder(tmp_path, sets, sets=["one", "three"])
    with pytest.raises(MissingPathError, match=r"two: no split 'test'.*choose one of: dev"):
        from_folder(tmp_path, sets, sets=["two"])
    with pytest.raises(MissingPathError, match=r"(?s)one: no split 'x'.*two: no split 'x'"):
        from_folder(tmp_path, sets, split="x")
    with pytest.raises(UserError, match=r"^benchmark\.absent_queries=keep: unknown \(refuse, drop"):
        from_folder(tmp_path, sets, absent_queries="keep")
    assert [one.name for one in from_folder(tmp_path, sets, sets=["one"]).sets] == ["one"]
    with pytest.raises(UserError, match="names one twice"):
        from_folder(tmp_path, sets, sets=["one", "one"])
    with pytest.raises(MissingPathError, match=r"benchmark\.path is not set"):
        from_folder(tmp_path, None)
    for empty in ("", " "):
        with pytest.raises(MissingPathError, match=r"^benchmark\.path is empty"):
            from_folder(tmp_path, empty)


def test_of_several_sets_one_that_cannot_be_read_is_there_and_fails_when_it_is(
    tmp_path: Path,
) -> None:
    one = write_beir_folder(tmp_path / "sets" / "one")
    write_beir_folder(tmp_path / "sets" / "two", split="dev")
    (tmp_path / "sets" / "three" / "qrels").mkdir(parents=True)
    (tmp_path / "sets" / "notes").mkdir()
    sets = {each.name: each for each in from_folder(tmp_path, tmp_path / "sets").sets}
    assert list(sets) == ["one", "three", "two"]
    assert len(sets["one"].data.queries) == 2
    with pytest.raises(MissingPathError, match=r"two: no split 'test'"):
        _ = sets["two"].data
    (one / "queries.jsonl").unlink()
    with pytest.raises(MissingPathError, match=r"one/queries\.jsonl: no such file"):
        _ = from_folder(tmp_path, one).sets[0].data


def test_absent_queries_are_dropped_where_that_is_asked_for(tmp_path: Path) -> None:
    folder = write_beir_folder(tmp_path / "one")
    qrels = folder / "qrels" / "test.tsv"
    qrels.write_text(qrels.read_text() + "gone\td1\t1\n")
    with pytest.raises(UserError, match=r"1 of 3 judged queries .* 'gone'.*absent_queries=drop"):
        _ = from_folder(tmp_path, folder).sets[0].data
    data = from_folder(tmp_path, folder, absent_queries="drop").sets[0].data
    assert list(data.qrels) == ["1", "02"]
    assert data.caveats[0].startswith("1 of 3 judged queries were dropped")
    qrels.write_text("gone\td1\t1\n1\td1\t0\n")
    with pytest.raises(UserError, match="none of its queries has a judgement above 0"):
        _ = from_folder(tmp_path, folder, absent_queries="drop").sets[0].data


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
