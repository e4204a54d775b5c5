"""Queries of another model than the index are refused, and the parts that differ are named."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from helpers.indexes import CONTRACT, made_index
from quarry.errors import UserError
from quarry.search.contract_check import check_contract
from quarry.search.index_manifest import IndexManifest


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> IndexManifest:
    model = {"path": "x", "overrides": ["model.path=x", "prompt=short"]}
    return made_index(tmp_path_factory.mktemp("index") / "own", model=model).manifest


def test_the_same_contract_passes(manifest: IndexManifest) -> None:
    tuples = {role: part | {"weights": ("w",)} for role, part in CONTRACT.items()}
    check_contract(manifest, tuples, folder=Path("index"))


def test_each_part_that_differs_is_named_once(manifest: IndexManifest) -> None:
    other = copy.deepcopy(CONTRACT)
    for part in other.values():
        part["weights"] = ["v" * 500]
    other["query"]["max_length"] = 64
    other["query"]["frame"] = {"literals": ["q: ", ""]}
    with pytest.raises(UserError) as error:
        check_contract(manifest, other, folder=Path("index"))
    message = str(error.value)
    assert message.count("- weights: ['w'] in the index") == 1
    assert "prompt.max_query_length" in message
    assert "query: 32 in the index, 64 here" in message
    assert "prompt.query" in message
    assert "dtype" not in message
    assert "model.path=x prompt=short" in message
    assert len(message) < 1500
