"""Heads that are not in the files are refused, never made up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers.rerankers import classifier_folder, language_model_folder, pair_tokenizer
from quarry.errors import UserError
from quarry.models.rerankers.reranker_files import reranker_facts
from quarry.models.rerankers.reranker_models import Reranker, load_reranker


def loaded(folder: Path, **more: Any) -> Reranker:
    facts = reranker_facts(str(folder), revision=None, key="task.teacher")
    words = {"yes_token": "yes", "no_token": "no"} | more
    return load_reranker(
        facts, tokenizer=pair_tokenizer(), dtype=torch.float32, revision=None, key="task.teacher",
        **words,
    )  # fmt: skip


def without(folder: Path, name: str) -> Path:
    file = folder / "model.safetensors"
    weights = load_file(file)
    assert name in weights
    del weights[name]
    save_file(weights, file, metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize(
    ("model_type", "name"),
    [
        ("bert", "classifier.weight"),
        ("bert", "bert.pooler.dense.weight"),
        ("qwen2", "score.weight"),
    ],
)
def test_a_classifier_without_its_head_is_refused(
    model_type: str, name: str, tmp_path: Path
) -> None:
    folder = classifier_folder(tmp_path, model_type)
    loaded(folder)
    with pytest.raises(UserError, match=rf"task\.teacher\.path=.*{name}"):
        loaded(without(folder, name))


def test_a_language_model_without_its_head_is_refused(tmp_path: Path) -> None:
    folder = without(language_model_folder(tmp_path), "lm_head.weight")
    with pytest.raises(UserError, match=r"task\.teacher\.path=.*lm_head\.weight"):
        loaded(folder)


@pytest.mark.parametrize("word", ["yesno", "%"])
def test_a_word_that_is_no_token_is_refused(word: str, tmp_path: Path) -> None:
    folder = language_model_folder(tmp_path)
    with pytest.raises(UserError, match=r"task\.teacher\.yes_token="):
        loaded(folder, yes_token=word)


@pytest.mark.parametrize("model_type", ["gemma2", "gpt2"])
def test_a_decoder_that_is_padded_needs_a_padding_token(model_type: str, tmp_path: Path) -> None:
    folder = classifier_folder(tmp_path, model_type, pad_token_id=None)
    facts = reranker_facts(str(folder), revision=None, key="task.teacher")
    tokenizer = pair_tokenizer()
    tokenizer.pad_token = None
    with pytest.raises(UserError, match="padding token"):
        load_reranker(
            facts, tokenizer=tokenizer, dtype=torch.float32, revision=None, yes_token="yes",
            no_token="no", key="task.teacher",
        )  # fmt: skip


def test_tokens_other_than_those_of_the_files_are_refused(tmp_path: Path) -> None:
    folder = language_model_folder(tmp_path)
    facts = reranker_facts(str(folder), revision=None, key="task.teacher")
    stated = replace(facts, token_ids=(5, 4))  # no, yes
    with pytest.raises(UserError, match=r"task\.teacher\.yes_token=no task\.teacher\.no_token=yes"):
        load_reranker(
            stated, tokenizer=pair_tokenizer(), dtype=torch.float32, revision=None,
            yes_token="yes", no_token="no", key="task.teacher",
        )  # fmt: skip
