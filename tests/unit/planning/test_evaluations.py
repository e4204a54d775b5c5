"""Evaluations of a training run: how often, of how many texts, and their share of its hours."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "config"))
from configurations import composed, opened

from helpers.models import letter_tokenizer, tiny_folder
from helpers.plans import LORA, setup
from quarry.config.instantiate import build
from quarry.data.tokenization import TextTokenizer
from quarry.planning.cards import named_card
from quarry.planning.evaluations import Evaluations, planned_evaluations
from quarry.planning.inputs import planned_training
from quarry.planning.machine import Machine

H200 = Machine(
    name="h200", num_bytes=140 * 2**30, is_gpu=True, disk_bytes=None, card=named_card("h200")
)


@pytest.fixture(scope="module", autouse=True)
def _conf() -> Iterator[None]:
    with opened():
        yield


@pytest.fixture(autouse=True)
def _away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def evaluations(
    config: DictConfig,
    *,
    num_steps: int | None,
    machine: Machine = H200,
    world_size: int = 1,
    shares_prefix: bool = True,
    tokenizer: TextTokenizer | None = None,
) -> Evaluations:
    own = setup(world_size=world_size, kept=replace(LORA, has_dropout=False))
    inputs = planned_training(config)
    if tokenizer is not None:
        step = replace(inputs.step, load_tokenizer=lambda: tokenizer)
        inputs = replace(inputs, step=step)
    found = planned_evaluations(
        inputs, num_steps=num_steps, setup=own, machine=machine, shares_prefix=shares_prefix
    )
    assert found is not None
    return found


def marco(every_n_steps: int = 0) -> DictConfig:
    return composed("train", "experiment=sft_msmarco", f"evaluation.every_n_steps={every_n_steps}")


@pytest.mark.parametrize(
    ("every_n_steps", "num_steps", "number", "num_saved"),
    [(0, 100, 2, 1), (40, 190, 6, 5), (50, 100, 3, 2), (200, 100, 2, 1), (10, None, None, 0)],
)
def test_evaluations_before_during_and_after_training(
    every_n_steps: int, num_steps: int | None, number: int | None, num_saved: int
) -> None:
    found = evaluations(marco(every_n_steps), num_steps=num_steps)
    assert (found.number, found.num_after_start) == (number, num_saved)
    # three sets search the same passages
    assert found.num_texts == 6_980 + 43 + 54 + 8_841_823
    assert found.largest_corpus == 8_841_823
    assert found.unknown_sets == ()
    assert (found.hours is None) == (num_steps is None)


def test_the_one_before_training_may_be_left_out() -> None:
    config = marco(40)
    plain = {**config.evaluation, "before_training": False}
    without = OmegaConf.create({**{key: config[key] for key in config if key != "evaluation"}})
    without.evaluation = plain
    found = evaluations(without, num_steps=190)
    assert (found.number, found.num_before, found.num_after_start) == (5, 0, 5)


def test_hours_are_those_of_all_of_them_on_all_devices() -> None:
    one, eight = (evaluations(marco(), num_steps=100, world_size=n) for n in (1, 8))
    assert one.rate is not None
    assert one.hours == pytest.approx(2 * one.num_tokens / one.rate.tokens_per_s / 3600)
    assert eight.hours == pytest.approx((one.hours or 0) / 8)
    assert one.is_limit, "LoRA beside the weights was not measured"
    unknown = evaluations(marco(), num_steps=100, machine=replace(H200, card=None))
    assert (unknown.rate, unknown.hours) == (None, None)


def test_a_shared_prefix_is_computed_once_a_pass() -> None:
    config = composed("train", "experiment=sft_msmarco", "prompt=e5_instruct")
    unknown = evaluations(config, num_steps=100)
    assert unknown.prefix_tokens is None, "the tokenizer is not here"
    assert unknown.num_computed_tokens == unknown.num_tokens
    assert not unknown.is_limit, "it may take less"
    tokenizer = TextTokenizer(tokenizer=letter_tokenizer(), prompt=build(config.prompt))
    found = evaluations(config, num_steps=100, tokenizer=tokenizer)
    assert found.prefix_tokens is not None
    num_shared = found.prefix_tokens["query"]
    assert (num_shared > 60, found.prefix_tokens["document"]) == (True, 0)
    num_again = num_shared * (6_980 + 43 + 54 - 3)
    assert found.num_tokens - found.num_computed_tokens == num_again
    assert found.rate is not None
    hours = 2 * found.num_computed_tokens / found.rate.tokens_per_s / 3600
    assert found.hours == pytest.approx(hours)
    mean = evaluations(config, num_steps=100, shares_prefix=False, tokenizer=tokenizer)
    assert mean.num_computed_tokens == found.num_tokens
    shards = composed(
        "train", "experiment=sft_msmarco", "prompt=e5_instruct", "strategy=zero3",
        "trainer.devices=2",
    )  # fmt: skip
    sharded = evaluations(shards, num_steps=100, world_size=2, tokenizer=tokenizer)
    assert sharded.num_computed_tokens == found.num_tokens, "see `Encoder.has_equal_steps`"


def test_sets_that_nobody_has_counted(tmp_path: Path) -> None:
    path = tiny_folder(tmp_path / "model")
    gone = composed(
        "train", "model=local", f"model.path={path}", "benchmark=folder",
        f"benchmark.path={tmp_path}/no",
    )  # fmt: skip
    found = evaluations(gone, num_steps=1)
    assert f"{tmp_path}/no" in found.unknown_sets[0]
    assert found.hours is None
    hub = evaluations(
        composed("train", "model=qwen-coder", "benchmark=hub", "benchmark.repo=owner/name"),
        num_steps=1,
    )
    assert (hub.unknown_sets, hub.hours) == (("name",), None)
    none = planned_training(composed("train", "benchmark=none"))
    nothing = planned_evaluations(
        none, num_steps=1, setup=setup(), machine=H200, shares_prefix=True
    )
    assert nothing is None
