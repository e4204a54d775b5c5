from __future__ import annotations

from pathlib import Path

import pytest
from hydra.errors import ConfigCompositionException

from quarry.config.near_misses import near_misses, nearest_key, notes_near_misses
from quarry.config.schema import register_schemas
from quarry.runtime.entry import error_text


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("ckpt_path=x", "task=resume run=DIR"),
        ("optimizer.learning_rate=1e-4", "optimizer.lr"),
        ("batch_size=8", "data.global_batch_size"),
        ("max_steps=8", "trainer.max_steps"),
        ("loss.temprature=1", "loss.temperature"),
        ("pooling=mean", "model/pooling=OPTION"),
        ("retreiver=bm25", "retriever=OPTION"),
        ("loss=info_nec", "loss=info_nce"),
        ("model=mean", "model/pooling=mean"),
        ("trainer=gpu", "trainer.accelerator=gpu"),
        ("benchmark=scifact", "benchmark=beir benchmark.sets=[scifact]"),
        ("task=runs/train/one", "task=resume run=runs/train/one"),
        ("model=dir/model", "model=local model.path=dir/model"),
        ("model=qwen-coder,qwen-bse", "model=qwen-base"),
    ],
)
def test_the_nearest_key_or_option_is_named(typed: str, meant: str) -> None:
    register_schemas()
    (hint,) = near_misses([typed], primary="train")
    assert meant in hint


def test_a_path_that_exists_is_one_in_a_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "corpus").mkdir()
    monkeypatch.chdir(tmp_path)
    (hint,) = near_misses(["benchmark=corpus"], primary="eval")
    assert "benchmark=folder benchmark.path=corpus" in hint


def test_what_is_right_or_far_from_everything_has_no_answer() -> None:
    register_schemas()
    right = ["model=qwen-coder", "model.size=tiny", "optimizer.lr=1", "-m", "+x=1", "~loss"]
    assert near_misses([*right, "zzzz=1", "hydra.run.dir=x"], primary="train") == []
    assert nearest_key("loss.temperature", ["loss.temperature"]) is None


def test_hydras_advice_to_append_is_left_out_of_an_answer() -> None:
    register_schemas()
    text = "Could not override 'max_steps'.\nTo append to your config use +max_steps=1\nmore"
    with (
        pytest.raises(ConfigCompositionException) as caught,
        notes_near_misses(["max_steps=1"], primary="train"),
    ):
        raise ConfigCompositionException(text)
    lines = error_text(caught.value).splitlines()
    assert lines[1] == "more"
    assert "trainer.max_steps" in lines[2]
