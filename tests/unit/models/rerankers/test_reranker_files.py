"""What config.json says of a reranker, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from helpers.models import tiny_folder
from helpers.rerankers import classifier_folder, language_model_folder
from quarry.errors import MissingPathError, UserError
from quarry.models.rerankers.reranker_files import RerankerFacts, reranker_facts

SIGMOID = "torch.nn.modules.activation.Sigmoid"
IDENTITY = "torch.nn.modules.linear.Identity"


def facts_of(path: Path | str | None, **more: Any) -> RerankerFacts:
    path = None if path is None else str(path)
    return reranker_facts(path, revision=None, key="task.teacher", **more)


def changed(folder: Path, **entries: object) -> Path:
    file = folder / "config.json"
    content = json.loads(file.read_text(encoding="utf-8")) | entries
    file.write_text(json.dumps(content), encoding="utf-8")
    return folder


def test_the_architecture_says_the_kind(tmp_path: Path) -> None:
    assert facts_of(classifier_folder(tmp_path / "a", "bert")).kind == "classifier"
    assert facts_of(language_model_folder(tmp_path / "b")).kind == "yes_no"
    assert facts_of(classifier_folder(tmp_path / "c", "qwen2")).kind == "classifier"


@pytest.mark.parametrize(
    ("entries", "activation"),
    [
        ({}, None),
        ({"sentence_transformers": {"activation_fn": SIGMOID}}, "sigmoid"),
        ({"sentence_transformers": {"activation_fn": IDENTITY}}, "identity"),
        ({"sbert_ce_default_activation_function": IDENTITY}, "identity"),
    ],
)  # fmt: skip
def test_the_activation_of_sentence_transformers_is_read(
    entries: dict[str, Any], activation: str | None, tmp_path: Path
) -> None:
    folder = changed(classifier_folder(tmp_path, "bert"), **entries)
    assert facts_of(folder).activation == activation


def test_an_activation_of_another_kind_is_refused(tmp_path: Path) -> None:
    stated = {"activation_fn": "torch.nn.modules.activation.Tanh"}
    folder = changed(classifier_folder(tmp_path, "bert"), sentence_transformers=stated)
    with pytest.raises(UserError, match="Tanh"):
        facts_of(folder)


def test_a_bi_encoder_is_no_reranker(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"task\.teacher\.path=.*Qwen2Model"):
        facts_of(tiny_folder(tmp_path))


def test_three_labels_are_no_reranker(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"task\.teacher\.path=.*3 labels"):
        facts_of(classifier_folder(tmp_path, "bert", num_labels=3))


def test_a_head_that_caps_its_logits_is_refused(tmp_path: Path) -> None:
    folder = language_model_folder(tmp_path, "gemma2")
    with pytest.raises(UserError, match="final_logit_softcapping"):
        facts_of(folder)


def test_a_path_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match=r"task\.teacher\.path="):
        facts_of(tmp_path / "none")
    with pytest.raises(MissingPathError, match=r"task\.teacher\.path="):
        facts_of(tmp_path)
    with pytest.raises(UserError, match=r"task\.teacher\.path=null"):
        facts_of(None)


def test_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"task\.teacher\.kind=other"):
        facts_of(classifier_folder(tmp_path, "bert"), kind="other")


def test_an_adapter_alone_is_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match="adapter"):
        facts_of(tmp_path)
