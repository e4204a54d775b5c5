from __future__ import annotations

import re

import pytest
from omegaconf import DictConfig, OmegaConf

from quarry.config.sweep_overrides import (
    MAX_NAME,
    all_jobs,
    fixed_keys,
    identity,
    job_name,
    swept_keys,
    twice_given,
    with_first_choices,
)


def a_sweep(*command: str, **params: str) -> DictConfig:
    return OmegaConf.create(
        {"hydra": {"overrides": {"task": list(command)}, "sweeper": {"params": params}}}
    )


def test_a_job_is_named_by_what_is_swept() -> None:
    sweep = a_sweep("model=qwen-base,qwen-coder", "seed=1,2", "model.size=tiny")
    jobs = all_jobs(sweep)
    assert len(jobs) == 4
    assert jobs[1] == ("model=qwen-base", "seed=2", "model.size=tiny")
    assert fixed_keys(sweep) == ("model.size",)
    names = [job_name(job, fixed=fixed_keys(sweep)) for job in jobs]
    assert names[1] == "model-qwen-base_seed-2"
    assert len(set(names)) == 4


def test_a_study_is_swept_by_its_params_and_the_command_line_fixes_them() -> None:
    sweep = a_sweep("study=x", "seed=3", **{"model": "a,b", "seed": "1,2"})
    assert (fixed_keys(sweep), swept_keys(sweep)) == (("seed", "study"), ("model",))
    assert all_jobs(sweep) == [
        ("model=a", "seed=3", "study=x"),
        ("model=b", "seed=3", "study=x"),
    ]


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["model/pooling=mean"], "model.pooling-mean"),
        (["loss.temperature=1e-2"], "loss.temperature-1e-2"),
        (["+trainer.x=1"], "trainer.x-1"),
        (["seed=1", "study.name=y", "study.resume=true", "study.job=z"], "seed-1"),
        ([], "job"),
    ],
)
def test_plain_names(overrides: list[str], name: str) -> None:
    assert job_name(overrides, fixed=()) == name


def test_other_characters_and_long_values_get_a_hash_and_stay_apart() -> None:
    values = ["/a/b", "/a_b", "[1,2]", "[1, 2]", "x" * 200, "x" * 201, "ä", "..", "a b"]
    names = [job_name([f"data.path={value}"], fixed=()) for value in values]
    assert len(set(names)) == len(values)
    for name in names:
        assert re.fullmatch(r"[A-Za-z0-9._-]+", name)
        assert len(name) <= MAX_NAME


def test_identity_leaves_out_what_a_sweep_says_itself() -> None:
    assert identity(["seed=1", "study=tiny", "study.resume=true"]) == ("seed=1", "study=tiny")


def test_the_whole_is_composed_with_the_first_choices() -> None:
    command = [
        "-m",
        "model=qwen-base,qwen-coder",
        "model.size=tiny",
        "seed=range(3,5)",
        "x=glob(*)",
    ]
    assert with_first_choices(command) == [
        *("-m", "model=qwen-base", "model=qwen-base,qwen-coder", "model.size=tiny"),
        *("seed=3", "seed=range(3,5)", "x=glob(*)"),
    ]
    assert with_first_choices(command[1:]) == command[1:]  # no sweep, or a study's own
    assert with_first_choices([*command, "hydra/sweeper=optuna"]) == [
        *command, "hydra/sweeper=optuna",
    ]  # fmt: skip
    sweep = a_sweep(*with_first_choices(command[:2])[1:])
    assert [job[0] for job in all_jobs(sweep)] == ["model=qwen-base", "model=qwen-coder"]
    assert fixed_keys(sweep) == ()
    assert twice_given(sweep) == ["model"]


def test_a_secret_does_not_name_a_job() -> None:
    one = job_name(["data.path=https://me:hunter2@host/x"], fixed=())
    two = job_name(["data.path=https://me:hunter3@host/x"], fixed=())
    assert one != two
    assert "hunter" not in one + two
    assert one.startswith("data.path-https-me-")
