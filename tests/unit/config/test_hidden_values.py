"""A stored configuration without its secrets says what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from quarry.config.hidden_values import check_stored_values, hide_values_of
from quarry.errors import UserError
from quarry.runtime import secret_values
from quarry.runtime.secret_values import remember_environment, scrub, without_secrets

PATH = Path("run/config.yaml")


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secret_values, "_known", {})


def made(**content: object) -> DictConfig:
    config = OmegaConf.create(content)
    assert isinstance(config, DictConfig)
    return config


def test_hidden_values_and_missing_variables_are_refused_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("MYPW", raising=False)
    config = made(
        data={"path": "https://me:***@host/x"},
        tags=["https://me:***@host/x"],
        model={"path": "${oc.env:MYPW}/x", "other": ["${oc.env:MYPW,default}"]},
        paths={"runs_dir": "${oc.env:QUARRY_RUNS,runs}"},
    )
    with pytest.raises(UserError) as caught:
        check_stored_values(config, PATH)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert lines[1].startswith("- data.path=https://me:***@host/x: a secret, which is not stored")
    assert "model.path=${oc.env:MYPW}/x: the environment variable MYPW is not set" in lines[2]


def test_a_variable_that_is_set_is_taken_and_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MYPW", "hunter2")
    check_stored_values(made(model={"path": "${oc.env:MYPW}/x"}), PATH)
    assert without_secrets("hunter2/x") == "${oc.env:MYPW}/x"


def test_switches_and_short_words_of_the_environment_leave_a_configuration_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "true")
    monkeypatch.setenv("DB_PASSWORD", "test")
    remember_environment()
    content = {"trainer": {"precision": "32-true", "x": "${on_gpu:true,false}"}, "split": "test"}
    assert scrub(content) == content
    check_stored_values(made(**scrub(content)), PATH)


def test_secret_keys_of_a_configuration_are_hidden() -> None:
    hide_values_of(made(logger={"wandb": {"settings": {"api_key": "hunter2"}}}))
    assert without_secrets("with hunter2") == "with ***"


def test_the_key_of_a_logger_is_that_of_the_environment(caplog: pytest.LogCaptureFixture) -> None:
    config = made(logger={"wandb": {"settings": {"api_key": "***"}}})
    check_stored_values(config, PATH)
    assert config.logger.wandb.settings.api_key is None
    assert "logger.wandb.settings.api_key is a secret" in caplog.text
