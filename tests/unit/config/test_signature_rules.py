from __future__ import annotations

from typing import Any, Literal

import pytest
from omegaconf import OmegaConf

from quarry.config.signature_rules import signature_violations

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
