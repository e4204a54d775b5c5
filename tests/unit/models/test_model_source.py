"""Which files speak for a model: its own, those of an adapter's base, or none that can be had."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from helpers.hub_cache import put_into_cache, use_cache
from helpers.sentence_folders import edit, word_tokenizer
from quarry.errors import MissingPathError, UserError
from quarry.models.backbones import model_files
from quarry.models.folders.stated import Statement
from quarry.models.model_source import ModelSource
from quarry.models.saved import CONTRACT_FILE


def source(path: Path | str | None, **changes: Any) -> ModelSource:
    settings: dict[str, Any] = dict.fromkeys(
        ("revision", "hub_id", "replica", "base_path", "tokenizer_path", "card")
    )
    return ModelSource(path=None if path is None else str(path), **(settings | changes))


def sentence_files(folder: Path, *, path: str = "", mode: str = "cls") -> Path:
    """The files of sentence-transformers, beside a config.json and without weights."""
    modules = [
        {"path": path, "type": "sentence_transformers.models.Transformer"},
        {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    pooling = {"pooling_mode": mode}
    for name, content in {
        "modules": modules,
        "1_Pooling/config": pooling,
        f"{path or '.'}/config": {"model_type": "bert"},
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def adapter(folder: Path, base: Path) -> Path:
    folder.mkdir()
    config = {"peft_type": "LORA", "base_model_name_or_path": str(base), "r": 2}
    config |= {"target_modules": ["query"], "lora_alpha": 2, "task_type": "FEATURE_EXTRACTION"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def pooling_of(model: ModelSource) -> str:
    return str(model.statement().facts["model.pooling"].value["_target_"]).rpartition(".")[2]


def test_without_a_path_the_key_is_named() -> None:
    with pytest.raises(MissingPathError, match=r"model\.path is not set"):
        source(None).home()


def test_an_empty_folder_is_refused_with_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(
        MissingPathError, match=rf"model\.path={tmp_path}.*config\.json.*modules\.json.*nothing"
    ):
        source(tmp_path).home()


def test_a_plain_folder_states_nothing(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    model = source(tmp_path)
    assert model.statement() == Statement()
    assert model.contract() is None
    assert model.projections() == ()
    assert model.location() == model.home() == str(tmp_path)


def test_the_transformer_may_lie_in_a_subfolder(tmp_path: Path) -> None:
    model = source(sentence_files(tmp_path, path="0_Transformer"))
    assert model.home() == str(tmp_path)
    assert model.location() == model.base_location() == str(tmp_path / "0_Transformer")
    assert pooling_of(model) == "Cls"


def test_the_files_of_a_base_speak_for_an_adapter_that_says_nothing(tmp_path: Path) -> None:
    base = sentence_files(tmp_path / "base", path="0_Transformer")
    model = source(adapter(tmp_path / "adapter", base))
    assert model.base_location() == str(base / "0_Transformer")
    assert pooling_of(model) == "Cls"  # it lies beside the transformer's folder
    moved = sentence_files(tmp_path / "moved", mode="max")
    assert pooling_of(source(tmp_path / "adapter", base_path=str(moved))) == "Max"


def test_an_adapters_own_files_come_before_those_of_its_base(tmp_path: Path) -> None:
    base = sentence_files(tmp_path / "base")
    folder = adapter(tmp_path / "adapter", base)
    model = source(folder)
    assert pooling_of(model) == "Cls"
    (base / CONTRACT_FILE).write_text('{"format": 2, "projections": []}')
    assert model.contract() == {"format": 2, "projections": []}
    sentence_files(folder, mode="max")
    assert pooling_of(model) == "Max"
    assert model.contract() is None, "the base's contract does not speak where its own files do"


def test_where_there_is_a_contract_other_files_are_not_read(tmp_path: Path) -> None:
    # an export has a module of its own for sentence-transformers
    folder = sentence_files(tmp_path)
    (folder / "modules.json").write_text('[{"path": "", "type": "framed_transformer.Framed"}]')
    with pytest.raises(UserError, match="framed_transformer"):
        source(folder).location()
    (folder / CONTRACT_FILE).write_text('{"format": 2}')
    model = source(folder)
    assert model.location() == str(folder)
    assert model.statement() == Statement()
    assert model.projections() == ()
    base = source(adapter(tmp_path / "adapter", folder))
    assert (base.base_location(), base.statement()) == (str(folder), Statement())


def test_a_contract_names_the_projections(tmp_path: Path) -> None:
    entry = {"in_features": 8, "out_features": 4, "bias": True, "activation": "Tanh"}
    entry |= {"use_residual": False, "weights": "p.safetensors", "prefix": "0."}
    file = sentence_files(tmp_path) / CONTRACT_FILE
    file.write_text(json.dumps({"projections": [entry]}))
    (found,) = source(tmp_path).projections()
    assert (found.in_features, found.weights) == (8, tmp_path / "p.safetensors")
    for weights in ("../p.safetensors", "/p.safetensors", "p.bin"):
        file.write_text(json.dumps({"projections": [entry | {"weights": weights}]}))
        with pytest.raises(UserError, match=rf"{CONTRACT_FILE}: projections .*{weights}"):
            source(tmp_path).projections()


def test_the_tokenizer_is_as_the_files_say(tmp_path: Path) -> None:
    sentence_files(tmp_path)
    word_tokenizer(lower_case=False).save_pretrained(tmp_path)
    plain = source(tmp_path).load_tokenizer()
    assert plain.encode("Fox") != plain.encode("fox")
    (tmp_path / "sentence_bert_config.json").write_text('{"do_lower_case": true}')
    lower = source(tmp_path).load_tokenizer()
    assert lower.encode("Fox") == lower.encode("fox") == plain.encode("fox")


def test_a_tokenizer_that_cuts_on_the_left_is_refused_where_the_library_would_follow_it(
    tmp_path: Path,
) -> None:
    sentence_files(tmp_path)
    word_tokenizer().save_pretrained(tmp_path)
    edit(tmp_path / "tokenizer_config.json", truncation_side="left")
    with pytest.raises(UserError, match=r"truncation_side='left'.*tokenizer_config\.json.*'right'"):
        source(tmp_path).load_tokenizer()
    (tmp_path / "modules.json").unlink()
    assert source(tmp_path).load_tokenizer() is not None


def test_a_subfolder_of_a_hub_id_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_cache(monkeypatch, tmp_path / "cache")
    folder = sentence_files(tmp_path / "model", path="0_Transformer")
    put_into_cache(tmp_path / "cache", "some/model", folder)
    with pytest.raises(UserError, match=r"some/model.*0_Transformer.*model\.path=DIR"):
        source("some/model").location()


def test_a_hub_id_states_what_its_cached_files_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_cache(monkeypatch, tmp_path / "cache")
    put_into_cache(tmp_path / "cache", "some/model", sentence_files(tmp_path / "model"))
    assert pooling_of(source("some/model")) == "Cls"
    assert model_files.is_unknown("some/model", CONTRACT_FILE)
    assert not model_files.is_unknown("some/model", "modules.json")


@pytest.mark.parametrize(
    "failure",
    [
        lambda: LocalEntryNotFoundError("the connection was cut"),
        lambda: OSError("timed out"),
    ],
)
def test_a_hub_that_cannot_say_what_it_has_is_no_hub_that_has_nothing(
    monkeypatch: pytest.MonkeyPatch, failure: Callable[[], Exception]
) -> None:
    def ask(*_: object, **__: object) -> str:
        raise failure()

    monkeypatch.setattr(model_files, "hf_hub_download", ask)
    monkeypatch.setattr(model_files, "settle_offline", lambda: None)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(UserError, match=r"hub .*some/model has a file .*model\.path=DIR"):
        source("some/model").statement()


def test_a_file_that_the_hub_does_not_have_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(*_: object, **__: object) -> str:
        raise EntryNotFoundError("404")

    monkeypatch.setattr(model_files, "hf_hub_download", ask)
    monkeypatch.setattr(model_files, "settle_offline", lambda: None)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert source("some/other-model").statement() == Statement()
    assert not model_files.is_unknown("some/other-model", "modules.json")
