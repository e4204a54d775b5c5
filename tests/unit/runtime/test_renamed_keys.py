from __future__ import annotations

import pytest

from quarry.errors import UserError
from quarry.runtime.renamed_keys import (
    RENAMED,
    refuse_renamed_keys,
    renamed_override,
    with_new_names,
    with_renamed_keys,
)


@pytest.mark.parametrize("prefix", ["", "+", "++", "~"])
@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_an_old_key_is_refused_with_its_new_name(prefix: str, old: str, new: str) -> None:
    with pytest.raises(UserError) as caught:
        refuse_renamed_keys(["--multirun", f"{prefix}{old}=true,false", "model=qwen-base"])
    assert f"this key is now {new}. Fix: {prefix}{new}=true,false" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_all_old_keys_are_named_at_once() -> None:
    with pytest.raises(UserError) as caught:
        refuse_renamed_keys([f"{old}=1" for old in RENAMED])
    assert len(str(caught.value).splitlines()) == len(RENAMED)


def test_keys_of_today_pass() -> None:
    refuse_renamed_keys([*(f"{new}=1" for new in RENAMED.values()), "task=plan", "--cfg", "job"])


def test_a_stored_configuration_gets_the_names_of_today() -> None:
    stored = {"data": {"num_tokens_per_chunk": 5, "path": "a"}, "model": {"size": "7B"}, "seed": 1}
    assert with_renamed_keys(stored) == {
        "data": {"grad_cache_chunk_tokens": 5, "path": "a"},
        "model": {"size": "7B"},
        "seed": 1,
    }
    assert stored["data"] == {"num_tokens_per_chunk": 5, "path": "a"}, "it is left as it is"
    assert with_renamed_keys({"data": None}) == {"data": None}


def test_a_stored_prompt_gets_the_arguments_that_came_later() -> None:
    prompt = {"_target_": "quarry.data.prompts.Prompt", "query": "{text}"}
    stored = {"prompt": prompt, "settings": {"prompt": prompt | {"strip": True}}, "other": {}}
    assert with_renamed_keys(stored) == {
        "prompt": prompt | {"strip": False},
        "settings": {"prompt": prompt | {"strip": True}},
        "other": {},
    }
    assert "strip" not in prompt, "it is left as it is"


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_each_old_key_of_a_stored_configuration_is_read(old: str, new: str) -> None:
    part, _, name = old.partition(".")
    assert with_renamed_keys({part: {name: 3}}) == {part: {new.partition(".")[2]: 3}}
    assert with_renamed_keys({"settings": {old: True}}) == {"settings": {new: True}}, "dotted"


@pytest.mark.parametrize(("stored", "value"), [("plain", None), ("fp8", "fp8")])
def test_a_stored_value_of_an_old_key_is_read(stored: str, value: str | None) -> None:
    assert with_renamed_keys({"model": {"linear": stored}}) == {
        "model": {"linear_precision": value}
    }


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("model.linear=plain", "model.linear_precision=null"),
        ("++model.linear=fp8", "++model.linear_precision=fp8"),
        ("model.linear=plain,fp8", "model.linear_precision=null,fp8"),
        ("model.linear=choice(fp8,plain)", "model.linear_precision=choice(fp8,null)"),
    ],
)
def test_an_old_value_is_refused_with_that_of_today(old: str, new: str) -> None:
    with pytest.raises(UserError) as caught:
        refuse_renamed_keys([old])
    assert str(caught.value).endswith(f"Fix: {new}")


def test_overrides_of_today_stay_as_they_are() -> None:
    for override in ("scheduler=linear", "model.linear_precision=fp8", "--multirun", "data.path=a"):
        assert renamed_override(override) == override


def test_a_message_says_what_an_old_key_is_now() -> None:
    message = with_new_names("model.is_normalized: no such argument")
    assert message.endswith("(model.is_normalized is now model.normalize)")
    for other in ("model.linear_precision=x", "my.model.linear", "scheduler=linear"):
        assert with_new_names(other) == other
