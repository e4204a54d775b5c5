from __future__ import annotations

import json
from pathlib import Path

import pytest

from quarry.runtime import files
from quarry.runtime.files import (
    put_in_place,
    remove_at_once,
    replacing,
    write_json,
    write_text,
)


def test_a_block_that_succeeds_replaces_the_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file.txt"
    for content in ("old", "new"):
        with replacing(path) as partial:
            partial.write_text(content)
        assert path.read_text() == content
    assert [file.name for file in path.parent.iterdir()] == ["file.txt"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")

    def write_half() -> None:
        with replacing(path) as partial:
            partial.write_text("half of the n")
            raise error

    with pytest.raises(error):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_readers_see_the_old_file_until_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with replacing(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
        assert partial.parent == tmp_path  # a rename across file systems would be a copy
    assert path.read_text() == "new"


def test_a_block_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), replacing(path):
        pass
    assert path.read_text() == "old"


def test_text_is_utf8_with_line_feeds(tmp_path: Path) -> None:
    write_text(tmp_path / "file.txt", "naïve\nГ\n")
    assert (tmp_path / "file.txt").read_bytes() == "naïve\nГ\n".encode()


def test_json_is_sorted_readable_and_ends_with_a_line(tmp_path: Path) -> None:
    write_json(tmp_path / "file.json", {"b": [1, 0.5], "a": "Г"})
    text = (tmp_path / "file.json").read_text(encoding="utf-8")
    assert text == '{\n  "a": "Г",\n  "b": [\n    1,\n    0.5\n  ]\n}\n'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_what_json_cannot_hold_leaves_the_old_file(tmp_path: Path, value: object) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"a": 1})
    with pytest.raises((ValueError, TypeError)):
        write_json(path, {"a": value})
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def folder_with(path: Path, text: str) -> Path:
    path.mkdir()
    (path / "shard").write_text(text)
    return path


def test_a_folder_takes_the_place_of_another(tmp_path: Path) -> None:
    last = tmp_path / "last"
    for step in ("step-1", "step-2", "step-3"):
        put_in_place(folder_with(tmp_path / f".{step}.tmp", step), last)
        assert (last / "shard").read_text() == step
        assert sorted(p.name for p in tmp_path.iterdir()) == ["last", f"last.{step}"]


def test_the_same_name_again(tmp_path: Path) -> None:
    last = tmp_path / "last"
    for text in ("one", "two", "three"):
        put_in_place(folder_with(tmp_path / ".step-1.tmp", text), last)
        assert (last / "shard").read_text() == text
        assert len(list(tmp_path.iterdir())) == 2


def test_a_copied_folder_is_replaced_too(tmp_path: Path) -> None:
    last = folder_with(tmp_path / "last", "a copy, no link")
    put_in_place(folder_with(tmp_path / ".step-2.tmp", "new"), last)
    assert (last / "shard").read_text() == "new"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last", "last.step-2"]


def test_what_a_killed_process_left_is_no_obstacle(tmp_path: Path) -> None:
    last = tmp_path / "last"
    put_in_place(folder_with(tmp_path / ".step-1.tmp", "old"), last)
    folder_with(tmp_path / "last.step-2", "moved, but the link was not set")
    assert (last / "shard").read_text() == "old"
    put_in_place(folder_with(tmp_path / ".step-2.tmp", "new"), last)
    assert (last / "shard").read_text() == "new"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last", "last.step-2"]


def test_a_file_takes_the_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "new").write_text("new")
    (tmp_path / "last").write_text("old")
    put_in_place(tmp_path / "new", tmp_path / "last")
    assert (tmp_path / "last").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["last"]


def test_a_copy_that_the_user_made_stays(tmp_path: Path) -> None:
    last, copy = tmp_path / "last", tmp_path / "last.bak"
    put_in_place(folder_with(tmp_path / ".step-1.tmp", "one"), last)
    folder_with(copy, "mine")
    put_in_place(folder_with(tmp_path / ".step-2.tmp", "two"), last)
    assert (copy / "shard").read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last", "last.bak", "last.step-2"]


def test_behind_a_link_folders_are_replaced_and_kept_alike(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    last, kept = tmp_path / "run" / "last", tmp_path / "run" / "previous"
    put_in_place(folder_with(tmp_path / "run" / ".step-1.tmp", "one"), last)
    kept.symlink_to("last.step-1")
    put_in_place(folder_with(tmp_path / "run" / ".step-2.tmp", "two"), last, kept=kept)
    assert [(each / "shard").read_text() for each in (kept, last)] == ["one", "two"]


def test_a_folder_whose_removal_is_killed_has_another_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    def make() -> Path:
        (tmp_path / "one").mkdir()
        (tmp_path / "one" / "content").touch()
        return tmp_path / "one"

    with monkeypatch.context() as patch:
        patch.setattr(files.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            remove_at_once(make())
    assert [path.name for path in tmp_path.iterdir()] == [".one.removed.tmp"]
    remove_at_once(make())  # that is no obstacle
    assert not list(tmp_path.iterdir())
    make().rename(tmp_path / ".one.removed.tmp")
    remove_at_once(tmp_path / ".one.removed.tmp")
    (tmp_path / "file").touch()
    remove_at_once(tmp_path / "file")
    remove_at_once(tmp_path / "file")
    assert not list(tmp_path.iterdir())
