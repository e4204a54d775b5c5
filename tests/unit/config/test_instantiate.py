from __future__ import annotations

from collections.abc import Callable

import pytest
from hydra.errors import InstantiationException
from omegaconf import OmegaConf

from quarry.config.instantiate import build, build_named
from quarry.errors import MissingPathError, UserError


class Holder:
    def __init__(
        self, *, items: list[int], table: dict[str, list[int]], extra: object = None
    ) -> None:
        self.items, self.table, self.extra = items, table, extra


class Outer:
    def __init__(self, *, inner: object) -> None:
        self.inner = inner


def refuses(*, value: int) -> None:
    raise UserError(f"value={value} is too small")


def misses() -> None:
    raise MissingPathError("no such file")


def breaks() -> None:
    raise ValueError("ours to mend")


def here(name: str) -> str:
    return f"{__name__}.{name}"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setitem(__import__("sys").modules, __name__, request.module)


def test_lists_and_dicts_are_plain() -> None:
    node = {"_target_": here("Holder"), "items": [1, 2], "table": {"a": [3]}}
    holder = build(OmegaConf.create(node), extra={"b": [4]})
    assert type(holder.items) is list
    assert type(holder.table) is dict
    assert type(holder.table["a"]) is list
    assert (holder.items, holder.table, holder.extra) == ([1, 2], {"a": [3]}, {"b": [4]})


def test_partial_waits_for_the_rest() -> None:
    node = {"_target_": here("Holder"), "_partial_": True, "items": [1]}
    make: Callable[..., Holder] = build(OmegaConf.create(node))
    assert make(table={}).items == [1]


def test_user_error_comes_out_as_it_was_raised() -> None:
    node = OmegaConf.create({"_target_": here("refuses"), "value": 3})
    with pytest.raises(UserError) as caught:
        build(node)
    assert str(caught.value) == "value=3 is too small"
    assert caught.value.__suppress_context__


def test_user_error_from_a_nested_node_keeps_its_class() -> None:
    inner = {"_target_": here("misses")}
    with pytest.raises(MissingPathError, match=r"^no such file$"):
        build(OmegaConf.create({"_target_": here("Outer"), "inner": inner}))


def test_any_other_error_stays_an_instantiation_error() -> None:
    with pytest.raises(InstantiationException, match="ours to mend"):
        build(OmegaConf.create({"_target_": here("breaks")}))


def test_named_members_are_built_in_order_and_null_is_left_out() -> None:
    node = {"_target_": here("Holder"), "table": {}}
    group = OmegaConf.create(
        {"b": {**node, "items": [1]}, "none": None, "a": {**node, "items": [2]}}
    )
    assert [member.items for member in build_named(group)] == [[1], [2]]
    assert build_named(OmegaConf.create({})) == []
