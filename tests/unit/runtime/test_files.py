from __future__ import annotations

import json
from pathlib import Path

import pytest

from quarry.runtime.files import replacing, write_json, write_text


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
