"""The table of docs/evaluation.md is what its command makes of the catalogue."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_benchmarks", DOCS / "make_benchmarks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_its_command_makes(script: ModuleType) -> None:
    page = (DOCS / "evaluation.md").read_text(encoding="utf-8")
    assert page == script.with_table(page), "run: make docs"
    assert all(f"| `{one.name}` |" in page for one in script.PUBLIC_SETS)


def test_a_fact_that_changes_changes_the_table(script: ModuleType) -> None:
    (scifact,) = (one for one in script.PUBLIC_SETS if one.name == "scifact")
    row = "| test | 300 | 5,183 | 339 | yes | kept | nDCG@10 | cc-by-nc-4.0 |\n"
    assert f"| `scifact` | `mteb/scifact@d56462d0` {row}" in script.table([scifact])
    changed = replace(scifact, num_documents=7, relevance_level=2, licence=None, note="cut")
    table = script.table([changed])
    assert "| 300 | 7 | 339 | yes | kept | nDCG@10, level 2 | not specified |" in table
    assert table.endswith("\n- `scifact`: cut.\n\n")
