"""Published retrievers compose by name in every size; cards hold what a loader can read."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import yaml
from configurations import CONF, composed, opened
from omegaconf import DictConfig

from quarry.config.signature_rules import signature_violations
from quarry.config.validation import unresolved_values, validate
from quarry.data.prompts import Prompt
from quarry.errors import UserError

SIZES = {
    "minilm": ["L6"],
    "bge": ["small", "base", "large"],
    "e5": ["small", "base", "large"],
    "e5-mistral": ["7B"],
    "gte-qwen2": ["1.5B", "7B"],
    "qwen3-embedding": ["0.6B", "4B", "8B"],
    "nomic-embed-code": ["7B"],
    "repllama": ["7B"],
}
CARD_KEYS = {
    "source", "query", "document", "pooling", "normalize", "max_query_length",
    "max_document_length", "end_token",
}  # fmt: skip
POOLINGS = {"cls", "mean", "max", "mean_sqrt_len", "weighted_mean", "last_token"}


@pytest.fixture(scope="module", autouse=True)
def _conf() -> Iterator[None]:
    with opened():
        yield


def model_of(name: str) -> dict[str, Any]:
    text = (CONF / "model" / f"{name}.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text)["model"])


def test_there_is_a_case_for_every_file_of_the_family() -> None:
    files = [
        file.stem
        for file in (CONF / "model").glob("*.yaml")
        if "- family/published@" in file.read_text(encoding="utf-8")
    ]
    assert set(files) == set(SIZES)
    for name, sizes in SIZES.items():
        model = model_of(name)
        assert list(model["hub_ids"]) == sizes
        assert model["size"] in sizes


@cache
def composed_config(name: str) -> DictConfig:
    """Compose once: model.size is read when asked for. For train.py see test_every_option."""
    return composed("eval", f"model={name}")


@pytest.mark.parametrize("name", SIZES)
def test_every_size_composes_and_means_its_hub_id(name: str) -> None:
    for size in SIZES[name]:
        config = composed_config(name).copy()
        config.model.size = size
        model = config.model
        assert model.hub_id == model_of(name)["hub_ids"][size]
        assert list(unresolved_values(model)) == []
        assert list(signature_violations(model)) == []


@pytest.mark.parametrize("name", SIZES)
def test_a_card_is_data_that_prompts_can_be_made_of(name: str) -> None:
    card = model_of(name)["card"]
    assert set(card) <= CARD_KEYS
    assert card["source"].startswith("https://huggingface.co/")
    assert (
        card["source"].removeprefix("https://huggingface.co/") in model_of(name)["hub_ids"].values()
    )
    assert card["pooling"] in POOLINGS
    assert card["normalize"] is True
    lengths = {key: card[key] for key in ("max_query_length", "max_document_length") if key in card}
    prompt = Prompt(query=card["query"], document=card["document"], **lengths)
    assert prompt.template("document").keeps_empty_title is (name == "repllama")


def test_a_published_retriever_can_be_trained_with_lora() -> None:
    config = composed("train", "model=bge", "model/adapter=lora")
    assert config.model.adapter.r == 16
    validate(config, primary="train")


@pytest.mark.parametrize("size", ["tiny", "medium"])
def test_a_size_that_there_is_not_is_one_error_with_those_that_there_are(size: str) -> None:
    config = composed("eval", "model=bge", f"model.size={size}")
    with pytest.raises(UserError) as caught:
        validate(config, primary="eval")
    (line,) = str(caught.value).splitlines()[1:]
    assert f"model.size={size} was never published; there are small, base, large" in line
    assert "tiny" not in line.replace(f"model.size={size}", "")


def test_attention_is_as_the_authors_of_each_mean_it() -> None:
    causal = {name: composed_config(name).model.is_causal for name in SIZES}
    assert causal["gte-qwen2"] is False
    assert causal["e5-mistral"] is causal["qwen3-embedding"] is causal["repllama"] is True
    assert causal["bge"] is causal["e5"] is causal["minilm"] is None
