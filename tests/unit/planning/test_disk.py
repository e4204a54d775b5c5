"""Bytes on disk: checkpoints with what replaces them, models, downloads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from helpers.plans import LORA, setup
from quarry.planning.disk import (
    SavedFiles,
    checkpoint_bytes,
    download_bytes,
    model_bytes,
    planned_disk,
)
from quarry.planning.published_shapes import published_config
from quarry.planning.zero_buffers import ZeroBuffers

ZERO2 = ZeroBuffers(stage=2, reduce_bucket_size=1)
ALL = {"num_frozen": 10, "num_trained": 100, "kept": replace(LORA, trains_backbone=True)}

CALLBACKS = "quarry.training.callbacks."
LAST = {"_target_": f"{CALLBACKS}last_checkpoint.LastCheckpoint"}
BEST = {"_target_": f"{CALLBACKS}best_model.BestModel"}


def top(number: int) -> dict[str, Any]:
    target = "pytorch_lightning.callbacks.ModelCheckpoint"
    return {"_target_": target, "save_top_k": number}


def test_a_checkpoint_is_what_is_trained_and_its_moments() -> None:
    assert checkpoint_bytes(setup(num_trained=100)) == 100 * 12
    shards = setup(num_trained=100, trained_itemsize=2, zero=ZERO2)
    assert checkpoint_bytes(shards) == 100 * (2 + 12), "and fp32 weights beside those in bf16"


def test_a_model_is_an_adapter_or_all_weights() -> None:
    assert model_bytes(setup(num_trained=100)) == 400
    assert model_bytes(setup(**ALL, trained_itemsize=2)) == 10 * 2 + 100 * 2
    in_shards = setup(**ALL, trained_itemsize=2, zero=ZERO2)
    assert model_bytes(in_shards) == 10 * 2 + 100 * 4, "from the optimizer's fp32"


@pytest.mark.parametrize(
    ("callbacks", "last", "top_", "best"),
    [
        ({}, 0, 0, 0),
        ({"last": LAST}, 2400, 0, 0),
        ({"last": LAST, "best": BEST}, 2400, 0, 800),
        ({"last": LAST, "top": top(3)}, 2400, 4800, 0),
        ({"top": top(-1)}, 0, 5 * 1200, 0),
        ({"top": top(9)}, 0, 5 * 1200, 0),
        ({"gone": None}, 0, 0, 0),
    ],
)
def test_callbacks_that_save(callbacks: dict[str, Any], last: int, top_: int, best: int) -> None:
    saved = SavedFiles.of(OmegaConf.create(callbacks))
    need = planned_disk(setup(num_trained=100), saved, num_evaluations=5, download=7)
    assert (need.last, need.top, need.best, need.model) == (last, top_, best, 400)
    assert need.run_directory == last + top_ + best + 400
    assert need.download == 7


def test_a_download_is_what_the_hub_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    config = published_config("Qwen/Qwen2.5-7B")
    assert config is not None
    number = 7_070_619_136
    head = 152064 * 3584
    cached: dict[str, str] = {}
    monkeypatch.setattr(
        huggingface_hub, "try_to_load_from_cache", lambda repo, name: cached.get(name)
    )
    assert download_bytes("Qwen/Qwen2.5-7B", config, num_parameters=number) == 2 * (number + head)
    tied = published_config("Qwen/Qwen2.5-0.5B")
    assert tied is not None
    assert download_bytes("Qwen/Qwen2.5-0.5B", tied, num_parameters=100) == 200
    assert download_bytes(str(tmp_path), config, num_parameters=number) == 0
    cached["model.safetensors.index.json"] = "here"
    assert download_bytes("Qwen/Qwen2.5-7B", config, num_parameters=number) == 0
