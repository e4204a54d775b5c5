"""A plan of an evaluation: texts, tokens, hours, store and memory, and what is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from omegaconf import DictConfig

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "config"))
from configurations import composed, opened

from helpers.beir_folders import write_beir_folder
from helpers.models import tiny_folder
from helpers.replicas import replica
from quarry.assembly.evaluation_parts import build_evaluator
from quarry.assembly.model_parts import build_model_parts
from quarry.errors import UserError
from quarry.models.building import build_bi_encoder
from quarry.planning import rate
from quarry.planning.plan_task import plan
from quarry.types import Document, TokenBatch

BEIR = ("model=qwen-coder", "benchmark=beir", "benchmark.sets=[fever,climate-fever,scifact]")
FEVER, CLIMATE, SCIFACT = (6_666, 5_416_568), (1_535, 5_416_593), (300, 5_183)


@pytest.fixture(scope="module", autouse=True)
def _conf() -> Iterator[None]:
    with opened():
        yield


def shown(*paragraphs: str, result_line: str) -> None:
    print(*paragraphs, result_line)


@pytest.fixture(autouse=True)
def _away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No hub, nothing in its cache; no result lines at the end of the tests."""
    monkeypatch.setattr("quarry.planning.plan_task.show", shown)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def planned(config: DictConfig, file: Path | None = None, **more: Any) -> dict[str, float]:
    settings: dict[str, Any] = {
        "card": "h200", "gpu_memory_gib": None, "disk_gib": None, "num_examples": None,
        "tokens_per_query": None, "tokens_per_s": None, "num_jobs_at_once": 1,
        "json": None if file is None else str(file),
    }  # fmt: skip
    return plan(config, **(settings | more))


def evaluation(*overrides: str) -> DictConfig:
    return composed("eval", "task=plan", *overrides)


def test_pairs_of_a_reranker_are_counted_but_not_its_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reranked = ("retriever=reranked", "retriever.reranker.path=elsewhere", "retriever.depth=5500")
    sets = ("model=qwen-coder", "benchmark=beir", "benchmark.sets=[fever,scifact]", *reranked)
    found = planned(evaluation(*sets), tmp_path / "plan.json")
    num_pairs = FEVER[0] * 5_500 + SCIFACT[0] * SCIFACT[1]  # scifact has fewer documents
    assert found["plan/num_reranked_pairs"] == num_pairs
    made = json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))
    assert made["num_reranked_pairs"] == num_pairs
    assert f"{num_pairs:,} pairs" in capsys.readouterr().out
    bm25 = (*sets, "retriever@retriever.first_stage=bm25")
    assert planned(evaluation(*bm25))["plan/num_reranked_pairs"] == num_pairs
    assert "nor that of the reranker" in capsys.readouterr().out  # which may need a GPU
    assert "plan/num_reranked_pairs" not in planned(evaluation(*BEIR))


def test_a_suite_that_is_not_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = evaluation(*BEIR, "trainer.devices=8", "strategy=ddp")
    found = planned(config, tmp_path / "plan.json")
    made = json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))
    assert made["refusal"] is None
    texts = sum(FEVER) + CLIMATE[0] + sum(SCIFACT)  # the pages of fever are in the store
    assert found["plan/num_texts"] == texts
    assert found["plan/store_gib"] == pytest.approx(texts * 3584 * 4 / 2**30)
    measured = json.loads(rate.MEASURED.read_text(encoding="utf-8"))["parts"]["encode_7b"]["ours"]
    hours = found["plan/num_tokens"] / (8 * measured["tokens_per_s"]) / 3600
    assert found["plan/hours"] == pytest.approx(hours)
    assert made["device_hours"] == pytest.approx(8 * hours)
    assert [one["num_texts"] for one in made["sets"]] == [sum(FEVER), CLIMATE[0], sum(SCIFACT)]
    # mteb's mean length at four characters a token, "Query:" and the end token; 156 are the limit
    scifact = 300 * (90.3 / 4 + 6 / 4 + 1) + 5_183 * 156
    assert made["sets"][2]["num_tokens"] == pytest.approx(scifact)
    assert made["weights_bytes_per_process"] == 2 * 7_070_619_136
    assert made["host"]["loading"] == 8 * 2 * 7_070_619_136
    assert made["host"]["corpus"] == 0, "the store has the embeddings"
    assert made["tokens_per_process"] == pytest.approx(found["plan/num_tokens"] / 8)
    text = capsys.readouterr().out
    assert "published counts and mean lengths (mteb 2.26.24)" in text
    assert "if 8 devices are 8 times as fast as one" in text
    million = f"{found['plan/num_tokens'] / 8 / 1e6:,.4g} million"
    assert f"1/8 of them  tokenizes and encodes {million} tokens" in text


