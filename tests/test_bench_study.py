"""The parts of bench/study.py whose mistakes would be wrong numbers rather than failures."""

from __future__ import annotations

import json
import sys
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tokenizers import ByteLevelBPETokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from encode_prefix import encoding_in
from encoding_table import COMPARISONS, encoding_table
from helpers.models import tiny_qwen
from helpers.tokenizers import chat_tokenizer
from lightning_clock import LightningClock
from limited import share_of
from measurements import FULL, Part
from quarry.data.prompts import Prompt
from quarry.data.tokenization import TextTokenizer
from quarry.models.bi_encoder import BiEncoder
from quarry.models.pooling.last_token import LastToken
from quarry.retrieval.encoder import Encoder
from quarry.types import Document
from readme_table import with_table
from runner import out_of_time, replaces, typed
from study_command import chosen, shown
from study_rows import FP8_TRAINED, StudyRows
from study_table import ROWS, study_table
from texts import single_token_words, write_texts
from trained_fp8 import trained_fp8

ROOT = Path(__file__).resolve().parents[1]
BENCH = ROOT / "bench"


def study(**parts: dict[str, Any]) -> Any:
    return {"parts": {"study": parts}, "runs": [{}, {}]}


def part(rate: float, *, run: int = 0) -> dict[str, Any]:
    chosen = {
        "model.gradient_checkpointing": "selective",
        "data.grad_cache_chunk_tokens": 24_576,
    }
    peaks = {"peak_gib": 60.04, "peak_reserved_gib": 66.0}
    return {"run": run, "tokens_per_s": rate, "warm_up_s": 70.4, "chosen": chosen, **peaks}


def line(content: Any, what: str) -> str:
    return next(line for line in study_table(content).splitlines() if line.startswith(f"| {what}"))


def test_a_window_is_a_complete_optimizer_step(tmp_path: Path) -> None:
    file = tmp_path / "clock.json"
    clock = LightningClock(path=str(file), num_warm_up=1, num_steps=2, num_steps_per_window=1)
    trainer: Any = SimpleNamespace(global_step=0)
    clock.on_train_start(trainer, None)  # type: ignore[arg-type]

    def end_batch(number: int) -> None:
        trainer.global_step = number // 4  # four contrastive batches an optimizer step
        batch: Any = SimpleNamespace(tokens=SimpleNamespace(num_tokens=number))
        clock.on_train_batch_end(trainer, None, None, batch, number)  # type: ignore[arg-type]

    for number in range(1, 12):
        end_batch(number)
    with pytest.raises(SystemExit):
        end_batch(12)
    result = json.loads(file.read_text(encoding="utf-8"))
    assert result["num_tokens"] == sum(range(5, 13))
    assert len(result["tokens_per_s_of_windows"]) == 2


def test_texts_have_the_lengths_of_ms_marco_in_tokens(tmp_path: Path) -> None:
    words = ["".join(letters) for letters in product("abcde", "fghij", "klmno")]
    tokenizer = ByteLevelBPETokenizer()
    texts = [f"{word} {other}" for word in words for other in words]
    tokenizer.train_from_iterator(texts, vocab_size=1000, show_progress=False)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer._tokenizer).save_pretrained(tmp_path)
    found = single_token_words(tmp_path)
    assert set(words) <= set(found)
    write_texts(tmp_path, num_examples=64, num_documents=1, words=found)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    lines = (tmp_path / "train.jsonl").read_text(encoding="utf-8").splitlines()
    examples = [json.loads(line) for line in lines]
    passages = [
        passage["text"]
        for each in examples
        for passage in each["positive_passages"] + each["negative_passages"]
    ]
    lengths = [len(row) for row in loaded(passages)["input_ids"]]
    assert lengths == [len(text.split()) for text in passages]
    assert np.mean(lengths) == pytest.approx(78, abs=3)  # three standard errors
    assert max(lengths) <= 154
    queries = [len(row) for row in loaded([each["query"] for each in examples])["input_ids"]]
    assert np.mean(queries) == pytest.approx(11, abs=1.5)


