"""Time a server against the encoder's own time, on one core each for server and client.

    python bench/serve.py [--num-requests 128] [--num-rounds 5] [KEY=VALUE ...]

Requests have 32 passages of 80 tokens, and responses are base64. A round is one pass of the encoder
alone over all passages, on the server's core, then the same passages over 64 connections. Where
other processes run, the ratio of CPU times says more than that of wall times: two threads of a
server get more of a shared core than one of the encoder. The vectors are compared. Single texts
follow: alone, and beside the 64 connections.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import multiprocessing
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from composed import composed_parts
from http_load import Answer, embeddings_request, send_all, send_while
from processes import environment
from result_line import hand_over

ROOT = Path(__file__).resolve().parents[1]
NUM_PASSAGES = 32
NUM_TOKENS = 80
NUM_CONNECTIONS = 64
NUM_SINGLE = 300
NUM_BESIDE = 100
MODEL = ("model=qwen-tiny", "prompt.max_document_length=128", "prompt.max_query_length=128")
START_S = 180


def passages(number: int) -> list[str]:
    """Return texts of `NUM_TOKENS` tokens each, the end token included."""
    _, parts = composed_parts(MODEL)
    tokenizer = parts.tokenizer.tokenizer
    words = sorted(word for word in tokenizer.get_vocab() if word.isascii() and word.isalpha())
    single = [
        word for word, ids in zip(words, _ids(tokenizer, words), strict=True) if len(ids) == 1
    ]
    drawn = np.random.default_rng(0).integers(0, len(single), (number, NUM_TOKENS - 1))
    return [" ".join(single[place] for place in row) for row in drawn.tolist()]


def _ids(tokenizer: Any, words: Sequence[str]) -> list[list[int]]:
    found: list[list[int]] = tokenizer(words, add_special_tokens=False)["input_ids"]
    return found


def encode_alone(pipe: Connection, texts: Sequence[str], core: int) -> None:
    """Encode all texts each time a message comes, and send the seconds and the first vectors."""
    os.sched_setaffinity(0, {core})
    import torch

    from quarry.models.building import build_bi_encoder
    from quarry.types import Document

    torch.set_num_threads(1)
    config, parts = composed_parts(MODEL)
    encoder = parts.encoder_builder(max_tokens_per_batch=config.evaluation.max_tokens_per_batch)(
        build_bi_encoder(parts.spec, is_trained=False)
    )
    documents = [Document(document_id="", text=text) for text in texts]
    encoder.encode(documents[:256], "document")
    while (order := pipe.recv()) is not None:
        if order == "single":
            times: list[float] = []
            for document in documents[:NUM_SINGLE]:
                start = time.perf_counter()
                encoder.encode([document], "document")
                times.append(time.perf_counter() - start)
            pipe.send(statistics.median(times))
            continue
        start, used = time.perf_counter(), time.process_time()
        vectors = encoder.encode(documents, "document")
        seconds = time.perf_counter() - start
        pipe.send((seconds, time.process_time() - used, vectors.numpy()))


@contextmanager
def reference(texts: Sequence[str], *, core: int) -> Iterator[Connection]:
    """Yield the pipe of a process with the encoder alone."""
    context = multiprocessing.get_context("spawn")
    own, other = context.Pipe()
    process = context.Process(target=encode_alone, args=(other, texts, core))
    process.start()
    try:
        yield own
        own.send(None)
        process.join(30)
    finally:
        process.kill()
        process.join()


@contextmanager
def running_server(overrides: Sequence[str], *, core: int, log: Path) -> Iterator[tuple[int, int]]:
    """Yield port and process id of a server of this checkout; it is ended with SIGTERM."""
    command = [sys.executable, str(ROOT / "eval.py"), "task=serve", "task.port=0", *overrides]
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            command, env=environment() | {"OMP_NUM_THREADS": "1"}, stdin=subprocess.DEVNULL,
            stdout=file, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        os.sched_setaffinity(process.pid, {core})
        yield _port_of(process, log), process.pid
        process.send_signal(signal.SIGTERM)
        if code := process.wait(60):
            raise RuntimeError(f"the server has ended with {code}: {log}")
    finally:
        process.kill()
        process.wait()


def _port_of(process: subprocess.Popen[bytes], log: Path) -> int:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        if found := re.search(r"Serving http://\S+:(\d+)", log.read_text(encoding="utf-8")):
            return int(found[1])
        time.sleep(0.1)
    raise RuntimeError(f"the server has not started: {log.read_text(encoding='utf-8')[-2000:]}")


def decoded(answers: Sequence[Answer]) -> NDArray[np.float32]:
    """Return the vectors of all answers, in the order of the requests."""
    rows = [
        np.frombuffer(base64.b64decode(entry["embedding"]), dtype="<f4")
        for answer in answers
        for entry in json.loads(answer.body)["data"]
    ]
    return np.stack(rows)


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of all threads of a process so far."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def percentiles(answers: Sequence[Answer]) -> dict[str, float]:
    """Return the median and the 99th percentile of the answers' times, in milliseconds."""
    seconds = np.array([answer.seconds for answer in answers])
    return {f"p{q}_ms": round(float(np.percentile(seconds, q)) * 1e3, 2) for q in (50, 99)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--num-requests", type=int, default=128)
    parser.add_argument("--num-rounds", type=int, default=5)
    parser.add_argument("--server-core", type=int, default=0)
    parser.add_argument("--client-core", type=int, default=1)
    parser.add_argument("--log", type=Path, default=Path("build/serve.log"))
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    arguments.log.parent.mkdir(parents=True, exist_ok=True)
    texts = passages(arguments.num_requests * NUM_PASSAGES)
    groups = [texts[i : i + NUM_PASSAGES] for i in range(0, len(texts), NUM_PASSAGES)]
    requests = [embeddings_request(group) for group in groups]
    singles = [embeddings_request(texts[i : i + 1]) for i in range(NUM_SINGLE)]
    overrides = [*MODEL, *arguments.overrides]
    core = arguments.server_core
    with (
        reference(texts, core=core) as encoder,
        running_server(overrides, core=core, log=arguments.log) as (port, pid),
    ):
        os.sched_setaffinity(0, {arguments.client_core})
        asyncio.run(send_all(port, requests[:8], num_connections=8))
        rounds = []
        for _ in range(arguments.num_rounds):
            encoder.send("all")
            encoder_s, encoder_cpu_s, expected = encoder.recv()
            start, used = time.perf_counter(), cpu_seconds(pid)
            answers = asyncio.run(send_all(port, requests, num_connections=NUM_CONNECTIONS))
            server_s, server_cpu_s = time.perf_counter() - start, cpu_seconds(pid) - used
            rounds.append(
                {
                    "encoder_s": round(encoder_s, 3),
                    "server_s": round(server_s, 3),
                    "ratio": round(server_s / encoder_s, 3),
                    "cpu_ratio": round(server_cpu_s / encoder_cpu_s, 3),
                    "largest_difference": float(np.abs(decoded(answers) - expected).max()),
                }
            )
            print(rounds[-1], flush=True)
        encoder.send("single")
        single_s = encoder.recv()
        alone = asyncio.run(send_all(port, singles, num_connections=1))
        beside = asyncio.run(
            send_while(port, singles[:NUM_BESIDE], load=requests, num_connections=NUM_CONNECTIONS)
        )
    hand_over(
        {
            "ratio": statistics.median(each["ratio"] for each in rounds),
            "cpu_ratio": statistics.median(each["cpu_ratio"] for each in rounds),
            "rounds": rounds,
            "passages_per_s": round(len(texts) / min(each["server_s"] for each in rounds)),
            "single_encoder_ms": round(single_s * 1e3, 2),
            "single_alone": percentiles(alone),
            "single_beside_64_connections": percentiles(beside),
        }
    )


if __name__ == "__main__":
    main()
