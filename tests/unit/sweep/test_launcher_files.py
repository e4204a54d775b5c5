"""A sweep leaves no file of Hydra's or submitit's with its secrets."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from quarry.sweep.launcher_files import (
    begun_folder,
    launcher_files_removed_at_end,
    make_private_folder,
)


@pytest.fixture(autouse=True)
def _begun() -> Iterator[None]:
    token = begun_folder.set(None)
    yield
    begun_folder.reset(token)


def test_what_holds_secrets_is_removed_however_the_sweep_ends(tmp_path: Path) -> None:
    make_private_folder(tmp_path, launcher="submitit_plugin.SlurmLauncher")
    own = tmp_path / ".submitit"
    (tmp_path / "multirun.yaml").touch()
    (own / "7_0").mkdir()
    for name in ("7_0_submitted.pkl", "7_0_0_result.pkl", "7_0_0_log.out", "7_1_submitted.pkl"):
        (own / "7_0" / name).touch()

    def interrupted() -> None:
        with launcher_files_removed_at_end():
            begun_folder.set(tmp_path)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not (tmp_path / "multirun.yaml").exists()
    assert stat.S_IMODE(own.stat().st_mode) == 0o700
    # the second job has no result yet: it needs what it was submitted with
    assert {path.name for path in own.glob("*/*")} == {"7_0_0_log.out", "7_1_submitted.pkl"}


def test_other_launchers_and_single_runs_need_no_folder(tmp_path: Path) -> None:
    make_private_folder(tmp_path, launcher="BasicLauncher")
    with launcher_files_removed_at_end():
        pass
    with launcher_files_removed_at_end():
        begun_folder.set(tmp_path)
    assert list(tmp_path.iterdir()) == []