@pytest.mark.parametrize(
    ("way", "has_prefix", "is_pooled"),
    [("plain", False, False), ("pooled", False, True), ("shared", True, True)],
)
def test_a_way_of_encoding_leaves_out_what_it_says(
    way: str, has_prefix: bool, is_pooled: bool
) -> None:
    prompt = Prompt(document='Represent the passage in one word: "{text}". The word is: "')
    tokenizer = TextTokenizer(tokenizer=chat_tokenizer(), prompt=prompt)
    model = BiEncoder(backbone=tiny_qwen(vocab_size=512), pooling=LastToken()).eval()
    encoder = Encoder(model=model, tokenizer=tokenizer, max_tokens_per_batch=10_000)
    num_rows = []
    for layer in (model.backbone.layers[0], model.backbone.layers[-1]):
        layer.mlp.register_forward_hook(lambda *call: num_rows.append(call[1][0].shape[1]))
    texts = [Document(document_id=text, text=text) for text in ("fox", "a brown fox")]
    with encoding_in(way, model):
        encoder.encode(texts, "document")
    num_tokens = sum(map(len, tokenizer(texts, "document")))
    num_shared = len(tokenizer.shared_prefixes["document"]) * len(texts) if has_prefix else 0
    assert num_rows[-2:] == [num_tokens - num_shared, 2 if is_pooled else num_tokens]


def test_every_row_of_the_page_is_measured() -> None:
    parts = StudyRows(scale=FULL, is_tiny=False, has_gpu=True).parts()
    compared = {address[0] for row in COMPARISONS for address in (row.ours, row.reference)}
    shown = {row.name for row in ROWS} | {FP8_TRAINED} | compared
    assert {part.name for part in parts} == shown
    assert all((BENCH / part.script).exists() for part in parts)
    uncompiled = [part.name for part in parts if "model.compile=false" in part.arguments]
    assert uncompiled == ["recipe_not_compiled"]


def test_targets_are_judged_and_shortfalls_named() -> None:
    peer = {"run": 1, "tokens_per_s": 4_000.0, "warm_up_s": 20.0, "sentence_transformers": "6.2.0"}
    content = study(recipe=part(16_500), recipe_fp8=part(20_000), sentence_transformers_cached=peer)
    assert line(content, "`sft_msmarco` as configured") == (
        "| `sft_msmarco` as configured, bf16 | **16,500** | ≥ 16,500 | 4.12 † | 60.0 / 66.0 | 70 | "
        "checkpointing selective, chunks of 24576 |"
    )
    assert "| 20,000 ✗ |" in line(content, "the same, fp8")
    assert "| not measured | ≥ 14,500 |" in line(content, "the same in at most 40 GiB")
    assert "32 x 16, checkpointing; version 6.2.0" in study_table(content)
    assert "fp8: 91% of what is wanted; no profile yet" in study_table(content)
    content["profiles"] = {"`sft_msmarco`, fp8: a step": ""}
    assert 'fp8: 91% of what is wanted; see "`sft_msmarco`, fp8: a step"' in study_table(content)


def test_encoding_is_compared_with_itself_and_with_others() -> None:
    rates = {"plain": 50_000.0, "pooled": 51_500.0, "shared": 62_500.0}
    encoding = {"run": 0, "promptreps_instruct": {"tokens_per_s": rates}}
    peer = {"run": 1, "tokens_per_s": 40_000.0}
    failed = {"not_run": "out of memory"}
    content = study(encoding=encoding, encoding_sentence_transformers=peer, encoding_fp8=failed)
    lines = encoding_table(content).splitlines()
    base, instruct, _, bf16, fp8, _ = lines[-6:]
    assert base.endswith("passages | not measured | without both |  | ≥ 1.18 |")
    assert instruct.endswith("| 62,500 | without both: 50,000 | **1.250** | ≥ 1.25 |")
    assert bf16.endswith("sentence-transformers, bf16: 40,000 | 1.562 † ✗ | ≥ 1.6 |")
    assert "| not run: out of memory | sentence-transformers, bf16 |" in fp8


