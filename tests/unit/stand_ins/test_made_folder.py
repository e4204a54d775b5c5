"""A model folder is made once, and again if it was removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from quarry.runtime.cache_use import unused
from quarry.runtime.files import remove
from quarry.stand_ins import made_folder
from quarry.stand_ins.made_folder import WEIGHTS, made_once


def make(folder: Path) -> None:
    (folder / WEIGHTS).write_text("weights")


def test_a_folder_is_made_once_and_held(tmp_path: Path) -> None:
    target = tmp_path / "models" / "one"
    assert made_once(target, make) == target
    (target / WEIGHTS).write_text("first")
    made_once(target, make)
    assert (target / WEIGHTS).read_text() == "first"
    assert [path.name for path in target.parent.iterdir()] == ["one"]
    with unused(target) as reason:
        assert reason == "in use"


def test_a_folder_that_is_removed_just_before_it_is_held_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "one"
    made_once(target, make)
    calls: list[Path] = []

    def late(path: Path) -> None:
        if not calls:
            remove(path)
        calls.append(path)

    monkeypatch.setattr(made_folder, "keep_used", late)
    assert (made_once(target, make) / WEIGHTS).exists()
