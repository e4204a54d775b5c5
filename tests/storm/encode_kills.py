"""Kill workers of a local Ray at random while they encode, and compare with one process.

    python tests/storm/encode_kills.py --kills 200 --seed 1            (= make storm-encode)

Each round encodes one corpus with two workers, which SIGKILL ends at random moments: while they
load the model, tokenize, encode or write. A round fails if its vectors are not those of one process
to the bit, if a finished batch was encoded again, or if a process is left. The last line is the
record as JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

NUM_TEXTS = 12_000
BLOCK_SIZE = 1_500
NUM_WORKERS = 2
ENDS_S = 15

MOST_AFTER_S = 3.0
"""Seconds that a worker which encodes lives on, at most, before it is killed."""

SHARE_AT_ANY_TIME = 0.3
"""Share of the kills that do not wait for a worker that encodes: most find one that starts."""


@dataclass
class Record:
    """What has happened so far.

    Attributes:
        kills: what the killed process was doing -> number of kills.
        num_batches: finished batches of all rounds, each encoded once if nothing fails.
        num_texts: texts of these batches.
        num_blocks: blocks of all rounds.
        num_starts: processes of workers.
    """

    kills: dict[str, int] = field(default_factory=dict)
    rounds: int = 0
    num_texts: int = 0
    num_batches: int = 0
    num_blocks: int = 0
    num_starts: int = 0
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)

    @property
    def num_kills(self) -> int:
        return sum(self.kills.values())


def storm(
    folder: Path, *, num_kills: int, seed: int, num_texts: int = NUM_TEXTS,
    block_size: int = BLOCK_SIZE, limit_s: float = 3600, most_in_a_round: int = 25,
) -> Record:  # fmt: skip
    """Rounds until so many workers were killed, or the time is over."""
    from hydra import initialize_config_dir

    from helpers.encoding import encode, write_corpus
    from quarry.config.schema import register_schemas

    record, begin, rng = Record(), time.monotonic(), random.Random(seed)
    register_schemas()
    with initialize_config_dir(config_dir=str(ROOT / "conf"), version_base="1.3"):
        corpus = write_corpus(folder / "corpus.jsonl", num_texts, seed=seed)
        call = (f"task.corpus={corpus}", f"task.block_size={block_size}")
        encode(folder, *call, f"task.output={folder / 'one'}")
        expected = _contents(folder / "one")
        while record.num_kills < num_kills and time.monotonic() - begin < limit_s:
            wanted = min(num_kills - record.num_kills, most_in_a_round)
            _round(folder, call, expected, record, wanted=wanted, rng=rng)
            record.seconds = time.monotonic() - begin
            print(json.dumps(asdict(record)), flush=True)
    return record


def _round(
    folder: Path, call: tuple[str, ...], expected: dict[str, bytes], record: Record, *,
    wanted: int, rng: random.Random,
) -> None:  # fmt: skip
    """Encodes once, with kills, into a store of its own."""
    from helpers.encoding import encode
    from quarry.encoding import ray_engine
    from quarry.retrieval.store.journal import read_journals

    store, output = folder / "store", folder / "many"
    for each in (store, output, folder / ".many.partial"):
        shutil.rmtree(each, ignore_errors=True)
    ends = threading.Event()
    killer = threading.Thread(target=_kill, args=(ends, record, wanted, rng))
    killer.start()
    try:
        encode(
            folder, *call, f"task.output={output}", f"paths.store_dir={store}",
            "task.engine=ray", f"task.num_workers={NUM_WORKERS}",
        )  # fmt: skip
    except Exception as error:  # noqa: BLE001 (the record has it)
        record.failures.append(f"round {record.rounds}: {error!r}")
    finally:
        ends.set()
        killer.join()
    record.rounds += 1
    if not output.exists() or _contents(output) != expected:
        record.failures.append(f"round {record.rounds}: the vectors differ")
        return
    segments = {path.parent for path in store.glob("*/*/manifest.json")}
    for segment in segments:
        batches = read_journals(segment)
        starts = [batch.start for batch in batches]
        record.num_batches += len(batches)
        record.num_texts += sum(len(batch.rows) for batch in batches)
        if len(starts) != len(set(starts)):
            record.failures.append(f"round {record.rounds}: a finished batch was encoded again")
    record.num_blocks += len(segments)
    assert wanted <= ray_engine.MAX_DEATHS
    if left := _wait_for_none():
        record.failures.append(f"round {record.rounds}: processes are left: {left}")


def _kill(ends: threading.Event, record: Record, wanted: int, rng: random.Random) -> None:
    number = 0
    seen: set[int] = set()
    while not ends.is_set():
        workers = _workers()
        seen |= {worker.pid for worker, _ in workers}
        if number < wanted and rng.random() > SHARE_AT_ANY_TIME:
            workers = [(worker, doing) for worker, doing in workers if doing == "encode"]
        if number == wanted or not workers:
            ends.wait(0.3)
            continue
        worker, doing = rng.choice(workers)
        if doing == "encode":
            ends.wait(rng.uniform(0, MOST_AFTER_S))
        with contextlib.suppress(psutil.NoSuchProcess):
            worker.send_signal(signal.SIGKILL)
            number += 1
            record.kills[doing] = record.kills.get(doing, 0) + 1
    record.num_starts += len(seen)


def _workers() -> list[tuple[psutil.Process, str]]:
    """The workers of this process, and what each is doing: as Ray says in their names."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            name = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if name.startswith("ray::BlockWorker"):
            doing = name.partition(".")[2].strip() or "between two tasks"
            found.append((process, doing))
    return found


def _wait_for_none() -> list[str]:
    """What is left of Ray some seconds after its end."""
    end = time.monotonic() + ENDS_S
    while True:
        left = []
        for process in psutil.Process().children(recursive=True):
            try:
                line = " ".join(process.cmdline())
                if process.status() != psutil.STATUS_ZOMBIE and "ray" in line:
                    left.append(line[:100])
            except psutil.Error:
                continue
        if not left or time.monotonic() > end:
            return left
        time.sleep(0.2)


def _contents(folder: Path) -> dict[str, Any]:
    return {
        path.name: path.read_bytes()
        for path in sorted(folder.iterdir())
        if path.name != "manifest.json"
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=60)
    options = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
    os.environ["PYTHONPATH"] = path  # the workers' as well
    import torch

    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="quarry-storm-encode-"))
    try:
        found = storm(
            folder, num_kills=options.kills, seed=options.seed, limit_s=60 * options.minutes
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(asdict(found) | {"num_kills": found.num_kills}))
    sys.exit(bool(found.failures) or found.num_kills < options.kills)


if __name__ == "__main__":
    main()
