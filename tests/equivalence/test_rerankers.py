"""Scores of rerankers equal those of transformers on padded batches, to 1e-5 in fp32.

Rounding differs by the order of sums alone; a wrong mask or position moves a score by 0.1.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from helpers.rerankers import (
    DECODERS,
    ENCODERS,
    PAIRS,
    classifier_folder,
    language_model_folder,
    padded_logits,
    pair_tokenizer,
)
from quarry.data.prompts import joined_text
from quarry.models.backbones.special_tokens import around
from quarry.models.rerankers.reranker_models import PackedReranker, PaddedReranker
from quarry.retrieval.rerankers.reranker_spec import RerankerSpec

FRAME = {
    "prefix": "sys : ",
    "body": "{instruction} q: {query} d: {document}",
    "suffix": " is it :",
}


def scores_of(folder: Path, **more: object) -> tuple[np.ndarray, type]:
    spec = RerankerSpec(path=str(folder), max_tokens_per_batch=120, **more)  # type: ignore[arg-type]
    scorer = spec.load(key="reranker")
    return scorer.score(PAIRS, label="pairs").scores, type(scorer.model)


@pytest.mark.parametrize("num_labels", [1, 2])
@pytest.mark.parametrize("model_type", [*ENCODERS, *DECODERS])
def test_a_classifier_scores_as_padded_transformers(
    model_type: str, num_labels: int, tmp_path: Path
) -> None:
    folder = classifier_folder(tmp_path, model_type, num_labels=num_labels)
    scores, kind = scores_of(folder)
    logits = padded_logits(folder, PAIRS)
    wanted = logits[:, 0] if num_labels == 1 else logits[:, 1] - logits[:, 0]
    assert kind is (PackedReranker if model_type in ("qwen2", "llama") else PaddedReranker)
    np.testing.assert_allclose(scores, wanted.numpy(), atol=1e-5)
    assert len(set(np.round(scores, 5).tolist())) == 6  # the fourth pair is the first


@pytest.mark.parametrize(
    ("settings", "has_types"),
    [
        ({"tokenizer_class": "PreTrainedTokenizerFast"}, False),
        ({"tokenizer_class": "BertTokenizerFast"}, True),
        ({"tokenizer_class": None}, True),  # that of the architecture
        ({"tokenizer_class": "BertTokenizer", "model_input_names": ["input_ids"]}, False),
    ],
)
def test_a_model_receives_types_where_its_tokenizers_class_has_them(
    settings: dict[str, object], has_types: bool, tmp_path: Path
) -> None:
    folder = classifier_folder(tmp_path, "bert")
    file = folder / "tokenizer_config.json"
    stated = json.loads(file.read_text()) | settings
    file.write_text(json.dumps({name: each for name, each in stated.items() if each is not None}))
    wanted = padded_logits(folder, PAIRS, has_types=has_types)[:, 0]
    np.testing.assert_allclose(scores_of(folder)[0], wanted.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("model_type", "start", "end"),
    [("bert", [1], [2]), ("qwen2", [], [2]), ("qwen2", [], [0]), ("gemma2", [1], [0])],
)
def test_a_classifier_of_one_text_scores_as_padded_transformers(
    model_type: str, start: list[int], end: list[int], tmp_path: Path
) -> None:
    folder = classifier_folder(tmp_path, model_type)  # 0 is its padding, which is not pooled
    tokenizer = pair_tokenizer()
    tokenizer.backend_tokenizer.post_processor = around(tokenizer, start, end)
    tokenizer.save_pretrained(folder)
    scores, _ = scores_of(folder, frame={"body": "q: {query} d: {document}"})
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    texts = [f"q: {query.text} d: {joined_text(document)}" for query, document in PAIRS]
    encoded = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        wanted = model(**encoded).logits[:, 0]
    np.testing.assert_allclose(scores, wanted.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("model_type", "padding_id"),  # 0 is the tokenizer's; 1000 is no token
    [("gpt2", 0), ("gpt2", 5), ("gpt2", None), ("gpt2", 1000), ("gemma2", 5), ("qwen2", 5)],
)
def test_scores_do_not_depend_on_the_batch_whatever_the_padding(
    model_type: str, padding_id: int | None, tmp_path: Path
) -> None:
    folder = classifier_folder(tmp_path, model_type, pad_token_id=None)
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"pad_token_id": padding_id}))
    together, _ = scores_of(folder)
    scorer = RerankerSpec(path=str(folder)).load(key="reranker")
    alone = [float(scorer.score([pair], label="pair").scores[0]) for pair in PAIRS]
    np.testing.assert_allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("has_tied", [False, True])
@pytest.mark.parametrize("model_type", ["qwen3", "llama"])
def test_yes_and_no_score_as_padded_transformers(
    model_type: str, has_tied: bool, tmp_path: Path
) -> None:
    folder = language_model_folder(tmp_path, model_type, tie_word_embeddings=has_tied)
    scores, kind = scores_of(folder, frame=FRAME, instruction="find")
    assert kind is PackedReranker
    tokenizer = pair_tokenizer()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    texts = [
        f"sys : find q: {query.text} d: {joined_text(document)} is it :"
        for query, document in PAIRS
    ]
    encoded = tokenizer(texts, add_special_tokens=False, padding=True, padding_side="left",
                        return_tensors="pt")  # fmt: skip
    positions = (encoded["attention_mask"].cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        logits = model(
            input_ids=encoded["input_ids"],
            attention_mask=encoded["attention_mask"],
            position_ids=positions,
        ).logits[:, -1]
    no_yes = logits[:, [tokenizer.vocab["no"], tokenizer.vocab["yes"]]]
    np.testing.assert_allclose(scores, no_yes.log_softmax(1)[:, 1].numpy(), atol=1e-5)
    probabilities, _ = scores_of(folder, frame=FRAME, instruction="find", activation="sigmoid")
    np.testing.assert_allclose(probabilities, no_yes.softmax(1)[:, 1].numpy(), atol=1e-5)
    assert len(set(np.round(scores, 5).tolist())) == 6
