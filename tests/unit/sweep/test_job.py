from __future__ import annotations

from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from quarry.sweep import job
from quarry.sweep.inputs import CommandLine, Launcher, SweepJob
from quarry.sweep.job import job_command
from quarry.sweep.job_process import EndedProcess
from quarry.sweep.record import JobRecord, Study, StudyRecord


def test_a_job_that_is_continued_gets_the_packages_that_its_sweep_trusts() -> None:
    own = ("loss=mine", "trusted_packages=[a]")
    command = CommandLine(config_name="train", sources=(), overrides=own, hydra_overrides=())
    words = job_command(
        command,
        ["train.py"],
        Path("RUN"),
        settings={"study.name": "s", "trusted_packages": ("a", "b.c"), "task.num_jobs_at_once": 2},
        overrides=["task=resume", "run=RUN"],
    )
    assert words.count("trusted_packages=[a,b.c]") == 1
    assert "task.num_jobs_at_once=2" in words
    overrides = [word for word in words if word.startswith("trusted")]
    (override,) = OverridesParser.create().parse_overrides(overrides)
    assert not override.is_sweep_override()
    assert override.value() == ["a", "b.c"]


@pytest.mark.parametrize("name", ["last.ckpt", "previous.ckpt"])
def test_what_has_a_checkpoint_is_never_cleared(tmp_path: Path, name: str) -> None:
    checkpoint = tmp_path / "checkpoints" / name
    checkpoint.parent.mkdir()
    checkpoint.write_text("good")
    job._clear(tmp_path)
    assert checkpoint.read_text() == "good"


def test_what_has_none_is_cleared(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.yaml").touch()
    job._clear(tmp_path)
    assert [each.name for each in tmp_path.iterdir()] in ([], [".lock"])


@pytest.mark.parametrize("name", ["last.ckpt", "previous.ckpt", None])
def test_a_job_with_a_checkpoint_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str | None
) -> None:
    commands: list[list[str]] = []

    def started(command: list[str], **_: object) -> EndedProcess:
        commands.append(command)
        return EndedProcess(code=1, tail="", stopped_by=None)

    monkeypatch.setattr(job, "run_process", started)
    (tmp_path / "a" / "checkpoints").mkdir(parents=True)
    if name is not None:
        (tmp_path / "a" / "checkpoints" / name).touch()
    known = JobRecord(directory="a", overrides=("loss=mine",), attempts=1)
    record, study = StudyRecord(tmp_path), Study(name="s", fixed=(), jobs=(known,))
    record.change(lambda _: study)
    own = SweepJob(
        folder=tmp_path,
        is_chosen=False,
        optimized_metric=None,
        plans_alone=False,
        num_gpus=0,
        trusted_packages=(),
        launcher=Launcher(target="basic", num_workers=1, has_memory=False),
        command=CommandLine(
            config_name="train", sources=(), overrides=known.overrides, hydra_overrides=()
        ),
    )
    job._attempt(known, record, own, program=["train.py"], study=study)
    assert ("task=resume" in commands[0]) == (name is not None)
    assert (tmp_path / "a" / "checkpoints").exists() == (name is not None)
