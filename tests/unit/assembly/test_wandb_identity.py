"""Which run of W&B a job is: never another job's, and again its own when it is resumed."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from quarry.assembly.wandb_identity import WandbIdentity, identity_of, tags_of, with_identity
from quarry.errors import UserError
from quarry.runtime.run_directory import RunDirectory
from quarry.runtime.secret_values import remember_variable

OPTIONS = {
    "model": "qwen-coder",
    "model/adapter": "lora",
    "model/pooling": "last_token",
    "prompt": "repllama",
    "data": "msmarco",
    "benchmark": "msmarco_dl",
    "retriever": "dense",
}


@pytest.fixture(autouse=True)
def no_id_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_RUN_ID", raising=False)


def a_config(*, path: str | None = None, study: str | None = None, job: str | None = None):
    return OmegaConf.create(
        {"model": {"path": path, "size": "7B"}, "study": {"name": study, "job": job}}
    )


def a_run(directory: Path) -> RunDirectory:
    directory.mkdir(parents=True)
    run = RunDirectory(directory)
    run.provenance.write_text(json.dumps({"options": OPTIONS}))
    return run


def loggers(**more: object) -> DictConfig:
    node = {
        "_target_": "quarry.training.wandb_run.WandbRun",
        "project": "quarry",
        "group": None,
        "name": None,
        "job_type": None,
        "tags": None,
    }
    return OmegaConf.create(
        {"wandb": node | more, "csv": {"_target_": "pytorch_lightning.loggers.CSVLogger"}}
    )


def test_a_job_of_a_study_is_in_its_group_under_its_overrides(tmp_path: Path) -> None:
    run = a_run(tmp_path / "sft" / "model-qwen-coder")
    config = a_config(study="sft", job="model-qwen-coder_seed-1")
    given = loggers()
    made = with_identity(given, identity_of(config, run, job_type="train"))
    assert made.wandb.group == "sft"
    assert made.wandb.name == "model-qwen-coder_seed-1"
    assert made.wandb.job_type == "train"
    assert made.wandb.tags == [
        "qwen-coder", "7B", "lora", "last_token", "repllama", "msmarco", "msmarco_dl"
    ]  # fmt: skip
    assert "id" not in made.csv
    assert given == loggers(), "what is stored as configuration stays as it was"


def test_a_run_by_itself_has_the_name_of_its_directory_and_no_group(tmp_path: Path) -> None:
    found = identity_of(a_config(), a_run(tmp_path / "one"), job_type="evaluate")
    assert (found.group, found.name, found.is_job) == (None, "one", False)


def test_what_the_configuration_says_stays(tmp_path: Path) -> None:
    identity = identity_of(a_config(study="sft", job="x"), a_run(tmp_path / "x"), job_type="train")
    made = with_identity(loggers(group="mine", tags=["a"]), identity)
    assert (made.wandb.group, made.wandb.tags, made.wandb.name) == ("mine", ["a"], "x")


def test_tags_say_what_tells_runs_apart() -> None:
    local = a_config(path="/runs/train/" + "long" * 30)
    options = OPTIONS | {"model": "local", "prompt": "none", "retriever": "hybrid"}
    tags = tags_of(local, options)
    assert tags[0] == ("long" * 30)[:64]
    assert tags[1:] == ("7B", "lora", "last_token", "msmarco", "msmarco_dl", "hybrid")
    tagged = OmegaConf.merge(a_config(), {"tags": ["a", "b"]})
    assert tags_of(tagged, OPTIONS)[-3:] == ("msmarco_dl", "a", "b")
    bm25 = tags_of(a_config(), OPTIONS | {"retriever": "bm25"}, has_model=False)
    assert bm25 == ("msmarco_dl", "bm25")


def wandb_id(run: RunDirectory, *, is_job: bool = False, **more: object) -> str:
    identity = WandbIdentity(directory=run, job_type="train", name="x", is_job=is_job)
    return str(with_identity(loggers(**more), identity).wandb.id)


def test_two_runs_have_two_ids_and_a_resumed_one_its_own(tmp_path: Path) -> None:
    one, two = RunDirectory(tmp_path / "one"), RunDirectory(tmp_path / "two")
    first = wandb_id(one)
    assert len(first) == 8
    assert wandb_id(two) != first
    assert wandb_id(one) == first


def test_an_id_in_the_environment_is_for_one_run_and_never_for_the_jobs_of_a_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "mine")
    alone, *jobs = (RunDirectory(tmp_path / name) for name in ("alone", "a", "b"))
    assert wandb_id(alone) == "mine"
    with caplog.at_level(logging.WARNING):
        ids = {wandb_id(job, is_job=True) for job in jobs}
    assert len(ids - {"mine"}) == 2
    assert "WANDB_RUN_ID=mine has no effect on a job of a sweep" in caplog.text
    monkeypatch.delenv("WANDB_RUN_ID")
    assert wandb_id(alone) == "mine", "resumed from another shell"


def test_an_id_for_all_jobs_of_a_sweep_is_refused(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "a")
    assert wandb_id(run, id="given") == "given"
    with pytest.raises(UserError, match=r"logger\.wandb\.id=given: all jobs .* one W&B run"):
        wandb_id(run, is_job=True, id="given")


def test_tags_notes_and_names_show_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MYPW", "hunter2")
    remember_variable("MYPW")
    config = a_config()
    config.tags = ["by ${oc.env:MYPW}", "https://me:secret@host"]
    identity = identity_of(config, a_run(tmp_path / "one"), job_type="train")
    assert identity.tags[-2:] == ("by $MYPW", "https://me:***@host")
    node = with_identity(loggers(notes="${oc.env:MYPW}", tags=["${oc.env:MYPW}"]), identity).wandb
    assert (node.notes, node.tags, node.name) == ("$MYPW", ["$MYPW"], "one")
