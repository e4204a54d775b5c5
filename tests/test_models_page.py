"""docs/models.md is what its command makes, the same on every machine."""

from __future__ import annotations

import importlib.util
import json
import sys
from copy import deepcopy
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from helpers.replicas import VARIANTS, replica
from quarry.errors import UserError

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_models", DOCS / "make_models.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_models"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def models(script: ModuleType) -> list[Any]:
    return list(script.models())


@pytest.fixture(scope="module")
def retrievers(script: ModuleType) -> list[Any]:
    return list(script.retrievers())


@pytest.fixture
def checked() -> dict[str, Any]:
    return dict(json.loads((DOCS / "models_checked.json").read_text(encoding="utf-8")))


def row(page: str, name: str) -> str:
    return next(line for line in page.splitlines() if line.startswith(f"| `{name}` |"))


def test_the_page_is_what_its_command_makes(
    script: ModuleType, models: list[Any], retrievers: list[Any], checked: dict[str, Any]
) -> None:
    committed = (DOCS / "models.md").read_text(encoding="utf-8")
    assert committed == script.page(models, retrievers, checked), "run: make docs"
    assert {model.name for model in models} == set(VARIANTS)


def test_a_mark_goes_when_a_fact_was_checked_and_returns_when_it_changes(
    script: ModuleType, models: list[Any], checked: dict[str, Any]
) -> None:
    assert "32,768 †" in row(script.page(models, [], {}), "qwen-instruct")
    more = deepcopy(checked)
    entry = {"value": 32768, "source": "somewhere", "date": "2020-01-01"}
    more.setdefault("qwen-instruct", {})["context"] = entry
    page = script.page(models, [], more)
    assert "32,768 |" in row(page, "qwen-instruct")
    assert "- `qwen-instruct`, context: somewhere, 2020-01-01" in page
    entry["value"] = 4096
    assert "32,768 †" in row(script.page(models, [], more), "qwen-instruct")


def test_published_files_confirm_or_contradict(
    script: ModuleType, models: list[Any], tmp_path: Path
) -> None:
    by_name = {model.name: model for model in models}
    folder = replica("qwen-math-instruct", tmp_path).folder()
    found = script.check(by_name["qwen-math-instruct"], folder, source="a test")
    assert set(found) == {"end token", "system line", "rope theta", "context"}
    assert found["rope theta"]["value"] == 10_000
    with pytest.raises(UserError, match=r"qwen-math\.yaml says .*endoftext.* say .*im_end"):
        script.check(by_name["qwen-math"], folder, source="a test")
    with pytest.raises(UserError, match="neither"):
        script.check(by_name["qwen-math"], tmp_path, source="a test")


def test_a_fact_of_a_card_is_marked_until_it_was_checked(
    script: ModuleType, retrievers: list[Any]
) -> None:
    line = row(script.page([], retrievers, {}), "e5")
    assert "`query: {text}` †" in line
    entry = {"value": "query: {text}", "source": "somewhere", "date": "2020-01-01"}
    line = row(script.page([], retrievers, {"e5": {"query": entry}}), "e5")
    assert "`query: {text}` |" in line
    assert "`passage: {text}` †" in line
