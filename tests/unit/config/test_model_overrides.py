"""Overrides of the model that may be repeated from a stored file: no code, shipped options."""

from __future__ import annotations

from pathlib import Path

import pytest

from quarry.config.model_overrides import is_of_model, repeatable, with_stored_model

PLAIN = [
    "model=qwen-tiny",
    "prompt=short",
    "model/pooling=mean",
    "model.dtype=float16",
    "prompt.query='Instruct: {text}'",
    "prompt.max_query_length=64",
    "trainer.precision=bf16-mixed",
]
REFUSED = [
    "model.trust_remote_code=true",
    "model.pooling={_target_:os.system}",
    "model.pooling._target_=os.system",
    "+model.evil=1",
    "++model.dtype=float16",
    "~model.dtype",
    "model=../../elsewhere",
    "model=file:///tmp/x",
    "prompt=nothing",
    "prompt={query:x}",
    "model.path=${oc.env:HOME}",
    "hydra.searchpath=[file:///tmp]",
    "trusted_packages=[evil]",
    "task=export",
    "experiment=sft_msmarco",
]


def test_plain_values_are_repeated() -> None:
    assert repeatable(PLAIN) == PLAIN


@pytest.mark.parametrize("override", REFUSED)
def test_what_could_choose_code_is_not(override: str) -> None:
    assert repeatable([override]) == []
    assert with_stored_model([], [override]) == []


def test_folders_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my model").mkdir()
    monkeypatch.chdir(tmp_path)
    assert repeatable(["model.path=owner/name"]) == ["model.path=owner/name"]
    (found,) = repeatable(["model.path='my model'"])
    assert found == f'model.path="{tmp_path}/my model"'


def test_a_command_changes_the_stored_model_or_brings_its_own() -> None:
    stored = ["model=qwen-tiny", "model.dtype=float32"]
    assert with_stored_model([], stored) == stored
    changed = with_stored_model(["model.dtype=float16"], stored)
    assert changed == ["model=qwen-tiny", "model.dtype=float16"]
    for own in ("model.path=x", "model=bge"):
        assert with_stored_model([own], stored) == [own]


def test_which_overrides_are_of_the_model() -> None:
    assert all(is_of_model(each) for each in PLAIN)
    assert not is_of_model("paths.cache_dir=x")
