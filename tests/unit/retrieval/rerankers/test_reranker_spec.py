"""Settings of a reranker that cannot work are refused with their key."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from helpers.rerankers import classifier_folder, language_model_folder, pair_tokenizer
from quarry.errors import UserError
from quarry.models.backbones.special_tokens import around
from quarry.retrieval.rerankers.reranker_spec import RerankerSpec


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return classifier_folder(tmp_path_factory.mktemp("bert"), "bert")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"activation": "tanh"}, r"retriever\.reranker\.activation=tanh"),
        ({"dtype": "int8"}, r"retriever\.reranker\.dtype=int8"),
        ({"max_length": 257}, r"retriever\.reranker\.max_length=257.*256"),
        ({"instruction": "find"}, r"retriever\.reranker\.instruction='find'"),
        ({"instruction": "find", "frame": {}}, r"retriever\.reranker\.instruction"),
        ({"frame": {"bodi": "x"}}, r"retriever\.reranker\.frame\.bodi"),
        ({"frame": {"body": "x"}}, r"retriever\.reranker\.frame\.body='x'"),
        ({"frame": {"body": 3}}, r"retriever\.reranker\.frame\.body=3: .*text"),
        ({"frame": {"prefix": None}}, r"retriever\.reranker\.frame\.prefix=None"),
        ({"frame": "abc"}, r"retriever\.reranker\.frame='abc'.*prefix, body"),
    ],
)
def test_a_setting_that_cannot_work_is_refused(
    settings: dict[str, object], message: str, folder: Path
) -> None:
    with pytest.raises(UserError, match=message):
        RerankerSpec(path=str(folder), **settings).check(key="retriever.reranker")  # type: ignore[arg-type]


def test_a_length_without_room_and_a_pair_that_is_not_known_name_their_keys(
    folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"task\.teacher\.max_length=4.*task\.teacher\.max_length="):
        RerankerSpec(path=str(folder), max_length=4).load(key="task.teacher")
    decoder = classifier_folder(tmp_path, "qwen2")
    tokenizer = pair_tokenizer()
    tokenizer.eos_token = "<sep>"
    tokenizer.backend_tokenizer.post_processor = around(tokenizer, [], [2])
    tokenizer.save_pretrained(decoder)
    with pytest.raises(UserError, match=r"task\.teacher\.frame=null.*Fix: 'task\.teacher\.frame="):
        RerankerSpec(path=str(decoder)).load(key="task.teacher")


def test_the_length_is_bounded_by_the_models_positions(folder: Path, tmp_path: Path) -> None:
    assert RerankerSpec(path=str(folder)).load(key="reranker").tokenizer.max_length == 256
    decoder = classifier_folder(tmp_path, "qwen2")  # rotary positions have no table
    assert RerankerSpec(path=str(decoder)).load(key="reranker").tokenizer.max_length == 512


def test_a_generative_reranker_has_qwen3s_frame_and_log_sigmoid(tmp_path: Path) -> None:
    spec = RerankerSpec(path=str(language_model_folder(tmp_path)), instruction="find it")
    scorer = spec.load(key="reranker")
    assert scorer.activation == "log_sigmoid"
    assert scorer.tokenizer.frame is not None
    assert scorer.tokenizer.frame.instruction == "find it"
    assert "<Query>: " in scorer.tokenizer.frame.body


def test_weights_have_the_asked_dtype_and_scores_are_fp32(folder: Path) -> None:
    spec = RerankerSpec(path=str(folder), dtype="bfloat16")
    scorer = spec.load(key="reranker")
    assert next(scorer.model.parameters()).dtype is torch.bfloat16
    assert scorer.score([], label="none").scores.dtype == "float32"
    assert dataclasses.replace(spec, dtype="auto").load(key="reranker").activation == "identity"
