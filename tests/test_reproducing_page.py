"""docs/reproducing.md is what its command makes of catalogue, configuration and measured rates."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from quarry.planning import rate

DOCS = Path(__file__).resolve().parents[1] / "docs"
RECIPE = ("experiment=sft_msmarco", "model=qwen-base")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_reproducing", DOCS / "make_reproducing.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there for their module
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_its_command_makes(script: ModuleType) -> None:
    assert script.page() == (DOCS / "reproducing.md").read_text(encoding="utf-8"), "run: make docs"
    docs = (DOCS.parent / "Makefile").read_text(encoding="utf-8").partition("\ndocs:")[2]
    assert all(f"docs/{path.name}" in docs for path in DOCS.glob("make_*.py"))


def test_the_work_of_a_set_by_hand(script: ModuleType) -> None:
    suite = script.Suite.of("eval", "small", "promptreps", "experiment=zero_shot")
    row = suite.rows()["arguana"]
    assert row.num_texts == 1406 + 8674
    # characters of mteb at four a token, and the template
    by_hand = 1406 * (1192.7 / 4 + 48) + 8674 * (1029.5 / 4 + 49)
    assert row.num_tokens == pytest.approx(by_hand)
    assert suite.work.num_texts == sum(each.num_texts for each in suite.rows().values())


def test_long_texts_are_cut_and_shared_corpora_count_once(script: ModuleType) -> None:
    marco = script.Suite.of("train", "msmarco_dl", "repllama", *RECIPE)
    assert marco.work.num_texts == 8_841_823 + 6980 + 43 + 54
    assert marco.rows()["trec-dl-2019"].num_texts == 43
    coir = script.Suite.of("eval", "coir", "promptreps", "experiment=zero_shot")
    assert coir.rows()["codesearchnet"].num_texts == 52_561 + 1_003_765  # each language its own
    long = coir.rows()["codefeedback-mt"]
    by_hand = 13_277 * (512 + 48) + 66_383 * (1468 / 4 + 49)
    assert long.num_tokens == pytest.approx(by_hand, rel=1e-4)  # 1468 is rounded


def test_hours_follow_from_the_measured_rate(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = json.loads(rate.MEASURED.read_text(encoding="utf-8"))
    measured = content["parts"]["encode_7b"]["ours"]
    one, eight = script.training_plan(1), script.training_plan(8)
    assert script.encoding_rate(one) == measured["tokens_per_s"]
    # an eighth of a contrastive batch fits without computing anything twice
    assert one.choice.gradient_checkpointing
    assert not eight.choice.gradient_checkpointing
    assert 0.8 * one.training_hours < 8 * eight.training_hours < one.training_hours
    # a plan by itself does not know the tokens of the template so well
    own, planned = script.Suite.of("train", "msmarco_dl", "repllama", *RECIPE), one.evaluations
    by_page = own.work.hours(tokens_per_s=measured["tokens_per_s"])
    assert planned.hours == pytest.approx(2 * by_page, rel=0.02)

    def page_at(tokens_per_s: float) -> str:
        measured["tokens_per_s"] = tokens_per_s
        (tmp_path / "performance.json").write_text(json.dumps(content))
        monkeypatch.setattr(rate, "MEASURED", tmp_path / "performance.json")
        page: str = script.page()
        return page

    # 1,175.9 million tokens, of which 17 a text are shared: 1,025.5 million go through the model
    assert "| `msmarco` | 8,848,803 | 1,175.9 | 7.1 |" in page_at(40_000)
    assert "| `msmarco` | 8,848,803 | 1,175.9 | 14 |" in page_at(20_000)


def test_the_recipe_itself_is_no_bound(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = json.loads(rate.MEASURED.read_text(encoding="utf-8"))
    row = {"tokens_per_s": 16_000.0, "peak_gib": 61.2, "run": 0}
    content["parts"]["study"] = {"recipe": row}
    (tmp_path / "performance.json").write_text(json.dumps(content))
    monkeypatch.setattr(rate, "MEASURED", tmp_path / "performance.json")
    page = script.page()
    # 696 million tokens
    assert "| | 696 million | 12 | 1.5 |" in page
    assert "Training takes 61 GiB" in page
    assert "\u2265" not in page
