"""Shapes by name: their weights are as many as the published files hold."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from transformers import PretrainedConfig

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "config"))
from configurations import composed, files, opened

from quarry.models.memory import num_weights, outline
from quarry.planning.published_shapes import published_config


def num_published(hub_id: str) -> int:
    """With the head, where it is a matrix of its own."""
    config = published_config(hub_id)
    assert isinstance(config, PretrainedConfig)
    text = config.get_text_config()
    head = 0 if config.tie_word_embeddings else text.vocab_size * text.hidden_size
    return num_weights(outline(config)) + head


@pytest.mark.parametrize(
    ("hub_id", "number"),
    [
        ("Qwen/Qwen2.5-0.5B", 494_032_768),
        ("Qwen/Qwen2.5-1.5B", 1_543_714_304),
        ("Qwen/Qwen2.5-Coder-3B-Instruct", 3_085_938_688),
        ("Qwen/Qwen2.5-Math-7B", 7_615_616_512),
        ("Qwen/Qwen2.5-14B-Instruct", 14_770_033_664),
        ("Qwen/Qwen2.5-32B", 32_763_876_352),
        ("Qwen/Qwen2.5-72B", 72_706_203_648),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", 1_777_088_000),
        ("Qwen/Qwen2.5-VL-3B-Instruct", 3_754_622_976),
        ("Qwen/Qwen2.5-VL-7B-Instruct", 8_292_166_656),
    ],
)
def test_weights_of_published_files(hub_id: str, number: int) -> None:
    assert num_published(hub_id) == number


def test_every_size_of_every_model_of_the_study_is_known() -> None:
    with opened():
        models = [
            composed("train", f"model={file.partition('/')[2]}").model
            for file in files()
            if file.startswith("model/qwen-") and file != "model/qwen-tiny"
        ]
    hub_ids = [hub_id for model in models for hub_id in model.hub_ids.values()]
    assert len(hub_ids) > 30
    assert [hub_id for hub_id in hub_ids if published_config(hub_id) is None] == []


@pytest.mark.parametrize(
    "name", ["Qwen/Qwen2.5-9B", "Qwen/Qwen2.5-VL-14B-Instruct", "Qwen/Qwen3-8B", "some/folder"]
)
def test_of_other_names_nothing_is_said(name: str) -> None:
    assert published_config(name) is None
