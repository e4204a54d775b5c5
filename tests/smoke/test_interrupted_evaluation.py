"""`eval.py` is stopped by signals in the midst of encoding; the same command continues."""

from __future__ import annotations

import json
import logging
import random
import signal
import string
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest
from hydra import compose, initialize_config_dir

from helpers.commands import ROOT
from helpers.models import tiny_folder
from quarry.config.schema import register_schemas
from quarry.metrics.run_files import read_run
from quarry.retrieval.store import journal
from quarry.tasks.evaluate import evaluate

NUM_TEXTS = 3_000
SECONDS_TO_END = 15
"""On a busy machine; by itself it takes one."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A model and a collection; encoding it takes a second or two."""
    tiny_folder(tmp_path / "model")
    folder = tmp_path / "sets" / "one"
    (folder / "qrels").mkdir(parents=True)
    rng = random.Random(0)
    texts = ["".join(rng.choices(string.ascii_letters, k=20)) for _ in range(NUM_TEXTS)]
    corpus = [json.dumps({"_id": f"d{i}", "text": text}) for i, text in enumerate(texts)]
    (folder / "corpus.jsonl").write_text("\n".join(corpus))
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "hello"}')
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td2\t1\n")
    return tmp_path


def overrides(data: Path) -> list[str]:
    return [
        f"model.path={data / 'model'}", f"paths.cache_dir={data / 'cache'}", "logger=none",
        "benchmark=folder", f"benchmark.path={data / 'sets'}", "trainer.accelerator=cpu",
        "evaluation.max_tokens_per_batch=150", "evaluation.top_k=100",
    ]  # fmt: skip


def num_finished_bytes(data: Path) -> int:
    """The size of the journals of finished batches."""
    return sum(path.stat().st_size for path in (data / "cache").rglob(journal.PATTERN))


def stopped(data: Path, number: signal.Signals, environment: Mapping[str, str]) -> tuple[int, str]:
    """Exit code and output of a command that got the signal after its first batches."""
    before = num_finished_bytes(data)
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "eval.py"), *overrides(data)],
        cwd=environment["HOME"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        deadline = time.monotonic() + 90
        while num_finished_bytes(data) <= before + 500:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline, "nothing was encoded"
            time.sleep(0.01)
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        output, _ = process.communicate(timeout=SECONDS_TO_END)
        _, alive = psutil.wait_procs(children, timeout=5)
        assert alive == []
    finally:
        process.kill()
    return process.returncode, output


def test_a_signal_ends_it_and_the_same_command_continues(
    data: Path, environment: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    sizes = [0]
    for number in (signal.SIGTERM, signal.SIGINT):
        code, output = stopped(data, number, environment)
        assert code == 128 + number, output
        store = f"{data}/cache/embeddings"
        said = f"Interrupted: {number.name}. Embeddings so far are stored in {store}"
        assert output.count(said) == 1, output
        assert output.rstrip().endswith("the same command continues from there.")
        assert "Traceback" not in output
        assert "leaked" not in output
        sizes.append(num_finished_bytes(data))
    assert sizes[0] < sizes[1] < sizes[2]

    register_schemas()
    with initialize_config_dir(config_dir=str(ROOT / "conf"), version_base="1.3"):
        common = overrides(data)
        rerun = compose("eval", overrides=[*common, f"paths.run_dir={data / 'rerun'}"])
        unbroken = compose(
            "eval",
            overrides=[
                *common,
                f"paths.run_dir={data / 'unbroken'}",
                "evaluation.store=false",
                "evaluation.max_tokens_per_batch=16384",
            ],
        )
        caplog.set_level(logging.INFO, logger="quarry.retrieval.stored_encoder")
        assert evaluate(rerun) == evaluate(unbroken)
    counts = [
        record.args
        for record in caplog.records
        if "encoding" in record.msg and record.args and "corpus" in str(record.args)
    ]
    assert len(counts) == 1
    what, num_open, num_texts = counts[0]  # type: ignore[misc]
    assert (what, num_texts) == ("one corpus", NUM_TEXTS)
    assert 0 < int(num_open) < NUM_TEXTS  # type: ignore[call-overload]
    runs = [read_run(data / run / "runs" / "one.dense.trec") for run in ("rerun", "unbroken")]
    assert runs[0]["q"] == pytest.approx(runs[1]["q"], abs=1e-6)  # other batches, other sums
