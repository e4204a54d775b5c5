"""A call from Python composes what the command line does, with the same answers to mistakes."""

from __future__ import annotations

import numpy as np
import pytest
from hydra.core.global_hydra import GlobalHydra

from quarry.config.composing import composed_job, overrides_of
from quarry.config.contract import explicit_keys
from quarry.errors import UserError


@pytest.mark.parametrize(
    "value",
    ["plain", "with space", "it's", "a\\", "a\\'b", "", "{{x}}", "[a,b]", "null", "3"],
)
def test_a_text_comes_through_the_grammar_as_it_is(value: str) -> None:
    overrides = overrides_of({"prompt__query": f"{value}: {{text}}"})
    with composed_job("eval", overrides) as config:
        assert config.prompt.query == f"{value}: {{text}}"


def test_values_of_all_kinds() -> None:
    overrides = overrides_of(
        {"a__b": None, "c": True, "d": [1, "x y"], "e": {"k": 0.5}, "f": "qwen-tiny"}
    )
    assert overrides == ["a.b=null", "c=true", 'd=[1,"x y"]', "e={k:0.5}", "f=qwen-tiny"]


@pytest.mark.parametrize("value", ["null", "true", "False", "2024", "1e-5", "nan", "[a]", "a b"])
def test_a_text_stays_a_text(value: str) -> None:
    with composed_job("eval", overrides_of({"study__name": value})) as config:
        assert config.study.name == value
    with composed_job("eval", overrides_of({"tags": [value]})) as config:
        assert list(config.tags) == [value]


def test_numbers_stay_numbers() -> None:
    overrides = overrides_of({"seed": np.int64(3), "optimizer__lr": 1e-5})
    with composed_job("train", overrides) as config:
        assert (config.seed, config.optimizer.lr) == (3, 1e-5)


def test_lightnings_arguments_need_no_plus() -> None:
    with composed_job("train", ["trainer.max_time=00:01:00:00"]) as config:
        assert config.trainer.max_time == "00:01:00:00"
        assert explicit_keys() == ["trainer.max_time"]


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("batch_size=8", "data.global_batch_size"),
        ("loss.temprature=1", "loss.temperature"),
        ("model=qwen-codr", "model=qwen-coder"),
    ],
)
def test_a_mistake_is_answered_as_on_the_command_line(override: str, meant: str) -> None:
    with pytest.raises(UserError) as caught, composed_job("train", [override]):
        pass
    assert f"{override}: did you mean {meant}" in str(caught.value)
    assert "To append to your config" not in str(caught.value)
    assert not GlobalHydra.instance().is_initialized()
