from __future__ import annotations

from typing import Any, Literal

import pytest
from omegaconf import OmegaConf

from quarry.config.resolvers import register_resolvers
from quarry.config.schema import DataConfig
from quarry.config.validation import (
    component_violations,
    signature_violations,
    unknown_keys,
    unresolved_values,
)

INFO_NCE = "quarry.losses.info_nce.InfoNCE"


class Part:
    """Stands for a class of ours."""


Part.__module__ = "quarry.part"


def takes(
    *,
    number: int = 0,
    ratio: float = 0.0,
    flag: bool = False,
    name: str | None = None,
    kind: Literal["a", "b"] = "a",
    part: Part | None = None,
    anything: Any = None,
    untyped=None,
    items: list[int] | None = None,
) -> None:
    """Every kind of annotation that is judged, and some that are not."""


def takes_more(*, number: int, **rest: object) -> None:
    """Other keywords cannot be judged."""


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setitem(__import__("sys").modules, __name__, request.module)


def _violations(**keys: Any) -> list[str]:
    node = {"_target_": f"{__name__}.takes", **keys}
    return list(signature_violations(OmegaConf.create({"node": node})))


@pytest.mark.parametrize(
    "keys",
    [
        {"number": 1, "ratio": 1, "flag": True, "name": None, "kind": "b"},
        {"ratio": 0.5, "name": "x", "part": None, "anything": "x", "untyped": None},
        {"anything": None, "items": [1], "part": {"_target_": "quarry.errors.UserError"}},
    ],
)
def test_values_that_fit_are_let_through(keys: dict[str, Any]) -> None:
    assert _violations(**keys) == []


@pytest.mark.parametrize(
    ("key", "value", "told", "right"),
    [
        ("number", 1.5, "1.5", "int"),
        ("number", True, "True", "int"),
        ("number", None, "null", "int"),
        ("ratio", "warm", "'warm'", "float"),
        ("flag", 1, "1", "bool"),
        ("name", 7, "7", "str | None"),
        ("kind", "c", "'c'", "Literal['a', 'b']"),
    ],
)
def test_a_value_of_the_wrong_type_is_told_with_the_right_one(
    key: str, value: object, told: str, right: str
) -> None:
    assert _violations(**{key: value}) == [f"node.{key}={told}: {__name__}.takes takes {right}"]


def test_text_in_place_of_a_class_points_to_the_slash() -> None:
    node = {
        "_target_": "quarry.models.model_spec.model_spec",
        "_partial_": True,
        "pooling": "max",
    }
    (violation,) = signature_violations(OmegaConf.create({"model": node}))
    assert violation.startswith("model.pooling='max': ")
    assert violation.endswith("model/pooling=OPTION")


def test_unknown_and_missing_arguments() -> None:
    config = OmegaConf.create({"loss": {"_target_": INFO_NCE, "temprature": 1}})
    assert list(signature_violations(config)) == [
        f"loss.temprature: {INFO_NCE} takes no such argument; "
        "it takes temperature, contrastive_batch_size, masks_same_passage, masks_same_query, "
        "query_to_query, document_to_document, symmetric; "
        "did you mean loss.temperature?",
        f"loss.temperature is needed by {INFO_NCE} and is not set",
    ]
    config.loss._partial_ = True
    assert len(list(signature_violations(config))) == 1


def test_only_named_arguments_are_judged_where_others_are_taken() -> None:
    node = {"_target_": f"{__name__}.takes_more", "number": "x", "ohter": 1}
    (violation,) = signature_violations(OmegaConf.create({"node": node}))
    assert violation.startswith("node.number='x': ")


def test_a_target_without_a_signature_is_let_through() -> None:
    assert list(signature_violations(OmegaConf.create({"a": {"_target_": "math.hypot"}}))) == []
    node = {"_target_": "builtins.ValueError", "anything": 1}
    assert list(signature_violations(OmegaConf.create({"a": node}))) == []


def test_nodes_are_found_at_any_depth() -> None:
    node = {"_target_": INFO_NCE, "temperature": "x"}
    violations = signature_violations(OmegaConf.create({"a": [{"b": node}]}))
    assert [violation.split("=")[0] for violation in violations] == ["a[0].b.temperature"]


def test_target_that_is_not_there() -> None:
    config = OmegaConf.create({"loss": {"_target_": "quarry.losses.info_nce.InfoNEC"}})
    (violation,) = signature_violations(config)
    assert violation.startswith("loss._target_=quarry.losses.info_nce.InfoNEC cannot be imported")


def test_null_that_comes_from_another_key_is_left_to_that_key() -> None:
    node = {"_target_": f"{__name__}.takes", "number": "${path}"}
    assert list(signature_violations(OmegaConf.create({"path": None, "node": node}))) == []
    node = {"_target_": f"{__name__}.takes", "number": "${path}"}
    assert len(list(signature_violations(OmegaConf.create({"path": "x", "node": node})))) == 1


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
