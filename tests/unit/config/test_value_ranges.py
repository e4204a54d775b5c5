from __future__ import annotations

from typing import Any

import pytest
from omegaconf import OmegaConf

from quarry.config.value_ranges import Range, range_of, range_violations


def wrong(**config: Any) -> list[str]:
    return list(range_violations(OmegaConf.create(config)))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", -1),
        ("seed", 10**14),
        ("trainer.max_steps", -5),
        ("trainer.max_steps", 0),
        ("trainer.max_epochs", 0),
        ("trainer.log_every_n_steps", 0),
        ("trainer.gradient_clip_val", -1),
        ("trainer.gradient_clip_val", float("nan")),
        ("trainer.strategy.timeout_s", 0),
        ("optimizer.lr", -1),
        ("optimizer.lr", float("nan")),
        ("optimizer.lr", 0),
        ("recipe.learning_rate", 0),
        ("data.num_workers", 100_000),
        ("paths.max_cache_gib", -1),
        ("task.older_than_days", -0.5),
        ("loss.hardness", -1),
        ("loss.margin", -3),
        ("loss.losses.third.temperature", 0),
        ("loss.losses.third.loss.losses.first.teacher_temperature", 0),
        ("loss.loss.hardness", -1),
        ("loss.weights.third", -1),
        ("loss.losses.third.weights.first", -1),
        ("optimizer.weight_decay", -1),
        ("loss.temperature", float("inf")),
        ("loss.temperature", 0),
        ("model.replica.num_layers", 0),
        ("model.replica.vocab_size", 10),
        ("model.adapter.alpha", 0),
        ("prompt.max_query_length", 0),
        ("callbacks.last_checkpoint.every_n_steps", 0),
        ("convention.relevance_level", 0),
        ("convention.relevance_level", 1001),
        ("retriever.k1", float("nan")),
        ("retriever.retrievers.bm25.b", 1.5),
        ("baseline.k1", -1),
        ("evaluation.top_k", 0),
        ("task.alpha", 1),
        ("callbacks.mine.factor", float("inf")),
    ],
)
def test_a_number_out_of_range_is_named_with_its_key(key: str, value: float) -> None:
    config = OmegaConf.create({})
    OmegaConf.update(config, key, value)
    (line,) = range_violations(config)
    assert line.startswith(f"{key}={value}: out of range (")
    assert ". Fix: " in line


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 2**32 - 1),
        ("trainer.max_steps", -1),
        ("trainer.max_epochs", -1),
        ("trainer.gradient_clip_val", None),
        ("trainer.fast_dev_run", True),
        ("optimizer.lr", 10),
        ("task.older_than_days", 0),
        ("paths.max_cache_gib", 0),
        ("loss.weights.third", 0),
        ("callbacks.top.save_top_k", -1),
        ("data.global_batch_size", 10**30),
        ("callbacks.mine.factor", -3.5),
        ("data.grad_cache_chunk_tokens", "auto"),
    ],
)
def test_other_values_are_let_through(key: str, value: object) -> None:
    config = OmegaConf.create({})
    OmegaConf.update(config, key, value)
    assert list(range_violations(config)) == []


def test_each_number_of_a_list_is_checked_and_the_list_is_shown() -> None:
    (line,) = wrong(optimizer={"betas": [0.9, 2]})
    assert line.startswith("optimizer.betas=[0.9, 2]: out of range (at least 0, below 1)")
    assert wrong(optimizer={"betas": [0.9, 0.999]}) == []
    (line,) = wrong(callbacks={"mine": {"parts": [{"every_n_steps": 0}]}})
    assert line.startswith("callbacks.mine.parts.0.every_n_steps=0: ")


def test_a_number_from_another_key_is_named_there_alone() -> None:
    recipe, key = {"learning_rate": -1}, "${recipe.learning_rate}"
    (line,) = wrong(recipe=recipe, optimizer={"lr": key})
    assert line.startswith("recipe.learning_rate=-1: ")
    OmegaConf.register_new_resolver("a_test_negates", lambda value: -value)
    (line,) = wrong(optimizer={"lr": "${a_test_negates:1}"})
    assert line.startswith("optimizer.lr=-1: ")


def test_the_parts_of_a_replica_divide_each_other() -> None:
    def shape(**changed: int) -> list[str]:
        return wrong(model={"replica": {"hidden_size": 24, "num_heads": 4} | changed})

    assert shape() == shape(num_key_value_heads=2) == []
    for changed in ({"num_heads": 5}, {"num_heads": 8}, {"num_key_value_heads": 3}):
        (line,) = shape(**changed)
        (key,) = changed
        assert line.startswith(f"model.replica.{key}={changed[key]}: ")
    assert len(shape(num_heads=0)) == 1


def test_a_range_says_its_bounds() -> None:
    assert str(Range(low=0, high=1, is_above=True, usual=0.5)) == "above 0, at most 1"
    assert str(range_of("trainer.max_steps")).startswith("at least 1; or -1: no limit")
    assert range_of("callbacks.mine.factor") is None


def test_a_range_without_bounds_shows_its_reason_alone() -> None:
    assert str(Range(why="any finite number")) == "any finite number"
