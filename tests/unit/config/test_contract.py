from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from helpers.models import letter_tokenizer, tiny_bi_encoder
from quarry.config.contract import (
    apply_contract,
    check_frames,
    contract_of,
    contract_terms,
    explicit_keys,
    frames_of,
    has_own_prompt,
)
from quarry.config.instantiate import build
from quarry.data.prompts import Prompt
from quarry.data.tokenization import TextTokenizer
from quarry.errors import UserError
from quarry.models.pooling.mean import Mean
from quarry.models.saved import CONTRACT_FILE, read_contract

PROMPT = {
    "_target_": "quarry.data.prompts.Prompt",
    "query": "Query:{text}",
    "document": "Passage:{text}",
    "end_token": "eos",
    "max_query_length": 32,
    "max_document_length": 156,
}
MEAN = {"_target_": "quarry.models.pooling.mean.Mean"}
LAST = {"_target_": "quarry.models.pooling.last_token.LastToken"}


def _config(**model: Any) -> DictConfig:
    """What eval.py composes before it has seen the model."""
    prompt = PROMPT | {"query": "{text}", "document": "{text}", "max_query_length": 512}
    return OmegaConf.create(
        {
            "model": {"revision": None, "dtype": "float32", "pooling": LAST}
            | {"is_causal": True, "normalize": True}
            | model,
            "loss": {"temperature": 0.02},
            "prompt": prompt,
        }
    )


def _contract(**settings: Any) -> dict[str, Any]:
    stored = {
        "prompt": PROMPT,
        "model.pooling": MEAN,
        "model.is_causal": False,
        "model.normalize": True,
    }
    return {"format": 2, "settings": copy.deepcopy(stored | settings)}


def test_the_stored_contract_wins_over_defaults() -> None:
    config = _config()
    assert apply_contract(config, _contract(), explicit=["model.path", "benchmark"]) == {}
    assert OmegaConf.to_container(config.prompt) == PROMPT
    assert config.model.pooling == MEAN
    assert config.model.is_causal is False
    assert isinstance(build(config.prompt), Prompt)
    assert isinstance(build(config.model.pooling), Mean)


def test_an_explicit_key_wins_and_is_recorded() -> None:
    config = _config(is_causal=True)
    config.prompt.max_query_length = 64
    differences = apply_contract(
        config, _contract(), explicit=["prompt.max_query_length", "model.is_causal"]
    )
    used = PROMPT | {"max_query_length": 64}
    assert OmegaConf.to_container(config.prompt) == used
    assert config.model.is_causal is True
    assert config.model.pooling == MEAN
    assert differences == {
        "prompt": {"contract": PROMPT, "used": used},
        "model.is_causal": {"contract": False, "used": True},
    }
    json.dumps(differences)  # it goes into provenance.json


def test_a_contract_of_cut_embeddings_says_so_and_others_need_not() -> None:
    config, cut = _config(), {"model.embedding_dim": 16}
    assert apply_contract(config, _contract(**cut), explicit=[]) == {}
    assert config.model.embedding_dim == 16
    assert contract_terms(config).settings["model.embedding_dim"] == 16
    config = _config(embedding_dim=8)
    differences = apply_contract(config, _contract(**cut), explicit=["model.embedding_dim"])
    assert differences == {"model.embedding_dim": {"contract": 16, "used": 8}}
    for bad in (0, True, "16"):
        with pytest.raises(UserError, match=r"model\.embedding_dim=.*number of 1"):
            apply_contract(_config(), _contract(**{"model.embedding_dim": bad}), explicit=[])


def test_an_explicit_key_that_agrees_is_no_difference() -> None:
    config = _config()
    config.prompt.max_query_length = 32
    assert apply_contract(config, _contract(), explicit=["prompt.max_query_length"]) == {}


