"""`task=serve` as a command: it serves an index by the index's own model, and ends with 0."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from hydra.utils import instantiate

from helpers.commands import ROOT, SMALL, quiet_environment
from quarry.config.composing import composed_job
from quarry.errors import UserError

pytest.importorskip("fastapi", reason="FastAPI is not installed")

MODEL = ["model=qwen-tiny", *(each for each in SMALL if each.startswith("model."))]
TOKEN = "a-token-of-smoke-tests"
DOCUMENTS = [("a", "How to read a file"), ("b", "How to sort a list"), ("c", "How to add numbers")]


def run_here(*overrides: str) -> None:
    """Run a task of eval.py in this process."""
    with composed_job("eval", overrides) as config:
        instantiate(config.task)(config)


def test_an_index_is_served_until_sigterm(tmp_path: Path) -> None:
    environment = quiet_environment(tmp_path)
    corpus, index, log = tmp_path / "corpus.jsonl", tmp_path / "index", tmp_path / "log"
    lines = [json.dumps({"_id": name, "text": text}) for name, text in DOCUMENTS]
    corpus.write_text("\n".join(lines), encoding="utf-8")
    cache = [
        f"paths.cache_dir={environment['QUARRY_CACHE']}",
        f"paths.store_dir={tmp_path / 'store'}",
    ]
    run_here("task=index", *MODEL, f"task.corpus={corpus}", f"task.output={index}", *cache)
    command = [
        sys.executable, str(ROOT / "eval.py"), "task=serve", f"task.index={index}",
        "task.port=0", "task.token=${oc.env:SERVE_TOKEN}",
    ]  # fmt: skip
    with log.open("w") as file:
        process = subprocess.Popen(
            command, env=environment | {"SERVE_TOKEN": TOKEN}, cwd=tmp_path, stdout=file,
            stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    try:
        url = _url(process, log)
        headers = {"authorization": f"Bearer {TOKEN}"}
        with httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=30) as client:
            found = client.get("/search", params={"q": "read a file", "hybrid": "true"}).json()
            assert found["results"][0]["hits"][0]["document_id"] == "a"
            document = client.post("/v1/embeddings", json={"input": DOCUMENTS[0][1]}).json()
            assert len(document["data"][0]["embedding"]) == 32
            assert client.get("/documents/b").json()["text"] == "How to sort a list"
            assert client.get("/documents/nope").status_code == 404
        assert httpx.get(f"{url}/v1/models", trust_env=False).status_code == 401
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
    text = log.read_text(encoding="utf-8")
    assert "The server has ended." in text
    assert TOKEN not in text
    with pytest.raises(UserError, match="another model or contract"):
        run_here("task=serve", f"task.index={index}", *MODEL, "model.replica.seed=1", "task.port=0",
                 *cache)  # fmt: skip


def _url(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if found := re.search(r"Serving (http://\S+)", log.read_text(encoding="utf-8")):
            return found[1]
        time.sleep(0.1)
    raise AssertionError(log.read_text(encoding="utf-8"))
