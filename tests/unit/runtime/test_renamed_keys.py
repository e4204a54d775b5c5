from __future__ import annotations

import pytest

from quarry.errors import UserError
from quarry.runtime.renamed_keys import RENAMED, refuse_renamed_keys, with_renamed_keys


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
