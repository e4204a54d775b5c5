"""Temporary files lie beside their target, and those of killed processes are removed."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

import pytest

from quarry.errors import UserError
from quarry.runtime.leftovers import remove_leftovers, remove_unfinished, scratch_folder
from quarry.runtime.ownership import begun_run, owned

DEAD = 2**22 + 7  # above the largest pid that Linux gives


def test_a_scratch_folder_is_hidden_beside_its_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "gettempdir", lambda: pytest.fail("the system's folder"))
    with scratch_folder(tmp_path / "run" / "model") as scratch:
        assert scratch.parent == tmp_path / "run"
        assert scratch.name.startswith(".model.")
        assert scratch.suffix == ".tmp"
        (scratch / "weights").touch()
    assert list((tmp_path / "run").iterdir()) == []


def test_a_scratch_folder_of_a_dead_process_for_the_same_target_is_removed(tmp_path: Path) -> None:
    host = socket.gethostname()
    left = tmp_path / f".export.abc.{host}-{DEAD}.tmp"
    stay = [
        tmp_path / f".export.abc.{host}-{os.getppid()}.tmp",  # alive
        tmp_path / f".export.abc.elsewhere-{DEAD}.tmp",
        tmp_path / f".other.abc.{host}-{DEAD}.tmp",
    ]
    for folder in [left, *stay]:
        (folder / "sub").mkdir(parents=True)
    with scratch_folder(tmp_path / "export"):
        pass
    assert sorted(tmp_path.iterdir()) == sorted(stay)


NAMES = (
    ".metrics.json.12.tmp", ".model.abcd_123", ".export.abcd_123.node-7.tmp",
    "checkpoints/.best.abcd_123.node.of.lab-7.tmp", "checkpoints/.previous.ckpt.tmp",
    "checkpoints/.step-4.tmp", "checkpoints/..step-4.tmp.12.tmp", "checkpoints/.last.ckpt.link",
    "runs/.a.trec.12.tmp", ".wandb-staging.tmp",
)  # fmt: skip


@pytest.mark.parametrize("is_folder", [True, False])
def test_what_killed_processes_left_in_a_run_directory_is_removed_by_its_next_owner(
    tmp_path: Path, is_folder: bool
) -> None:
    stay = ["config.yaml", "model/weights", "checkpoints/last.ckpt", "runs/a.trec", ".mine/notes"]
    stay += [".notes.tmp", "runs/.my.link", "checkpoints/.step-best.tmp", "model/.draft-2.tmp"]
    for name in stay:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for name in NAMES:
        path = tmp_path / name
        if is_folder:
            (path / "weights").mkdir(parents=True)
        else:
            path.touch()
    with owned(tmp_path):
        pass
    left = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    assert left == sorted([*stay, ".lock"])
    assert not [path for path in tmp_path.rglob("*") if str(path.relative_to(tmp_path)) in NAMES]


def test_a_folder_that_was_moved_aside_gets_its_name_back_if_nothing_took_it(
    tmp_path: Path,
) -> None:
    for name in (".model.old", "checkpoints/.best.old", "checkpoints/best"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "weights").write_text(name)
    remove_leftovers(tmp_path)
    assert (tmp_path / "model" / "weights").read_text() == ".model.old"
    assert (tmp_path / "checkpoints/best/weights").read_text() == "checkpoints/best"
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["best"]


@pytest.mark.parametrize("name", [".lock", "config.yaml"])
def test_folders_of_other_runs_are_not_entered(tmp_path: Path, name: str) -> None:
    """Such as those of runs/, if that is named by mistake."""
    scratch = tmp_path / "live" / ".model.abcd_123.node-7.tmp"
    (scratch / "weights").mkdir(parents=True)
    (tmp_path / "live" / ".best.old").mkdir()
    (tmp_path / "live" / name).touch()
    remove_leftovers(tmp_path)
    assert (scratch / "weights").exists()
    assert (tmp_path / "live" / ".best.old").exists()


def test_where_a_run_begins_or_is_refused_nothing_is_removed(tmp_path: Path) -> None:
    left = tmp_path / ".notes.2026.tmp"
    left.touch()
    with begun_run(tmp_path), owned(tmp_path):
        assert left.exists()
    with owned(tmp_path):  # no run, as for task=export of a model folder
        assert left.exists()
    (tmp_path / "config.yaml").touch()
    with pytest.raises(UserError, match="holds a run already"), begun_run(tmp_path):
        pass
    assert left.exists()
    with owned(tmp_path):
        assert not left.exists()


def test_unfinished_files_of_ended_processes_go(tmp_path: Path) -> None:
    names = (f".a.pdf.{DEAD}.tmp", f".b.pdf.{os.getpid()}.tmp", ".mine.tmp", "c.pdf")
    for name in names:
        (tmp_path / name).touch()
    remove_unfinished(tmp_path, tmp_path / "missing")
    assert {each.name for each in tmp_path.iterdir()} == set(names[1:])