def test_a_store_that_the_disk_has_no_room_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError) as caught:
        planned(evaluation(*BEIR), disk_gib=60)
    reason, heading, *commands = str(caught.value).splitlines()
    assert "embedding store would take 72.5 GiB, and 60.0 GiB are free" in reason
    assert heading == "What would run:"
    assert commands[0].strip().startswith("evaluation.store_dtype=float16   # half the size")
    assert any(line.strip().startswith("paths.store_dir=DIR") for line in commands)
    assert "does not fit" in capsys.readouterr().out


def test_weights_that_do_not_fit() -> None:
    with pytest.raises(UserError, match=r"The weights take 13\.2 GiB on each device") as caught:
        planned(evaluation(*BEIR), card=None, gpu_memory_gib=8)
    first, second = str(caught.value).splitlines()[2:4]
    assert first.strip().startswith("strategy=zero3 trainer.devices=2   # weights in shards")
    assert second.strip().startswith("model.size=3B   # the largest of the family that fits")
    in_shards = evaluation(*BEIR, "strategy=zero3", "trainer.devices=2")
    assert planned(in_shards, card=None, gpu_memory_gib=8)["plan/weights_gib"] < 8


def test_without_a_card_there_are_no_hours(capsys: pytest.CaptureFixture[str]) -> None:
    found = planned(evaluation(*BEIR), card=None, gpu_memory_gib=80)
    assert "plan/hours" not in found
    text = capsys.readouterr().out
    assert "hours: unknown for this card: state task.card=NAME or task.tokens_per_s=N" in text
    assert planned(evaluation(*BEIR), card=None, gpu_memory_gib=80, tokens_per_s=10.0)["plan/hours"]


def test_another_dtype_beside_it_encodes_twice(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    found = planned(evaluation(*BEIR, "evaluation.compare_dtype=fp16"), file)
    made = json.loads(file.read_text(encoding="utf-8"))
    once = made["num_tokens"] / made["rate"]["tokens_per_s"] / 3600
    assert found["plan/hours"] == pytest.approx(2 * once)
    assert made["store_bytes"] == 2 * made["num_texts"] * 3584 * 4
    assert made["tokens_per_process"] == 2 * made["num_tokens"], "one process tokenizes them twice"


def test_what_is_kept_in_memory_counts_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if torch.cuda.is_available():
        pytest.skip("this is for a CPU")
    config = evaluation(
        "model=local", f"model.path={tiny_folder(tmp_path / 'model')}", "evaluation.store=false",
        "benchmark=msmarco_dl", "evaluation.corpus_on_disk=false",
    )  # fmt: skip
    here = psutil.virtual_memory()._replace(available=2**30)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: here)
    file = tmp_path / "plan.json"
    with pytest.raises(UserError, match=r"host memory.*, and 1\.0 GiB are available"):
        planned(config, file, card=None)
    made = json.loads(file.read_text(encoding="utf-8"))
    assert made["host"]["corpus"] == 8_841_823 * 32 * 4
    assert made["store_bytes"] == 0
    assert made["hours"] is None


def test_a_folder_is_counted_and_tokenized(tmp_path: Path) -> None:
    write_beir_folder(tmp_path / "own")
    config = evaluation(
        "model=local", f"model.path={tiny_folder(tmp_path / 'model')}", "benchmark=folder",
        f"benchmark.path={tmp_path / 'own'}", f"paths.cache_dir={tmp_path / 'cache'}",
    )  # fmt: skip
    file = tmp_path / "plan.json"
    found = planned(config, file)
    made = json.loads(file.read_text(encoding="utf-8"))
    assert made["sets"][0]["source"] == "counted; up to 256 texts of each role tokenized"
    assert found["plan/num_texts"] == 3 + 2
    assert found["plan/num_tokens"] > 5


