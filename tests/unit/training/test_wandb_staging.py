"""What W&B stages lies in the run directory while a run is open."""

from __future__ import annotations

from pathlib import Path

from wandb.sdk.artifacts.artifact import Artifact
from wandb.sdk.data_types import _private
from wandb.sdk.data_types.table import Table

from quarry.runtime.leftovers import remove_leftovers
from quarry.training.wandb_staging import FOLDER, WandbStaging


def staged() -> list[Path]:
    return [Path(_private.MEDIA_TMP.name), Path(Artifact._TMP_DIR.name)]


def test_media_and_artifacts_are_staged_in_the_run_directory(tmp_path: Path) -> None:
    staging = WandbStaging(tmp_path / "run")
    table = Table(columns=["a"], data=[[1]])
    artifact = Artifact("name", type="type")
    with staging.used():
        artifact.add(table, "table")
    with staging.used(), artifact.new_file("note.txt") as file:
        file.write("content")
    files = [path for path in (tmp_path / "run" / FOLDER).rglob("*") if path.is_file()]
    assert len(files) == 2
    staging.close()
    assert list((tmp_path / "run").iterdir()) == []
    assert all(path.is_dir() and tmp_path not in path.parents for path in staged())


def test_a_folder_that_was_made_in_a_run_directory_is_replaced_at_its_end(tmp_path: Path) -> None:
    first = WandbStaging(tmp_path / "first")
    second = WandbStaging(tmp_path / "second")
    first.close()
    second.close()
    assert all(path.is_dir() and tmp_path not in path.parents for path in staged())


def test_what_a_killed_run_staged_is_a_leftover(tmp_path: Path) -> None:
    staging = WandbStaging(tmp_path)
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []
    staging.close()
