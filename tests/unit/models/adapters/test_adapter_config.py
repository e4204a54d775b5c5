"""What an adapter says of itself is read from folders and the hub's cache, or refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from helpers.hub_cache import put_into_cache, use_cache
from quarry.errors import UserError
from quarry.models.adapters.adapter_config import PROMPTS, REFUSED_OPTIONS, read_adapter_config


def written(folder: Path, **settings: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


def test_a_folder(tmp_path: Path) -> None:
    assert read_adapter_config(str(tmp_path)) is None
    written(tmp_path, peft_type="LORA", base_model_name_or_path="some/base", revision="abc", r=4)
    config = read_adapter_config(str(tmp_path))
    assert config is not None
    assert (config.kind, config.base, config.base_revision) == ("LORA", "some/base", "abc")
    assert config.settings["r"] == 4
    assert config.file == tmp_path / "adapter_config.json"


@pytest.mark.parametrize("base", [{}, {"base_model_name_or_path": None, "revision": ""}])
def test_a_base_that_is_not_named(tmp_path: Path, base: dict[str, Any]) -> None:
    config = read_adapter_config(str(written(tmp_path, peft_type="LORA", **base)))
    assert config is not None
    assert (config.base, config.base_revision) == (None, None)


def test_a_hub_id_by_its_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    use_cache(monkeypatch, cache)
    for name, commit, ref in (("one", "1" * 40, "main"), ("two", "2" * 40, "v2")):
        folder = written(tmp_path / name, peft_type="LORA", base_model_name_or_path=name)
        put_into_cache(cache, "some/adapter", folder, commit=commit, ref=ref)
    for revision, expected in ((None, "one"), ("v2", "two"), ("2" * 40, "two")):
        config = read_adapter_config("some/adapter", revision=revision)
        assert config is not None
        assert config.base == expected
    assert read_adapter_config("some/other") is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"adapter_config\.json: not valid JSON"),
        ("[]", r"adapter_config\.json: must hold a JSON object, found list"),
        ("{}", r"adapter_config\.json: peft_type is missing.*allowed: LORA, "),
        ('{"peft_type": null}', r"peft_type is None.*allowed: LORA, "),
        ('{"peft_type": ["LORA"]}', r"peft_type is \['LORA'\].*allowed: LORA, "),
        ('{"peft_type": "MAGIC"}', r"peft_type is 'MAGIC'.*allowed: LORA, "),
        (
            '{"peft_type": "LORA", "base_model_name_or_path": 3}',
            r"base_model_name_or_path=3 is no text",
        ),
    ],
)
def test_a_malformed_file_is_one_message(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "adapter_config.json").write_text(content)
    with pytest.raises(UserError, match=message) as info:
        read_adapter_config(str(tmp_path))
    assert "\n" not in str(info.value)


@pytest.mark.parametrize("kind", [*PROMPTS, "XLORA", "POLY", "VERA"])
def test_other_kinds_are_refused_by_name(tmp_path: Path, kind: str) -> None:
    reason = "learned prompts" if kind in PROMPTS else "this kind of adapter is not read"
    with pytest.raises(UserError, match=rf"peft_type={kind}: {reason}.*allowed: LORA.*Fix: "):
        read_adapter_config(str(written(tmp_path, peft_type=kind)))


@pytest.mark.parametrize("option", REFUSED_OPTIONS)
def test_options_that_are_not_exact_here_are_refused(tmp_path: Path, option: str) -> None:
    folder = written(tmp_path, peft_type="LORA", **{option: {"some": "thing"}})
    with pytest.raises(UserError, match=rf"adapter_config\.json: {option}=.*allowed: null"):
        read_adapter_config(str(folder))
    assert read_adapter_config(str(written(tmp_path, peft_type="LORA", **{option: None})))
