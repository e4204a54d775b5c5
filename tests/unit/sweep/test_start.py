"""What is refused before a sweep starts its first job, and what is recorded then."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from omegaconf import DictConfig

from quarry.config.schema import register_schemas
from quarry.errors import UserError
from quarry.sweep.job import _register as register
from quarry.sweep.listing import composed_sweep
from quarry.sweep.record import StudyRecord
from quarry.sweep.start import StudyStart, begin

CONF = Path(__file__).resolve().parents[3] / "conf"
TWO = ("seed=1,2", "benchmark=none")


@pytest.fixture(autouse=True)
def _conf(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("RANK", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    register_schemas()
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        yield


def sweep(folder: Path, *overrides: str, primary: str = "train") -> DictConfig:
    return composed_sweep(primary, f"hydra.sweep.dir={folder}", *overrides)


def refused(folder: Path, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        begin(sweep(folder, *overrides))
    return str(caught.value)


def begun(folder: Path, *overrides: str) -> StudyRecord:
    """A study whose first job is finished, and whose second was killed."""
    record = begin(sweep(folder, *overrides))
    study = record.read()
    assert study is not None
    first, second = study.jobs
    record.put(replace(first, status="finished", attempts=1))
    record.put(replace(second, status="running", attempts=1))
    return record


def test_all_jobs_are_recorded_in_order(tmp_path: Path) -> None:
    record = begin(sweep(tmp_path / "mine", *TWO, "+logger.wandb.settings={api_key:secret}"))
    study = record.read()
    assert study is not None
    assert (study.name, study.fixed) == ("mine", ("benchmark", "logger.wandb.settings"))
    assert [(job.directory, job.status) for job in study.jobs] == [
        ("seed-1", "queued"), ("seed-2", "queued"),
    ]  # fmt: skip
    assert study.jobs[0].overrides[:2] == ("seed=1", "benchmark=none")
    assert "secret" not in record.path.read_text()


def test_two_jobs_in_one_directory_are_refused(tmp_path: Path) -> None:
    text = refused(tmp_path, "seed=1,2,1", "benchmark=none")
    assert "Several jobs would share a directory: seed-1. Give each value once." in text
    assert not (tmp_path / "study.json").exists()


def test_a_directory_that_is_none_of_the_study_is_refused(tmp_path: Path) -> None:
    (tmp_path / "seed-2").mkdir()
    assert "has seed-2 already, and no study.json that knows of it" in refused(tmp_path, *TWO)


def test_a_mistake_in_any_job_is_found_before_the_first(tmp_path: Path) -> None:
    text = refused(tmp_path, "data.num_workers=0,-1", "benchmark=none")
    assert text.startswith("The job data.num_workers=-1 benchmark=none:\n")
    assert "data.num_workers=-1: out of range" in text


def test_a_study_that_was_begun_is_not_begun_again(tmp_path: Path) -> None:
    begun(tmp_path, *TWO)
    text = refused(tmp_path, *TWO)
    assert f"{tmp_path} holds a study already, 1 of 2 jobs finished." in text
    assert f"study.resume=true hydra.sweep.dir={tmp_path}" in text


def test_going_on_keeps_what_is_recorded(tmp_path: Path) -> None:
    record = begun(tmp_path, *TWO)
    before = record.read()
    begin(sweep(tmp_path, "benchmark=none", "seed=1,2", "study.resume=true"))
    assert record.read() == before


def test_a_study_of_an_earlier_version_goes_on_in_its_directories(tmp_path: Path) -> None:
    swept = ("benchmark=none", "loss.contrastive_batch_size=32,128")
    record = begun(tmp_path, *swept)
    text = record.path.read_text()
    record.path.write_text(text.replace("contrastive_batch_size", "num_contrast_queries"))
    before = [job["directory"] for job in json.loads(record.path.read_text())["jobs"]]
    assert before == ["loss.num_contrast_queries-32", "loss.num_contrast_queries-128"]
    begin(sweep(tmp_path, *swept, "study.resume=true"))
    assert [
        register(record, [f"loss.contrastive_batch_size={n}", swept[0]]) for n in (32, 128)
    ] == before
    study = record.read()
    assert study is not None
    assert [job.directory for job in study.jobs] == before, "no job was added"


@pytest.mark.parametrize(
    ("overrides", "difference"),
    [
        (("seed=1,3", "benchmark=none"), "- seed-3: no such job before, seed=3 benchmark=none now"),
        (("seed=1", "benchmark=none"), "- seed-2: seed=2 benchmark=none before, no such job now"),
        (
            ("seed=1,2", "benchmark=stdlib"),
            "- seed-1: seed=1 benchmark=none before, seed=1 benchmark=stdlib now",
        ),
    ],
)
def test_going_on_with_other_jobs_is_refused(
    tmp_path: Path, overrides: tuple[str, ...], difference: str
) -> None:
    begun(tmp_path, *TWO)
    text = refused(tmp_path, *overrides, "study.resume=true")
    assert f"the jobs are not those that {tmp_path / 'study.json'} has" in text
    assert difference in text


def test_going_on_with_nothing_starts_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    begin(sweep(tmp_path, *TWO, "study.resume=true"))
    assert "was not begun yet, so all jobs start anew" in caplog.text


@pytest.mark.parametrize(
    ("overrides", "rule"),
    [
        (("trainer.num_nodes=2",), "a job of a sweep runs on one node"),
        (("hydra.sweep.subdir=x",), "hydra.sweep.subdir=x has no effect"),
        (("hydra/sweeper=optuna_tpe",), "optimized_metric is not set"),
        (("seed=range(3,3)",), "The sweep has no jobs"),
    ],
)
def test_what_cannot_be_a_sweep_is_refused(
    tmp_path: Path, overrides: tuple[str, ...], rule: str
) -> None:
    assert rule in refused(tmp_path, "benchmark=none", *overrides)


def test_a_launcher_of_processes_must_not_start_a_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "0")
    assert "A sweep is started by one process" in refused(tmp_path, *TWO)


def test_a_sweeper_that_searches_has_no_jobs_beforehand(tmp_path: Path) -> None:
    record = begin(sweep(tmp_path, "study=temperature_lr"))
    study = record.read()
    assert study is not None
    assert (study.name, study.jobs, study.fixed) == ("temperature_lr", (), ("study",))


def test_a_metric_that_no_job_will_have_is_refused_before_the_first(tmp_path: Path) -> None:
    text = refused(tmp_path, "study=temperature_lr", "optimized_metric=stdlib_code/ndcg")
    assert text.startswith("optimized_metric=stdlib_code/ndcg: not a metric of this run.")
    assert "There is stdlib_code/ndcg_at_10, " in text
    assert "benchmark=none has no metrics" in refused(tmp_path, *TWO, "optimized_metric=mean/x")
    # what is measured is swept: each job sees for itself
    begin(sweep(tmp_path, "benchmark=stdlib,none", "optimized_metric=mean/ndcg_at_10"))


def test_a_refusal_ends_the_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Hydra would make a warning of an exception, and start the jobs."""
    with pytest.raises(SystemExit) as caught:
        StudyStart().on_multirun_start(sweep(tmp_path, "seed=1,1", "benchmark=none"))
    assert caught.value.code == 2
    assert "\nError: Several jobs would share" in capsys.readouterr().err
    assert sys.exc_info() == (None, None, None)


def test_a_search_is_not_tried_without_an_evaluation(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    message = refused(tmp_path, "study=temperature_lr", "debug=overfit")
    assert "callbacks.early_stopping.monitor=val/mean/ndcg_at_10: debug=overfit" in message
    assert "optimized_metric=stdlib_code/ndcg_at_10: debug=overfit" in message
    assert begin(sweep(tmp_path, "study=temperature_lr", "debug=fast")).read() is not None