@pytest.mark.parametrize(
    ("rate", "run", "text"),
    [(9_300.0, 0, "**0.930** of"), (9_290.0, 0, "0.929 ✗"), (9_400.0, 1, "**0.940 †**")],
)
def test_dropout_is_judged_beside_none(rate: float, run: int, text: str) -> None:
    content = study(recipe=part(rate), recipe_dropout_0=part(10_000.0, run=run))
    assert f"Dropout 0.1 against 0: {text}" in study_table(content)


def test_a_row_that_failed_keeps_its_reason_and_what_auto_chose() -> None:
    failed = part(1) | {"not_run": "out of memory"}
    shown = line(study(recipe_24_gib=failed), "the same in at most 24 GiB")
    assert "not run: out of memory" in shown
    assert shown.endswith("| checkpointing selective, chunks of 24576 |")


def test_fp8_on_trained_weights_is_read_from_its_row() -> None:
    row = {
        "model": "MODEL", "device": "GPU", "date": "2026-12-01", "commit": "abc",
        "results": {"scifact/ndcg_at_10": 0.6459, "mean/ndcg_at_10": 0.6459},
        "beside": {"MODEL-bf16/scifact/ndcg_at_10": 0.6476},
        "agreement": [{"name": "scifact", "num_texts": 9, "mean": 0.9971, "smallest": 0.9953}],
    }  # fmt: skip
    assert trained_fp8(study(fp8_trained=row)).endswith(
        "| MODEL | scifact | 0.6459 / 0.6476 | -0.0017 | 0.997 / 0.995 | "
        "GPU, 2026-12-01, commit abc |\n"
    )
    assert trained_fp8(study()) == ""


def test_nothing_begins_that_cannot_end_in_time() -> None:
    long = Part(name="recipe", script="train_study.py", arguments=(), estimate_s=150)
    assert out_of_time(long, 150) is None
    assert "about 150 s, and 149 s are left" in (out_of_time(long, 149) or "")
    assert "budget of time was used" in (out_of_time(long, -1) or "")


def test_a_later_call_takes_away_no_figure_and_no_reason() -> None:
    figure, reason, late = part(1), {"not_run": "out of memory"}, {"not_run": "not begun: no time"}
    assert replaces(figure, figure)
    assert replaces(figure, reason)
    assert replaces(reason, late)
    assert not replaces(reason, figure)
    assert not replaces(late, reason)
    assert replaces(late, None)


def test_a_limit_is_a_share_of_the_card() -> None:
    assert share_of(40, 160 * 2**30) == 0.25
    for limit in (0, 161):
        with pytest.raises(ValueError, match="at most 160.0"):
            share_of(limit, 160 * 2**30)


def test_commands_are_shown_without_folders_of_the_machine(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "eval.py"), f"model.path={tmp_path}/m", "data.path=/x/y"]
    assert shown(command, tmp_path) == "python eval.py model.path=WORK/m data.path=y"
    arguments = ["--only", "recipe", "--work", "/x/w", "--tokenizer", "/x/qwen", "--results=/r"]
    assert typed("study.py", arguments) == "python bench/study.py --only recipe --tokenizer qwen"


def test_what_auto_chose_is_what_the_run_stored(tmp_path: Path) -> None:
    assert chosen(tmp_path) == {}
    (tmp_path / "config.yaml").write_text("model: {gradient_checkpointing: selective}\n")
    assert chosen(tmp_path)["model.gradient_checkpointing"] == "selective"


def test_the_readme_has_the_figures_of_the_json() -> None:
    content = json.loads((ROOT / "docs" / "performance.json").read_text(encoding="utf-8"))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme == with_table(readme, content), "run: python bench/page.py"
