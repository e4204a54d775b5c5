"""Secrets are planted in commands, and all that a run, a sweep and a report leave is searched."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from helpers import wandb_files
from helpers.beir_folders import write_beir_folder
from helpers.commands import SMALL, Result

Command = Callable[..., Result]

IN_URL = "planted-in-a-url"
IN_ENVIRONMENT = "planted in the environment"
UNDER_A_KEY = "planted0under1a2key3planted0under1a2key3"
PLANTED = (IN_URL, IN_ENVIRONMENT, IN_ENVIRONMENT.replace(" ", "%20"), UNDER_A_KEY)

URL = f"https://someone:{IN_URL}@host/x"
TAGS = f'tags=["{URL}","${{oc.env:MYPW}}","about ${{oc.env:MYPW}}."]'
KEYS = (f"+logger.wandb.settings.api_key={UNDER_A_KEY}", "+logger.wandb.notes=${oc.env:MYPW}")


@pytest.fixture(scope="module")
def with_variable(environment: dict[str, str]) -> dict[str, str]:
    switches = {"HF_HUB_DISABLE_IMPLICIT_TOKEN": "true", "DB_PASSWORD": "test"}  # no secrets
    return {**environment, **switches, "MYPW": IN_ENVIRONMENT}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_beir_folder(tmp_path_factory.mktemp("data") / "mine")


def leaks(*found: Result | Path) -> list[str]:
    """Where a planted value can be read: names, texts and binaries of all files, and output."""
    places = [p for p in found if isinstance(p, Path)]
    outputs = [("output", (r.out + r.err).encode()) for r in found if isinstance(r, Result)]
    contents = (*outputs, *(pair for place in places for pair in _files(place)))
    return [
        f"{name}: {planted}"
        for name, content in contents
        for planted in PLANTED
        if planted.encode() in content or planted in name
    ]


def _files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        yield name, path.read_bytes() if path.is_file() else b""


def test_a_run_leaves_no_secret_and_is_continued_with_the_variable_alone(
    command: Command, environment: dict[str, str], with_variable: dict[str, str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    result = command(
        "train.py", *SMALL, "trainer.max_steps=2", "evaluation.before_training=false",
        "baseline=none", "logger=wandb", TAGS, *KEYS, f"hydra.run.dir={run}",
        environment=with_variable,
    )  # fmt: skip
    assert result.code == 0, result.err
    assert leaks(result, run) == []
    hidden = ["https://someone:***@host/x", "${oc.env:MYPW}", "about ${oc.env:MYPW}."]
    for name in ("config.yaml", "config_resolved.yaml"):
        assert yaml.safe_load((run / name).read_text())["tags"] == hidden
    resolved = yaml.safe_load((run / "config_resolved.yaml").read_text())
    assert resolved["trainer"]["precision"] == "32-true"
    (identity,) = wandb_files.identities(run)
    assert identity.tags[-3:] == ["https://someone:***@host/x", "$MYPW", "about $MYPW."]
    assert wandb_files.config(run)["tags"] == hidden
    resumed = command("train.py", "task=resume", f"run={run}", "logger=none")
    assert resumed.code == 2
    assert "the environment variable MYPW is not set" in resumed.err
    assert resumed.err.count("***") == 0


def test_a_sweep_with_a_job_that_fails_leaves_no_secret(
    command: Command, with_variable: dict[str, str], data: Path, tmp_path: Path
) -> None:
    sweep = tmp_path / "sweep"
    result = command(
        "eval.py", "-m", "retriever=bm25", "benchmark=folder",
        f"benchmark.path='{data}','{URL}'", TAGS, KEYS[0], f"hydra.sweep.dir={sweep}",
        environment=with_variable,
    )  # fmt: skip
    assert result.code == 1, result.err
    jobs = json.loads((sweep / "study.json").read_text())["jobs"]
    assert [job["status"] for job in jobs] == ["finished", "failed"]
    assert jobs[1]["error"].startswith("https:/someone:***@host/x: no such folder")
    assert leaks(result, sweep) == []
    report = tmp_path / "report"
    made = command("eval.py", "task=report", f"runs=[{sweep}]", f"hydra.run.dir={report}")
    assert made.code == 0, made.err
    assert leaks(made, report) == []


def test_a_sweep_whose_jobs_cannot_be_composed_leaves_no_secret(
    command: Command, environment: dict[str, str], tmp_path: Path
) -> None:
    result = command(
        "eval.py", "-m", f"benchmark.path={URL}", "benchmark=folder", "retriever=bm25,nonsense",
        f"hydra.sweep.dir={tmp_path / 'sweep'}",
        environment=environment,
    )  # fmt: skip
    assert result.code != 0
    assert "nonsense" in result.err
    assert leaks(result, tmp_path) == []


@pytest.mark.parametrize("is_full", [False, True])
def test_errors_and_tracebacks_show_no_secret(
    command: Command, with_variable: dict[str, str], tmp_path: Path, is_full: bool
) -> None:
    result = command(
        "eval.py", "retriever=bm25", "benchmark=folder", f"benchmark.path={URL}", TAGS, *KEYS,
        f"hydra.run.dir={tmp_path / 'run'}",
        environment=with_variable | ({"HYDRA_FULL_ERROR": "1"} if is_full else {}),
    )  # fmt: skip
    assert result.code == 1 + (not is_full)
    assert ("Traceback" in result.err) is is_full
    assert "https:/someone:***@host/x: no such folder" in result.err
    assert leaks(result, tmp_path) == []
