"""What config.json says of a reranker, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from helpers.models import tiny_folder
from helpers.rerankers import classifier_folder, language_model_folder
from quarry.errors import MissingPathError, UserError
from quarry.models.rerankers.reranker_files import RerankerFacts, is_bi_encoder, reranker_facts

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


def test_a_bi_encoder_with_a_language_models_architecture_is_no_reranker(tmp_path: Path) -> None:
    folder = language_model_folder(tmp_path)
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate([("Transformer", ""), ("Pooling", "1_Pooling")])
    ]
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    assert is_bi_encoder(str(folder))
    with pytest.raises(UserError, match=r"task\.teacher\.path=.*bi-encoder"):
        facts_of(folder)
    assert facts_of(folder, kind="yes_no").kind == "yes_no"


def test_the_tokens_that_a_score_module_names_are_read(tmp_path: Path) -> None:
    folder = language_model_folder(tmp_path)
    kind = "sentence_transformers.cross_encoder.modules.logit_score.LogitScore"
    modules = [{"idx": 1, "name": "1", "path": "1_LogitScore", "type": kind}]
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    (folder / "1_LogitScore").mkdir()
    stated = {"true_token_id": 4, "false_token_id": 5}
    (folder / "1_LogitScore" / "config.json").write_text(json.dumps(stated), encoding="utf-8")
    assert facts_of(folder).token_ids == (4, 5)
    (folder / "1_LogitScore" / "config.json").write_text('{"true_token_id": 4}', encoding="utf-8")
    with pytest.raises(UserError, match=r"task\.teacher\.path=.*one token.*not supported"):
        facts_of(folder)
    (folder / "modules.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match=r"modules\.json"):
        facts_of(folder)
