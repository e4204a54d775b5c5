"""The cache is listed; what is named, old or too much is removed, and what is in use stays."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from omegaconf import DictConfig, OmegaConf

from helpers.made_cache import LEFTOVER, make_cache
from quarry.data.arrow_table import LINE, ArrowTable, open_table
from quarry.errors import UserError
from quarry.runtime import files, task_output
from quarry.runtime.cache_use import CacheUse
from quarry.runtime.lock import locked
from quarry.stand_ins.made_folder import made_once
from quarry.tasks.cache import cache, listed, shrink
from quarry.tasks.cache_kinds import Folders

Number = float | None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_cache(tmp_path / "cache", tmp_path / "data")
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def no_lines_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_output, "_lines", ["of another test"])


def a_config(folder: Path, *, limit: Number = None) -> DictConfig:
    return OmegaConf.create(
        {
            "paths": {
                "cache_dir": str(folder), "store_dir": f"{folder}/embeddings",
                "max_cache_gib": limit,
            },
            "study": {"job": None},
        }
    )  # fmt: skip


def run(folder: Path, *words: str, days: Number = None, limit: Number = None) -> dict[str, Any]:
    return cache(a_config(folder, limit=limit), remove=list(words) or None, older_than_days=days)


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_twenty_entries_are_listed_and_nothing_is_removed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = names(folder)
    assert run(folder)["cache/num_entries"] == 20
    assert names(folder) == before
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:3] == ["entry", "kind", "size"]
    (fiqa,) = [line for line in lines if line.endswith("fiqa/corpus.jsonl")]
    assert fiqa.split()[1] == "corpus"
    assert fiqa.split()[4:7] == ["3", "d", "changed"]


def test_names_are_paths_without_suffix(folder: Path) -> None:
    entries = listed(Folders(cache=folder, store=folder / "embeddings"), states=False)
    names = {entry.kind.name: entry.name for entry in reversed(entries)}
    assert names["corpus"].startswith("corpus-")
    assert "." not in names["corpus"] + names["ranking"] + names["embeddings"] + names["replica"]
    assert names["ranking"].startswith("rankings/bm25-")
    assert names["embeddings"].startswith("embeddings/0000")
    assert names["unfinished"] == LEFTOVER
    assert names["stdlib_code"].endswith("-c473d17ac5b3")


def test_entries_are_removed_by_state_kind_name_and_pattern(folder: Path) -> None:
    assert run(folder, "changed", "gone")["cache/num_removed"] == 5  # two tables, three stores
    assert not list(folder.glob("embeddings/*/contract.json"))
    assert run(folder, "ranking")["cache/num_removed"] == 4
    assert not list((folder / "rankings").iterdir())
    (first, *rest) = sorted(folder.glob("corpus-*.arrow"))
    assert run(folder, first.stem)["cache/num_removed"] == 1
    assert not first.with_suffix(".ids.npy").exists()
    assert run(folder, "corpus-*")["cache/num_removed"] == len(rest) == 2
    assert run(folder, "all")["cache/num_entries"] == 0
    assert names(folder) == set()


def test_age_alone_and_with_a_kind(folder: Path) -> None:
    assert run(folder, "corpus", days=5)["cache/num_removed"] == 2  # 6 and 9 days
    assert run(folder, days=10)["cache/num_removed"] == 4  # two sets of examples, a store, a rest
    assert run(folder, days=10)["cache/num_removed"] == 0


def test_the_least_recently_used_go_until_the_rest_fits(folder: Path) -> None:
    total = run(folder)["cache/num_bytes"]
    oldest = folder / LEFTOVER
    values = run(folder, limit=(total - 1) / 2**30)
    assert values["cache/num_removed"] == 1
    assert not oldest.exists()
    left = run(folder, limit=total / 2 / 2**30)["cache/num_bytes"]
    assert 0 < left <= total / 2
    assert list(folder.glob("stdlib_code-*"))  # used yesterday
    shrink(a_config(folder, limit=None))
    assert run(folder)["cache/num_bytes"] == left
    shrink(a_config(folder, limit=0))
    assert names(folder) == set()


def test_a_table_that_is_being_written_stays(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "new.jsonl"
    source.write_text("x")
    left = folder / LEFTOVER
    fresh = folder / LEFTOVER.replace("1" * 24, "5" * 24)
    fresh.touch()

    def rows() -> Iterator[tuple[int, str]]:
        yield 1, "a"
        (written,) = set(folder.glob(".corpus-*.tmp")) - {left, fresh}
        os.utime(written, (1, 1))  # nothing has come for a long time
        os.utime(left, (1, 1))
        run(folder, "unfinished")
        assert (written.exists(), left.exists(), fresh.exists()) == (True, False, True)
        shrink(a_config(folder, limit=0))
        assert written.exists()
        yield 2, "b"

    schema = pa.schema([("line", pa.int64()), ("text", pa.string())])
    assert LINE == "line"
    table = open_table(
        cache_dir=folder, kind="corpus", sources=[source], schema=schema, rows=rows(),
        id_column="text",
    )  # fmt: skip
    assert len(table) == 2


def test_a_model_that_is_being_made_stays(folder: Path) -> None:
    target = folder / "models" / f"new-{'0' * 16}"

    def make(scratch: Path) -> None:
        os.utime(scratch, (1, 1))
        assert run(folder, "unfinished")["cache/num_removed"] == 1  # what a killed process left
        (scratch / "model.safetensors").touch()

    assert made_once(target, make) == target


def test_a_finished_run_does_not_fail_for_its_cache(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuses(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("quarry.tasks.cache.remove_path", refuses)
    shrink(a_config(folder, limit=0))
    assert any("Permission denied" in line for line in caplog.messages)
    shrink(a_config(folder, limit=-1))


def test_what_is_in_use_stays(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = ArrowTable(next(folder.glob("corpus-*.arrow")))
    store = sorted((folder / "embeddings").iterdir())
    shelf = CacheUse(store[0])
    with locked(store[1] / "abc" / "lock", what="a test"):
        assert run(folder, "all")["cache/num_entries"] == 3
    assert names(folder) == {
        table.path.name, f"{table.path.stem}.ids.npy",
        *(f"embeddings/{one.name}/{name}" for one in store[:2] for name in (
            "contract.json", "abc/manifest.json", "abc/vectors-00000.bin", "abc/lock"
        )),
    }  # fmt: skip
    assert f"Cannot be removed (in use): {table.path.stem}, embeddings/" in capsys.readouterr().out
    del table, shelf
    assert run(folder, limit=0)["cache/num_entries"] == 0


def test_a_store_whose_removal_was_killed_is_unfinished(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(files.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            run(folder, "embeddings/000*")
    left = folder / "embeddings" / f".{'0' * 32}.removed.tmp"
    assert (left / "contract.json").exists()
    assert not list(folder.glob("embeddings/000*"))
    os.utime(left, (1, 1))
    assert run(folder, "unfinished")["cache/num_removed"] == 2
    assert not left.exists()


def test_why_an_entry_stays_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuses(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("quarry.tasks.cache.remove_path", refuses)
    assert run(folder, "stdlib_code")["cache/num_removed"] == 0
    assert "Cannot be removed (Permission denied): stdlib_code-v1" in capsys.readouterr().out


def test_a_text_is_one_word(folder: Path) -> None:
    def removed(remove: Any, days: Number = None) -> float:
        values = cache(a_config(folder), remove=remove, older_than_days=days)
        return values["cache/num_removed"]

    before = names(folder)
    assert removed("") == removed([]) == 0
    for word in ("*", "**", ["*"], ["?*"]):
        with pytest.raises(UserError, match=r"task\.remove=.*fits everything"):
            removed(word)
    with pytest.raises(UserError, match="task.remove=corpora"):
        removed("corpora")
    assert names(folder) == before
    assert removed([], days=10) == 4  # as without words
    assert removed("ranking") == 4
    assert removed(next(folder.glob("corpus-*.arrow")).stem) == 1
    assert removed("all") == 11
    assert names(folder) == set()


@pytest.mark.parametrize(
    ("words", "more", "said"),
    [
        (["corpora"], {}, "task.remove=corpora: no entry of that name"),
        (["corpus", "corpus-000*"], {}, "task.remove=corpus-000*"),
        ([], {"days": -1}, "task.older_than_days=-1"),
        ([], {"limit": -1}, "paths.max_cache_gib=-1"),
    ],
)
def test_mistakes_remove_nothing(
    folder: Path, words: list[str], more: dict[str, float], said: str
) -> None:
    before = names(folder)
    with pytest.raises(UserError) as caught:
        run(folder, *words, **more)
    assert said in str(caught.value)
    assert names(folder) == before


def test_an_empty_cache_is_listed(tmp_path: Path) -> None:
    assert run(tmp_path / "nothing")["cache/num_entries"] == 0
    assert not (tmp_path / "nothing").exists()
