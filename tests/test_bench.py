"""The parts of bench/ whose mistakes would be wrong numbers rather than failures."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModel

import table
from kernels import WAITING, profile_table, times_by, waiting
from measurements import FULL, PEER, Part, measurements
from measuring import Clock
from page import joined, page, runs_in_use
from quarry.data.prompts import Prompt
from quarry.data.tokenization import TextTokenizer
from quarry.models.backbones.huggingface import load_tokenizer
from quarry.types import Query
from random_model import SIZES, write_model
from result_line import num_matrix_weights
from search_memory import fill, measure

DOCS = Path(__file__).resolve().parents[1] / "docs"
Passing = Callable[[float], None]


@pytest.fixture
def passing(monkeypatch: pytest.MonkeyPatch) -> Passing:
    """Lets seconds pass."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def passing(seconds: float) -> None:
        now[0] += seconds

    return passing


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_model(folder, "tiny")
    return folder


def result(parts: dict[str, dict[str, Any]], *, rate: float = 800e12, runs: int = 1) -> Any:
    run = {"has_gpu": True, "memory_gib": 139.8, "matrix_flop_per_s": rate}
    return {"scale": "full", "runs": [dict(run) for _ in range(runs)], "parts": parts}


def cells(content: Any, what: str) -> list[str]:
    line = next(line for line in table.table(content).splitlines() if line.startswith(f"| {what}"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_rate_is_the_median_of_windows_after_the_warm_up(passing: Passing) -> None:
    clock = Clock(num_warm_up=2, num_steps=6, num_steps_per_window=2)
    ended = []
    for seconds in (30, 1, 1, 1, 4, 4, 2, 2):  # compiling; three windows of two steps
        passing(seconds)
        ended.append(clock.tick(100))
    assert ended == [False] * 7 + [True]
    values = clock.result()
    assert values["warm_up_s"] == 31
    assert values["tokens_per_s_of_windows"] == [100, 25, 50]
    assert values["tokens_per_s"] == 50
    assert values["num_tokens"] == 600


def test_the_work_of_a_token_is_that_of_its_linear_layers(folder: Path) -> None:
    model = AutoModel.from_pretrained(folder)
    matrices = [p for name, p in model.named_parameters() if "proj" in name and p.ndim == 2]
    assert num_matrix_weights(folder) == sum(matrix.numel() for matrix in matrices)


@pytest.mark.parametrize(("size", "billions"), [("7B", 6.525), ("0.5B", 0.358)])
def test_published_sizes_have_their_weights(size: str, billions: float, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(SIZES[size]), encoding="utf-8")
    assert num_matrix_weights(tmp_path) / 1e9 == pytest.approx(billions, abs=5e-4)


def test_a_text_of_n_words_has_n_tokens_and_an_end(folder: Path) -> None:
    tokenizer = load_tokenizer(str(folder))
    prompt = Prompt(
        query="{text}", document="{text}", instruction=None, is_chat=False, assistant=None,
        end_token="eos", max_query_length=32, max_document_length=32, length_counts="all",
    )  # fmt: skip
    (ours,) = TextTokenizer(tokenizer=tokenizer, prompt=prompt)(
        [Query(query_id="1", text="w3 w14 w15")], "query"
    )
    assert ours.ids.tolist() == [3, 14, 15, tokenizer.eos_token_id]
    assert tokenizer("w3 w14 w15")["input_ids"] == ours.ids.tolist(), "what others read"


def test_ratios_shares_and_what_was_wanted() -> None:
    ours = {"run": 0, "tokens_per_s": 20_000.0, "peak_gib": 70.0, "flop_per_token": 4 * 6.525e9}
    theirs = {"run": 0, "tokens_per_s": 4_000.0, "peak_gib": 24.0}
    content = result({"train_7b": {"ours": ours, PEER: theirs}})
    assert cells(content, "7B LoRA training, 8 x 16,") == [
        "7B LoRA training, 8 x 16, no checkpointing; theirs with", "20,000 tokens/s",
        "4,000 tokens/s (sentence-transformers)", "**5.00**", "≥ 4.8", "65%", "70.0 / 24.0",
    ]  # fmt: skip
    ours["tokens_per_s"] = 10_000.0
    assert cells(content, "7B LoRA training, 8 x 16,")[3] == "2.50 ✗"
    content = result({"train_7b": {"ours": ours, PEER: theirs | {"run": 1}}}, runs=2)
    assert cells(content, "7B LoRA training, 8 x 16,")[3] == "2.50 † ✗"


def test_within_their_memory_counts_what_fits() -> None:
    theirs = {"run": 0, "tokens_per_s": 4_000.0, "peak_gib": 24.0}
    fast = {"run": 0, "tokens_per_s": 15_000.0, "peak_gib": 24.5}
    slow = {"run": 0, "tokens_per_s": 14_000.0, "peak_gib": 20.0}
    parts = {"train_7b": {PEER: theirs}, "train_7b_same_memory": {"ours": fast}}
    what = "the same within their memory"
    assert cells(result(parts), what)[1].startswith("not run: none fits: 24.5 GiB at least")
    parts["train_7b_same_memory"]["ours"] = slow
    assert cells(result(parts), what)[1:4] == [
        "14,000 tokens/s", "4,000 tokens/s (sentence-transformers)", "**3.50**",
    ]  # fmt: skip


def test_what_did_not_run_says_why() -> None:
    parts = {"train_7b": {"ours": {"run": 0, "not_run": "out of memory"}}}
    assert cells(result(parts), "7B LoRA training, 8 x 16,")[1] == "not run: out of memory"
    assert cells(result({}), "search:")[1] == "not run: not measured"


def test_every_row_has_a_measurement() -> None:
    known = {(m.name, part.name) for m in measurements(FULL, has_gpu=True) for part in m.parts}
    for row in table.ROWS:
        assert {*row.ours, *([row.reference] if row.reference else [])} <= known, row.what


def test_every_script_is_there() -> None:
    parts: list[Part] = [part for m in measurements(FULL, has_gpu=True) for part in m.parts]
    assert all((DOCS.parent / "bench" / part.script).exists() for part in parts)


def test_of_several_results_the_last_that_ran_counts() -> None:
    first = result({"search": {"ours": {"run": 0, "search_s": 1.0}}})
    second = result({"search": {"ours": {"run": 0, "search_s": 2.0}}})
    third = result({"search": {"ours": {"run": 0, "not_run": "no time"}}})
    content = joined([first, second, third])
    assert content["parts"]["search"]["ours"] == {"run": 1, "search_s": 2.0}
    assert len(content["runs"]) == 3
    (used,) = runs_in_use(content)
    assert used is second["runs"][0]


def test_kernels_and_gaps_add_up() -> None:
    events: list[Any] = [
        {"name": "nvjet_tst_128x256", "ts": 0, "dur": 60},
        {"name": "flash_fwd_splitkv_kernel", "ts": 50, "dur": 20},  # overlaps: no gap
        {"name": "triton_poi_fused__scaled_mm_flash_mul", "ts": 90, "dur": 10},
        {"name": "nvjet_tst_128x256", "ts": 110, "dur": 40},
    ]
    assert times_by(events) == {
        "matrix products": 100, "attention": 20, "compiled element-wise": 10,
    }  # fmt: skip
    assert waiting(events) == 30
    assert f"| {WAITING} | 18.8% | 0.01 |" in profile_table(events, num_steps=2)


def test_the_page_is_what_its_command_makes() -> None:
    content = json.loads((DOCS / "performance.json").read_text(encoding="utf-8"))
    committed = (DOCS / "performance.md").read_text(encoding="utf-8")
    assert committed == page(content), "run: python bench/page.py"


def test_a_search_from_disk_finds_what_the_store_was_filled_with(tmp_path: Path) -> None:
    fill(tmp_path, num_documents=100, dim=16)
    figures = measure(tmp_path, num_documents=100, num_queries=5, dim=16, top_k=10)
    assert figures["num_documents"] == 100  # `measure` compares scores with all products itself