def test_an_explicit_group_wins_whole_and_is_recorded() -> None:
    config = _config()
    wanted = OmegaConf.to_container(config.prompt)
    differences = apply_contract(config, _contract(), explicit=["prompt", "model/pooling"])
    assert OmegaConf.to_container(config.prompt) == wanted
    assert config.model.pooling == LAST
    assert differences["prompt"] == {"contract": PROMPT, "used": wanted}
    assert differences["model.pooling"] == {"contract": MEAN, "used": LAST}


def test_the_name_of_another_key_is_no_explicit_choice() -> None:
    config = _config()
    explicit = ["prompt.max_query_length_2", "model", "xprompt.end_token"]
    assert apply_contract(config, _contract(), explicit=explicit) == {}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.pooling", {"_target_": "os.system", "command": "true"}),
        ("model.pooling", {"_target_": "quarry.models.pooling.mean.torch.os.system"}),
        ("model.pooling", {"_target_": "quarry.models.pooling.mean.torch.nn.Identity"}),
        ("model.pooling", {"_target_": "quarry.models.pooling.missing.Missing"}),
        ("model.pooling", {"_target_": ["os.system"]}),
        ("model.pooling", {}),
        ("model.pooling", "mean"),
        ("model.pooling", None),
        ("model.pooling", PROMPT),
        ("model.pooling", MEAN | {"_args_": ["x"]}),
        ("model.pooling", MEAN | {"_partial_": True}),
        ("prompt", {"_target_": "quarry.data.prompts.string.Formatter"}),
        ("prompt", PROMPT | {"_target_": "quarry.data.prompts_of_mine.Prompt"}),
        ("prompt", PROMPT | {"query": {"_target_": "os.getcwd"}}),
        ("prompt", PROMPT | {"query": [{"_target_": "os.getcwd"}]}),
        ("prompt", PROMPT | {"query": "{text} ${oc.env:HOME}"}),
        ("prompt", PROMPT | {"max_query_length": "many"}),
        ("prompt", PROMPT | {"colour": "red"}),
        ("prompt", [PROMPT]),
        ("model.is_causal", "yes"),
        ("model.is_causal", {"_target_": "os.getcwd"}),
        ("model.normalize", None),
    ],
)
def test_a_contract_chooses_nothing_but_prompts_poolings_and_plain_values(
    key: str, value: Any
) -> None:
    for explicit in ([], [key]):
        with pytest.raises(UserError, match=r"quarry_contract\.json"):
            apply_contract(_config(), _contract(**{key: value}), explicit=explicit)


