from __future__ import annotations

from omegaconf import OmegaConf

from quarry.config.resolvers import register_resolvers
from quarry.config.schema import DataConfig
from quarry.config.validation import component_violations, unknown_keys, unresolved_values


def test_unresolved_values_are_all_named() -> None:
    config = OmegaConf.create(
        {"a": "???", "b": {"c": "${nowhere.d}", "e": 1}, "f": ["???", "${a}", 2]}
    )
    found = list(unresolved_values(config))
    assert [line.replace(":", " ").split()[0] for line in found] == ["a", "b.c", "f.0", "f.1"]
    assert list(unresolved_values(OmegaConf.create({"a": 1, "b": "${a}", "c": None}))) == []


def test_unknown_keys_are_those_that_plus_adds() -> None:
    register_resolvers()  # a default asks for one, and no other test may have been here before
    config = OmegaConf.structured(DataConfig)
    config.examples = {"free": 1}
    config.global_batch_size = 8
    assert list(unknown_keys(config)) == []
    OmegaConf.update(config, "num_querys", 1, force_add=True)
    known = (
        "examples, path, corpus_path, split, subset, revision, columns, max_examples, "
        "num_hard_negatives, global_batch_size, grad_cache_chunk_tokens, num_workers"
    )
    assert list(unknown_keys(config, "data")) == [
        f"data.num_querys: there is no such key; data has {known}"
    ]


def test_components_need_a_class() -> None:
    good = {"_target_": "x"}
    config = OmegaConf.create({"loss": good, "optimizer": None, "logger": {}, "callbacks": "none"})
    assert list(component_violations(config, ["loss"])) == [
        "callbacks='none' is no group of classes: callbacks=none has none"
    ]
    found = list(component_violations(config, ["optimizer", "scheduler"]))
    assert [line.split(" ")[0] for line in found] == [
        "optimizer=null",
        "scheduler=null",
        "callbacks='none'",
    ]