@pytest.mark.parametrize(("pooling", "is_shared"), [("last_token", True), ("mean", False)])
def test_tokens_that_are_computed_are_those_of_the_encoder(
    pooling: str, is_shared: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_beir_folder(tmp_path / "own")
    config = evaluation(
        "model=local", f"model.path={replica('qwen-instruct', tmp_path).folder()}",
        f"model/pooling={pooling}", "prompt=promptreps", "benchmark=folder",
        f"benchmark.path={tmp_path / 'own'}", f"paths.cache_dir={tmp_path / 'cache'}",
    )  # fmt: skip
    planned(config, tmp_path / "plan.json")
    made = json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))
    assert (made["prefix_tokens"]["query"] > 60) == is_shared
    num_tokens = num_encoded_tokens(config)
    assert made["num_computed_tokens"] == num_tokens
    assert (made["num_tokens"] > num_tokens) == is_shared
    rows = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    note = f"computed {num_tokens:,} tokens the first {made['prefix_tokens']['query']} tokens of"
    assert any(row.startswith(note) for row in rows) == is_shared


def num_encoded_tokens(config: DictConfig) -> int:
    """Count what goes through the model, without the two texts that check a device once."""
    parts = build_model_parts(config)
    model = build_bi_encoder(parts.spec, is_trained=False)
    encoder = parts.encoder_builder(max_tokens_per_batch=200)(model)
    check = Document(document_id="0", text="")
    encoder.encode([check], "document")
    num_tokens = 0
    token_states = model.token_states

    def counted(tokens: TokenBatch, **more: Any) -> torch.Tensor:
        nonlocal num_tokens
        num_tokens += tokens.num_tokens
        return token_states(tokens, **more)

    model.token_states = counted  # type: ignore[method-assign]
    evaluator = build_evaluator(config)
    assert evaluator is not None
    data = evaluator.collection(evaluator.benchmark.sets[0])
    encoder.encode(data.queries, "query")
    encoder.encode(data.corpus, "document")
    return num_tokens


def test_a_prefix_that_cannot_be_counted_here_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planned(evaluation(*BEIR, "prompt=promptreps"), tmp_path / "plan.json")
    made = json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))
    assert made["prefix_tokens"] is None
    assert not made["is_at_least"]
    assert made["num_computed_tokens"] == made["num_tokens"]
    assert "is not taken off: the tokenizer is not here" in capsys.readouterr().out


def test_a_set_of_the_hub_is_unknown_and_never_zero(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = evaluation("model=qwen-coder", "benchmark=hub", "benchmark.repo=owner/name")
    found = planned(config, tmp_path / "plan.json")
    assert not {"plan/num_texts", "plan/hours", "plan/store_gib"} & set(found)
    made = json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))
    assert made["unknown_sets"] == ["name"]
    assert made["sets"][0]["num_texts"] is None
    assert [made[key] for key in ("num_texts", "num_tokens", "hours", "store_bytes")] == [None] * 4
    rows = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert any(row.startswith("in all not known") for row in rows)
    assert any(row.startswith("encoding not known") for row in rows)


def test_bm25_takes_no_gpu_and_no_model(capsys: pytest.CaptureFixture[str]) -> None:
    found = planned(evaluation("retriever=bm25", "benchmark=coir"))
    assert set(found) == {"plan/num_texts"}
    text = capsys.readouterr().out
    assert "bm25 embeds nothing; its time on the CPU is not counted" in text
    assert "tokens" not in text


@pytest.mark.parametrize(
    ("overrides", "more", "rule"),
    [
        (("benchmark=none",), {}, "benchmark=none"),
        ((), {"num_examples": 3}, r"task\.num_examples=3: no effect"),
        ((), {"card": "v100"}, r"task\.card=v100: there is no such card"),
        ((), {"num_jobs_at_once": 0}, r"task\.num_jobs_at_once=0 must be 1 or more"),
        (("trainer.accelerator=cpu",), {}, r"task\.card=h200 has no effect"),
    ],
)
def test_mistakes(overrides: tuple[str, ...], more: dict[str, Any], rule: str) -> None:
    with pytest.raises(UserError, match=rule):
        planned(evaluation(*BEIR[:1], *overrides), **more)
