"""How texts are fed: whose word counts, where it stands, and what is told of it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import save_file
from torch import zeros
from transformers import BertConfig, PretrainedConfig, Qwen2Config

from config.configurations import composed, opened
from helpers.hub_cache import use_cache
from quarry.config.contract import NODES
from quarry.config.instantiate import build
from quarry.config.settled_contract import SettledContract, settle
from quarry.errors import UserError
from quarry.models.folders.stated import Fact
from quarry.models.saved import CONTRACT_FILE

SHAPE = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1,
    "num_attention_heads": 4, "max_position_embeddings": 40,
}  # fmt: skip
CARD = {
    "source": "https://example.org", "query": "card: {text}", "pooling": "max", "normalize": False,
    "max_query_length": 11,
}  # fmt: skip

Settle = Callable[..., tuple[SettledContract, DictConfig]]


@pytest.fixture(scope="module")
def configured() -> DictConfig:
    with opened():
        return composed("eval", "prompt=short")


@pytest.fixture
def settled(configured: DictConfig) -> Settle:
    """Settles with these keys changed; those of `explicit` stand on the command line."""

    def settle_with(
        path: Path | str, *, explicit: dict[str, Any] | None = None, **changes: Any
    ) -> tuple[SettledContract, DictConfig]:
        config = OmegaConf.merge(configured)
        assert isinstance(config, DictConfig)
        named = {"model.path": str(path), **(explicit or {})}
        for key, value in {**named, **changes}.items():
            OmegaConf.update(config, key.replace("__", "."), value, force_add=True)
        options = {"prompt": "short", "model": "local"}
        return settle(config, build(config.model), explicit=list(named), options=options), config

    return settle_with


def plain(folder: Path, config: PretrainedConfig | None = None) -> Path:
    (config or BertConfig(**SHAPE)).save_pretrained(folder)
    return folder


def sentence_files(folder: Path, **files: Any) -> Path:
    plain(folder)
    kinds = {"Transformer": "", "Pooling": "1_Pooling"}
    if "2_Dense/config" in files:
        kinds["Dense"] = "2_Dense"
    modules = [{"path": p, "type": f"sentence_transformers.models.{k}"} for k, p in kinds.items()]
    for name, content in {"modules": modules, "1_Pooling/config": {}, **files}.items():
        file = folder / f"{name}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content))
    return folder


def with_contract(folder: Path) -> Path:
    settings = {
        "prompt": {"_target_": "quarry.data.prompts.Prompt", "query": "contract: {text}"},
        "model.pooling": {"_target_": "quarry.models.pooling.cls.Cls"},
        "model.is_causal": False,
        "model.normalize": True,
    }
    assert set(settings) == set(NODES)
    content = {"format": 2, "settings": settings}
    (folder / CONTRACT_FILE).write_text(json.dumps(content))
    return folder


PROMPTS = {"config_sentence_transformers": {"prompts": {"query": "files: ", "document": "d: "}}}


def test_each_word_comes_before_the_next(settled: Settle, tmp_path: Path) -> None:
    def query(path: Path, **changes: Any) -> tuple[str, str]:
        contract, config = settled(path, **changes)
        fact = contract.facts["prompt.query"]
        assert config.prompt.query == fact.value
        return fact.value, fact.source

    bare, model = plain(tmp_path / "bare"), sentence_files(tmp_path / "model", **PROMPTS)
    assert query(bare) == ("{text}", "configuration (prompt=short)")
    assert query(bare, prompt__query="own: {text}") == (
        "own: {text}", "configuration (prompt=short)",
    )  # fmt: skip
    told = ("card: {text}", "model card, https://example.org")
    assert query(bare, prompt__query="own: {text}", model__card=CARD) == told
    in_files = ("files: {text}", "config_sentence_transformers.json (prompts.query)")
    assert query(model, prompt__query="own: {text}", model__card=CARD) == in_files
    (model / "modules.json").unlink()  # beside it the two would contradict each other
    saved = with_contract(model)
    assert query(saved, model__card=CARD) == ("contract: {text}", CONTRACT_FILE)
    named = {"prompt.query": "line: {text}"}
    assert query(saved, explicit=named) == ("line: {text}", "command line")
    assert query(bare, explicit=named, model__card=CARD) == ("line: {text}", "command line")


def test_a_contract_of_an_earlier_version_is_applied(settled: Settle, tmp_path: Path) -> None:
    folder = with_contract(plain(tmp_path))
    file = folder / CONTRACT_FILE
    content = json.loads(file.read_text())
    del content["settings"]["model.normalize"]
    content["settings"]["model.is_normalized"] = False
    file.write_text(json.dumps(content))
    contract, config = settled(folder)
    assert config.model.normalize is False
    assert contract.facts["model.normalize"] == Fact(value=False, source=CONTRACT_FILE)


def test_task_prompts_beside_an_empty_query_prompt_are_refused(
    settled: Settle, tmp_path: Path
) -> None:
    """Versions 5 and 6 write the empty one by themselves."""
    prompts = {"web_search_query": "task: ", "query": "", "document": ""}
    folder = sentence_files(tmp_path, config_sentence_transformers={"prompts": prompts})
    with pytest.raises(UserError, match=r"web_search_query, and none for query"):
        settled(folder)
    contract, _ = settled(folder, model__card=CARD)
    assert contract.facts["prompt.query"].value == "card: {text}"
    contract, config = settled(folder, explicit={"prompt.query": "mine: {text}"})
    assert config.prompt.query == "mine: {text}"
    assert contract.facts["prompt.document"].value == "{text}"


def test_an_export_whose_files_were_changed_is_refused(settled: Settle, tmp_path: Path) -> None:
    folder = with_contract(sentence_files(tmp_path, **PROMPTS))
    with pytest.raises(UserError, match=r"the pooling 'Cls'.*have 'Mean'.*remove"):
        settled(folder)
    file = folder / CONTRACT_FILE
    content = json.loads(file.read_text())
    content["settings"]["model.pooling"] = {"_target_": "quarry.models.pooling.mean.Mean"}
    content["frames"] = {"query": {"literals": ["files: ", ""]}}
    file.write_text(json.dumps(content))
    contract, _ = settled(folder)
    assert contract.facts["model.pooling"] == Fact(value="mean", source=CONTRACT_FILE)
    content["frames"] = {"query": {"literals": ["other: ", ""]}}
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"the query prompt 'other: '.*have 'files: '"):
        settled(folder)


def test_a_card_fills_what_the_files_leave_open(settled: Settle, tmp_path: Path) -> None:
    files = {"config_sentence_transformers": {"similarity_fn_name": "cosine"}}
    contract, config = settled(sentence_files(tmp_path, **files), model__card=CARD)
    facts = contract.facts
    assert facts["prompt.query"] == Fact(
        value="card: {text}", source="model card, https://example.org"
    )
    assert facts["model.pooling"] == Fact(value="mean", source="1_Pooling/config.json")
    assert facts["model.normalize"].value is True
    assert facts["prompt.max_query_length"].value == 40, "the positions that config.json names"
    assert config.model.pooling._target_ == "quarry.models.pooling.mean.Mean"


def test_an_end_token_of_the_card_holds_where_the_tokenizer_appends_nothing(
    settled: Settle, tmp_path: Path
) -> None:
    folder = sentence_files(tmp_path)
    for end, used in (("auto", "tokenizer"), ("eos", "auto"), (None, "tokenizer")):
        contract, _ = settled(folder, model__card={"end_token": end})
        assert contract.facts["prompt.end_token"].value == used


@pytest.mark.parametrize(
    ("named", "key"),
    [
        ({"prompt": {"_target_": "quarry.data.prompts.Prompt"}}, "prompt.query"),
        ({"prompt.max_query_length": 7}, "prompt.max_query_length"),
        ({"model.normalize": False}, "model.normalize"),
        (
            {"model.pooling": {"_target_": "quarry.models.pooling.last_token.LastToken"}},
            "model.pooling",
        ),
    ],
)
def test_what_the_command_line_names_is_its_own_and_no_more(
    settled: Settle, tmp_path: Path, named: dict[str, Any], key: str
) -> None:
    contract, config = settled(sentence_files(tmp_path, **PROMPTS), explicit=named)
    own = {k for k, fact in contract.facts.items() if fact.source == "command line"}
    assert key in own
    assert own == {k for k in contract.facts if k.startswith(next(iter(named)))}
    for name, value in named.items():
        used = OmegaConf.select(config, name)
        assert used == value or used.items() >= value.items()
    assert contract.differences, "they go into provenance.json"


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (BertConfig(**SHAPE), ("mean", "encoders")),
        (Qwen2Config(**SHAPE, num_key_value_heads=2), ("last_token", "decoders")),
    ],
)
def test_a_pooling_that_nothing_states_is_a_default_and_warned_of(
    settled: Settle,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    model: PretrainedConfig,
    expected: tuple[str, str],
) -> None:
    with caplog.at_level(logging.WARNING):
        contract, _ = settled(plain(tmp_path, model))
    fact = contract.facts["model.pooling"]
    assert fact.value == expected[0]
    assert f"default of {expected[1]}" in fact.source
    assert any("model/pooling=NAME" in m and str(tmp_path) in m for m in caplog.messages)


def test_lengths_of_the_configuration_are_cut_to_the_positions_that_there_are(
    settled: Settle, tmp_path: Path
) -> None:
    folder = plain(tmp_path)
    _, config = settled(folder, prompt__max_document_length=512, prompt__max_query_length=9)
    assert (config.prompt.max_query_length, config.prompt.max_document_length) == (9, 40)
    # what was asked for is refused later, not changed
    _, config = settled(folder, explicit={"prompt.max_document_length": 512})
    assert config.prompt.max_document_length == 512


def test_prompts_of_tasks_alone_are_refused_unless_the_command_line_says_one(
    settled: Settle, tmp_path: Path
) -> None:
    files = {"config_sentence_transformers": {"prompts": {"STS": "same: "}}}
    folder = sentence_files(tmp_path, **files)
    others: list[dict[str, Any]] = [{}, {"prompt.document": "d: {text}"}]
    for explicit in others:
        with pytest.raises(UserError, match=r"STS.*none for query.*prompt\.query='same: \{text\}'"):
            settled(folder, explicit=explicit)
    for explicit in [{"prompt.query": "{text}"}, {"prompt": {"query": "{text}"}}]:
        contract, _ = settled(folder, explicit=explicit)
        assert contract.facts["prompt.query"] == Fact(value="{text}", source="command line")
    contract, _ = settled(folder, model__card=CARD)
    assert contract.facts["prompt.query"].value == "card: {text}"


def test_everything_that_is_used_is_told(
    settled: Settle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prompts = {"query": "q: ", "passage": "p: "}
    files = {
        "config_sentence_transformers": {
            "prompts": prompts, "default_prompt_name": "passage", "similarity_fn_name": "dot",
        },
        "sentence_bert_config": {"max_seq_length": 16, "do_lower_case": True},
        "1_Pooling/config": {"pooling_mode": "mean", "include_prompt": False},
        "2_Dense/config": {"in_features": 32, "out_features": 4, "bias": False},
    }  # fmt: skip
    folder = sentence_files(tmp_path, **files)
    save_file({"linear.weight": zeros(4, 32)}, folder / "2_Dense" / "model.safetensors")
    with caplog.at_level(logging.INFO):
        contract, _ = settled(folder)
    expected = {
        "prompt.query": ("q: {text}", "config_sentence_transformers.json (prompts.query)"),
        "prompt.document": ("{text}", "default"),
        "prompt.end_token": ("tokenizer", "tokenizer.json"),
        "prompt.max_query_length": (16, "sentence_bert_config.json (max_seq_length)"),
        "prompt.max_document_length": (16, "sentence_bert_config.json (max_seq_length)"),
        "model.pooling": ("mean, without the prompt", "1_Pooling/config.json"),
        "model.is_causal": ("as the architecture is", "config.json"),
        "model.normalize": (
            False, "config_sentence_transformers.json (similarity_fn_name=dot)",
        ),
        "projections": ("32 to 4, Tanh", "2_Dense"),
        "lower_case": (True, "sentence_bert_config.json (do_lower_case)"),
    }  # fmt: skip
    assert {k: (f.value, f.source) for k, f in contract.facts.items()} == expected
    (told,) = [m for m in caplog.messages if m.startswith("How texts are fed")]
    for key, (value, source) in expected.items():
        assert f"{key}={value!r}" in told
        assert source in told
    (note,) = contract.notes
    assert "'passage'" in note
    assert note in caplog.messages
    data = json.loads(json.dumps(contract.as_data()))
    assert data["notes"] == [note]
    assert data["parts"]["prompt.max_query_length"] == {
        "value": 16,
        "source": "sentence_bert_config.json (max_seq_length)",
    }


def test_a_hub_id_whose_files_could_not_be_asked_for_is_noted(
    settled: Settle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_cache(monkeypatch, tmp_path / "cache")
    mean = {"_target_": "quarry.models.pooling.mean.Mean"}
    contract, _ = settled("some/model", explicit={"model.pooling": mean})
    (note,) = contract.notes
    assert "some/model" in note
    assert "modules.json" in note


def test_a_hub_id_that_cannot_be_had_is_refused(
    settled: Settle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_cache(monkeypatch, tmp_path / "cache")
    with pytest.raises(UserError, match=r"'some/model'.*model\.path=DIR"):
        settled("some/model")
