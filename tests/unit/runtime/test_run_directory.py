from __future__ import annotations

from pathlib import Path

import pytest

from quarry.errors import MissingPathError, UserError
from quarry.runtime.run_directory import RunDirectory, removed_if_empty


def test_create_makes_the_folder_and_keeps_what_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "notes.txt").write_text("mine")
    assert RunDirectory.create(tmp_path / "a" / "b").path == tmp_path / "a" / "b"
    assert (tmp_path / "a" / "b" / "notes.txt").read_text() == "mine"
    assert RunDirectory.create(str(tmp_path / "c" / "d")).path.is_dir()


def test_create_refuses_a_directory_that_holds_a_run(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path)
    run.config.write_text("seed: 1\n")
    for command in ("resume it", None):
        with pytest.raises(UserError) as caught:
            RunDirectory.create(tmp_path, resume_command=command)
        assert "hydra.run.dir" in str(caught.value)
        assert f"rm -r {tmp_path}" in str(caught.value)  # there is no checkpoint to continue from


def test_a_training_run_with_a_checkpoint_can_be_continued(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path)
    run.config.touch()
    run.checkpoint.parent.mkdir()
    run.checkpoint.touch()
    with pytest.raises(UserError, match="or continue: resume it"):
        RunDirectory.create(tmp_path, resume_command="resume it")
    with pytest.raises(UserError) as caught:
        RunDirectory.create(tmp_path)
    assert "continue" not in str(caught.value)  # an evaluation is not resumed


def test_paths_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = RunDirectory.create("runs/one")
    assert run.path == tmp_path / "runs" / "one"
    run.resolved_config.write_text("seed: 1\n")
    assert RunDirectory.open("runs/one") == run
    monkeypatch.setenv("HOME", str(tmp_path))
    assert RunDirectory.open("~/runs/one") == run


@pytest.mark.parametrize(
    ("path", "message"), [(None, "run=DIR"), ("nowhere", r"run=nowhere .*config_resolved\.yaml")]
)
def test_open_refuses_what_is_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str | None, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingPathError, match=message):
        RunDirectory.open(path)


def test_names_are_fixed() -> None:
    run = RunDirectory(Path("/run"))
    assert [
        str(path)
        for path in (
            run.config,
            run.resolved_config,
            run.provenance,
            run.checkpoint,
            run.model,
            run.metrics,
            run.log,
        )
    ] == [
        "/run/config.yaml",
        "/run/config_resolved.yaml",
        "/run/provenance.json",
        "/run/checkpoints/last.ckpt",
        "/run/model",
        "/run/metrics.json",
        "/run/run.log",
    ]


@pytest.mark.parametrize("has_file", [True, False])
def test_a_job_that_failed_before_it_wrote_leaves_no_directory(
    tmp_path: Path, has_file: bool
) -> None:
    path = tmp_path / "run"
    path.mkdir()
    if has_file:
        (path / "config.yaml").touch()
    with pytest.raises(KeyError), removed_if_empty(path):
        raise KeyError
    assert path.exists() == has_file


def test_the_directory_of_a_job_that_ended_well_stays(tmp_path: Path) -> None:
    with removed_if_empty(tmp_path):
        pass
    assert tmp_path.exists()


def test_the_empty_working_directory_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks without a run directory (task=plan) run in it, by its absolute path."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KeyError), removed_if_empty(tmp_path.absolute()):
        raise KeyError
    assert tmp_path.is_dir()


@pytest.mark.parametrize("name", ["last.ckpt", "previous.ckpt", ".last.ckpt.old"])
def test_a_checkpoint_under_any_of_its_names_can_be_continued(tmp_path: Path, name: str) -> None:
    run = RunDirectory.create(tmp_path)
    run.config.touch()
    assert not run.has_checkpoint
    run.checkpoint.parent.mkdir()
    (run.checkpoint.parent / name).touch()
    assert run.has_checkpoint
    with pytest.raises(UserError, match="resume it") as caught:
        RunDirectory.create(tmp_path, resume_command="resume it")
    assert "rm -r" not in str(caught.value)