def test_a_contract_may_name_what_the_call_trusts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "poolings_of_mine.py").write_text(
        "import os\n\nclass Mine:\n    def __init__(self, *, weight: float):\n        pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    node = {"_target_": "poolings_of_mine.Mine", "weight": 0.5}
    contract = _contract(**{"model.pooling": node})
    with pytest.raises(UserError, match=r"Fix: trusted_packages=\[poolings_of_mine\]"):
        apply_contract(_config(), contract, explicit=[])
    config = _config()
    apply_contract(config, contract, explicit=[], trusted=["poolings_of_mine"])
    assert config.model.pooling == node
    for wrong in ({"_target_": "poolings_of_mine.os.stat_result"}, node | {"weight": "heavy"}):
        with pytest.raises(UserError, match=r"quarry_contract\.json"):
            apply_contract(
                _config(),
                _contract(**{"model.pooling": wrong}),
                explicit=[],
                trusted=["poolings_of_mine"],
            )


@pytest.mark.parametrize(
    "contract",
    [
        {},
        {"format": 2},
        {"format": 1, "settings": _contract()["settings"]},
        {"format": 2, "settings": {"prompt": PROMPT}},
        {"format": 2, "settings": _contract()["settings"] | {"model.path": "x"}},
        {"format": 2, "settings": ["prompt"]},
    ],
)
def test_an_unknown_format_is_refused(contract: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="this version reads format 2"):
        apply_contract(_config(), contract, explicit=[])


def _written(config: DictConfig) -> dict[str, Any]:
    tokenizer = TextTokenizer(tokenizer=letter_tokenizer(), prompt=build(config.prompt))
    model = tiny_bi_encoder(is_causal=config.model.is_causal)
    written = contract_of(
        contract_terms(config), model=model, tokenizer=tokenizer, base={"source": "DIR"}
    )
    return json.loads(json.dumps(written))


def test_a_contract_written_here_is_read_back_unchanged() -> None:
    stored = _written(_config(is_causal=False))
    assert stored["base"] == {"source": "DIR"}
    assert (stored["eos_token_id"], stored["dtype"], stored["temperature"]) == (0, "float32", 0.02)
    other = _config(pooling=MEAN)
    other.prompt.query = "other {text}"
    assert apply_contract(other, stored, explicit=[]) == {}
    assert _written(other)["settings"] == stored["settings"]


def test_a_backbone_that_decides_by_itself_is_stored_as_it_decided() -> None:
    config = _config(is_causal=None)
    tokenizer = TextTokenizer(tokenizer=letter_tokenizer(), prompt=build(config.prompt))
    model = tiny_bi_encoder(is_causal=False)
    stored = contract_of(contract_terms(config), model=model, tokenizer=tokenizer, base={})
    assert stored["settings"]["model.is_causal"] is False


def test_a_tokenizer_that_renders_the_same_prompt_otherwise_is_refused() -> None:
    config = _config()
    stored = _written(config)
    changed = TextTokenizer(tokenizer=letter_tokenizer(has_bos=True), prompt=build(config.prompt))
    with pytest.raises(UserError, match=r"start_ids': \[1\].*contract says.*start_ids': \[\]"):
        check_frames(stored, changed, source="DIR")


def test_the_dtype_is_that_of_the_weights_not_auto() -> None:
    config = _config()
    config.model.dtype = "auto"
    assert _written(config)["dtype"] == "float32"


def test_a_prompt_that_was_asked_for_is_not_the_contracts() -> None:
    config = _config()
    stored = _written(config)
    assert has_own_prompt(stored, config.prompt)
    config.prompt.query = "Q:{text}"
    assert not has_own_prompt(stored, config.prompt)


def test_explicit_keys_are_those_of_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert explicit_keys() == []
    (tmp_path / "one.yaml").write_text("a: 1\nb: {c: 2}\n")
    overrides = ["a=2", "b.c='x=y'", "+d=1", "hydra.job.name=x", "++e.f=1", "~a"]
    with initialize_config_dir(config_dir=str(tmp_path), version_base="1.3"):
        config = compose("one", overrides=overrides, return_hydra_config=True)
    monkeypatch.setattr(HydraConfig, "initialized", lambda: True)
    monkeypatch.setattr(HydraConfig, "get", lambda: config.hydra)
    assert explicit_keys() == ["a", "b.c", "d", "e.f", "a"]
    config.hydra.overrides.task = ["model/pooling=mean", "retriever@baseline=bm25"]
    assert explicit_keys() == ["model/pooling", "retriever"]


@pytest.mark.parametrize("explicit", [[], ["prompt"]])
def test_a_contract_from_before_strip_means_that_nothing_is_stripped(
    tmp_path: Path, explicit: list[str]
) -> None:
    tokenizer = TextTokenizer(tokenizer=letter_tokenizer(), prompt=build(OmegaConf.create(PROMPT)))
    stored = _contract() | {"frames": frames_of(tokenizer)}
    (tmp_path / CONTRACT_FILE).write_text(json.dumps(stored), encoding="utf-8")
    contract = read_contract(tmp_path)
    assert contract is not None
    config = _config()
    config.prompt = PROMPT | {"strip": False}  # what the command line names, if it does
    assert apply_contract(config, contract, explicit=explicit) == {}
    assert has_own_prompt(contract, config.prompt)
    prompt = build(config.prompt)
    assert prompt.strip is False
    again = TextTokenizer(tokenizer=letter_tokenizer(), prompt=prompt)
    check_frames(contract, again, source="here")
    stripping = PROMPT | {"strip": True}
    config.prompt = stripping
    differences = apply_contract(config, contract, explicit=["prompt.strip"])
    assert differences["prompt"]["used"] == stripping
