"""What a result depends on, and the fewest words that tell configurations apart."""

from __future__ import annotations

from quarry.study_report.settings import (
    differing,
    distinguishing,
    flattened,
    placed,
    relevant,
    setting_value,
    short_values,
    shortened,
)


def test_lists_are_values_and_dictionaries_are_not() -> None:
    assert flattened({"a": {"b": [1, 2], "c": None}, "d": "x"}) == {
        "a.b": "[1, 2]",
        "a.c": "null",
        "d": '"x"',
    }


def test_where_something_is_computed_does_not_matter() -> None:
    settings = {
        "model.dtype": '"auto"',
        "model.compile": "true",
        "model.adapter.r": "8",
        "model.replica.cache_dir": '"x"',
        "retriever.index.num_queries_per_chunk": "5",
        "trainer.devices": "8",
        "trainer.precision": '"32-true"',
        "trainer.max_steps": "5",
        "data.num_workers": "3",
        "data.num_hard_negatives": "7",
        "logger.wandb.project": '"p"',
    }
    trained = {"model.dtype", "model.adapter.r", "trainer.precision", "trainer.max_steps"}
    assert set(relevant(settings, "supervised")) == trained | {"data.num_hard_negatives"}
    # an adapter that was not trained changes nothing
    assert set(relevant(settings, "zero_shot")) == {"model.dtype", "trainer.precision"}
    assert relevant(settings, "baseline") == {}


def test_all_hard_negatives_are_told_from_a_number_of_them() -> None:
    values = [flattened({"data": {"num_hard_negatives": number}}) for number in (None, 0, 7)]
    assert distinguishing(values, [{}] * 3) == ["data.num_hard_negatives"]
    names = [setting_value(each, {}, "data.num_hard_negatives") for each in values]
    assert names == ["null", "0", "7"]


def test_an_option_names_what_it_fills() -> None:
    assert placed(
        {"model/pooling@model.pooling": "mean", "model/adapter": "lora", "loss": "x"}
    ) == {
        "model.pooling": "mean",
        "model.adapter": "lora",
        "loss": "x",
    }


def test_an_option_goes_before_the_keys_that_it_brings() -> None:
    settings = [{"prompt.query": "a", "prompt.document": "b"}, {"prompt.query": "c"}]
    options = [{"prompt": "one"}, {"prompt": "two"}]
    assert distinguishing(settings, options) == ["prompt"]
    assert differing(settings, options) == (["prompt"], [])


def test_a_key_that_differs_under_the_same_option_is_named_too() -> None:
    settings = [
        {"prompt.query": "a", "prompt.length": "1"},
        {"prompt.query": "b", "prompt.length": "2"},
        {"prompt.query": "b", "prompt.length": "1"},
    ]
    options = [{"prompt": "one"}, {"prompt": "two"}, {"prompt": "two"}]
    assert differing(settings, options) == (["prompt"], ["prompt.length"])
    assert distinguishing(settings, options) == ["prompt", "prompt.length"]


def test_what_is_not_needed_is_left_out_keys_first() -> None:
    settings = [
        {"prompt.query": "a", "model.dtype": "x"},
        {"prompt.query": "b", "model.dtype": "y"},
    ]
    options = [{"prompt": "one"}, {"prompt": "two"}]
    assert differing(settings, options) == (["prompt"], ["model.dtype"])
    assert distinguishing(settings, options) == ["prompt"]
    assert distinguishing(settings[:1], options[:1]) == []


def test_an_experiment_names_what_would_take_several_names() -> None:
    settings = [
        {"data.path": "x", "loss.dims": "1", "model.embedding_dim": "null"},
        {"data.path": "y", "loss.dims": "1", "model.embedding_dim": "null"},
        {"data.path": "x", "loss.dims": "2", "model.embedding_dim": "null"},
        {"data.path": "x", "loss.dims": "2", "model.embedding_dim": "64"},
    ]
    data, loss = ["a", "b", "a", "a"], ["c", "c", "d", "d"]
    options = [
        {"data": a, "loss": b, "experiment": f"{a}{b}"} for a, b in zip(data, loss, strict=True)
    ]
    assert distinguishing(settings, options) == ["experiment", "model.embedding_dim"]
    without = [{key: each[key] for key in ("data", "loss")} for each in options]
    assert sorted(distinguishing(settings, without)) == ["data", "loss", "model.embedding_dim"]
    # one name is enough: the experiment says less than what it changed
    assert distinguishing(settings[:2], options[:2]) == ["data"]
    # an experiment that nobody chose names nothing
    unnamed = [{**each, "experiment": "none"} for each in options[:1]] + options[1:]
    assert "experiment" not in distinguishing(settings, unnamed)
    # runs of one experiment that differ in two keys
    assert len(distinguishing(settings, [{"experiment": "e"}] * 4)) == 3


def test_short_names_stay_apart() -> None:
    assert shortened(["optimizer.lr", "loss.temperature"]) == {
        "optimizer.lr": "lr",
        "loss.temperature": "temperature",
    }
    assert shortened(["a.r", "b.r"]) == {"a.r": "a.r", "b.r": "b.r"}


def test_values_in_labels_are_short_and_without_paths() -> None:
    def shown(*values: str) -> list[str]:
        found = short_values(values)
        return [found[value] for value in values]

    assert shown("/data/x/train.jsonl", "/data/x/dev.jsonl", "unset") == [
        "train.jsonl", "dev.jsonl", "unset",
    ]  # fmt: skip
    assert shown("/data/a/train.jsonl", "b/train.jsonl") == ["a/train.jsonl", "b/train.jsonl"]
    assert shown("query: {text} / passage", "0.1") == ["query: {text} / passage", "0.1"]
    long = shown("x" * 50 + "1", "x" * 50 + "2")
    assert max(map(len, long)) < 40
    assert len(set(long)) == 2
    assert shown("same", "same") == ["same", "same"]
    assert shown() == []
