"""`eval.py` keeps embeddings and finds them again; training keeps none. In one process."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from safetensors.torch import load_file, save_file

from helpers.commands import ROOT
from helpers.models import tiny_folder
from quarry.config.schema import register_schemas
from quarry.errors import UserError
from quarry.metrics.run_files import read_run
from quarry.tasks.evaluate import evaluate

TEXTS = ("abc", "xyz", "hello world", "abc", "queue", "letters", "", "xyz")


@pytest.fixture(scope="module", autouse=True)
def _conf() -> Iterator[None]:
    register_schemas()
    with initialize_config_dir(config_dir=str(ROOT / "conf"), version_base="1.3"):
        yield


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A model, and two collections that share all documents but one."""
    tiny_folder(tmp_path / "model")
    for name, texts in (("one", TEXTS), ("two", (*TEXTS[::-1], "another"))):
        folder = tmp_path / "sets" / name
        (folder / "qrels").mkdir(parents=True)
        corpus = [json.dumps({"_id": f"d{i}", "text": text}) for i, text in enumerate(texts)]
        (folder / "corpus.jsonl").write_text("\n".join(corpus))
        (folder / "queries.jsonl").write_text('{"_id": "q", "text": "hello"}')
        (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td2\t1\n")
    return tmp_path


def configured(data: Path, run: str, *overrides: str) -> DictConfig:
    common = (
        f"model.path={data / 'model'}", f"paths.cache_dir={data / 'cache'}", "logger=none",
        f"paths.run_dir={data / run}", "benchmark=folder", f"benchmark.path={data / 'sets'}",
        "trainer.accelerator=cpu", "evaluation.top_k=100",
    )  # fmt: skip
    return compose("eval", overrides=[*common, *overrides])


def num_encoded(caplog: pytest.LogCaptureFixture) -> list[tuple[str, int]]:
    """What was encoded since the last look: (which texts, how many)."""
    found = []
    for record in caplog.records:
        if record.name == "quarry.retrieval.stored_encoder" and "encoding" in record.msg:
            what, number, _ = record.args  # type: ignore[misc]
            found.append((str(what), int(number)))
    caplog.clear()
    return found


def test_what_was_evaluated_is_encoded_once(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    first = evaluate(configured(data, "first"))
    assert num_encoded(caplog) == [("one queries", 1), ("one corpus", 6), ("two corpus", 1)]
    second = evaluate(configured(data, "second"))
    assert num_encoded(caplog) == []
    on_disk = ("evaluation.store=false", "evaluation.corpus_on_disk=true")
    without = evaluate(configured(data, "third", *on_disk))
    assert second == first == without
    runs = [read_run(data / run / "runs" / "two.dense.trec") for run in ("second", "third")]
    # "another" went through the model by itself in one of them
    assert runs[0]["q"] == pytest.approx(runs[1]["q"], abs=1e-6)
    assert list((data / "cache" / "embeddings").glob("*/*/manifest.json"))


def test_other_weights_find_nothing(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    evaluate(configured(data, "first", "benchmark.sets=[one]"))
    weights = load_file(data / "model" / "model.safetensors")
    weights["norm.weight"][0] *= 2
    save_file(weights, data / "model" / "model.safetensors", metadata={"format": "pt"})
    caplog.set_level(logging.INFO)
    evaluate(configured(data, "second", "benchmark.sets=[one]"))
    assert num_encoded(caplog) == [("one queries", 1), ("one corpus", 6)]


def test_where_and_in_what_is_chosen_by_the_user(data: Path) -> None:
    evaluate(
        configured(
            data, "run", "evaluation.store_dtype=float16", f"paths.store_dir={data / 'elsewhere'}"
        )
    )
    files = list((data / "elsewhere").glob("*/*/vectors-*.bin"))
    # one query, and six and one different documents, of 32 numbers
    assert sorted(file.stat().st_size for file in files) == [64, 64, 6 * 64]
    assert not (data / "cache" / "embeddings").exists()


def test_an_index_larger_than_the_disk_ends_in_a_message(
    data: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import shutil
    from types import SimpleNamespace

    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(UserError, match="dense failed on every set: one, two"):
        evaluate(configured(data, "run"))
    assert "one queries (1 texts x 32 float32) need 0.1 KiB in" in caplog.text
