"""Encodes in children that die, until one lives; what each of them did is printed as JSON.

    python -m helpers.killed_encoding FOLDER SEED ...

For each seed a store whose encoders die at random moments, until one may finish; a store that two
use at once after a third died in it; and one where nobody dies. The libraries are loaded once:
children are forked, before torch has worked.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any

import torch

from helpers.stores import array, documents, stored, texts, tiny_encoder
from quarry.retrieval.encoder import Encoder, PlannedBatch
from quarry.retrieval.store import journal, vector_files, writer
from quarry.retrieval.store.journal import Journal, read_journals
from quarry.types import Role

POINTS = ("before the vectors", "half the vectors", "before the record", "half the record", "after")
NUM_TEXTS = 700
"""In about 120 batches; a death comes after eight at most, and eight deaths before all are done."""

WATCH = os.WEXITED | os.WNOHANG | os.WNOWAIT
Round = dict[str, Any]


class NotedEncoder(Encoder):
    """Notes each batch in a file before it goes through the model."""

    notes: Path

    def encode_batches(
        self, batches: Iterable[PlannedBatch], role: Role, *, num_texts: int
    ) -> Generator[tuple[PlannedBatch, torch.Tensor]]:
        def noted() -> Generator[PlannedBatch]:
            for batch in batches:
                with self.notes.open("a") as file:
                    file.write(f"{batch.start} {len(batch.rows)}\n")
                yield batch

        return super().encode_batches(noted(), role, num_texts=num_texts)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def die_at(point: str, number: int) -> None:
    """Makes this process die at a point of the path that its `number`-th batch is written on."""
    seen = {"vectors": 0, "records": 0}
    write_all, add = vector_files.write_all, Journal.add

    def dying_write(file: int, data: memoryview, offset: int) -> None:
        seen["vectors"] += 1
        if seen["vectors"] == number and point == "before the vectors":
            die()
        if seen["vectors"] == number and point == "half the vectors":
            write_all(file, data[: len(data) // 2], offset)
            die()
        write_all(file, data, offset)

    def dying_add(self: Journal, batch: journal.FinishedBatch) -> None:
        seen["records"] += 1
        if seen["records"] == number and point == "before the record":
            die()
        if seen["records"] == number and point == "half the record":
            record = journal._record(batch)
            with self.path.open("ab") as file:
                file.write(record[: len(record) // 2])
            die()
        add(self, batch)
        if seen["records"] == number and point == "after":
            die()

    vector_files.write_all = dying_write
    writer.Journal.add = dying_add  # type: ignore[method-assign]


def encode(folder: Path, notes: Path, *, prepare: Callable[[], None] = lambda: None) -> None:
    """Encodes the corpus into the store; leaves a digest of the result."""
    torch.set_num_threads(1)
    prepare()
    NotedEncoder.notes = notes
    different = texts(NUM_TEXTS)
    corpus = documents(different + different[::3])
    result = stored(folder / "store", encoder=tiny_encoder(made=NotedEncoder))
    embeddings = array(result.encode(corpus, "document"))
    notes.with_suffix(".digest").write_text(hashlib.sha256(embeddings.tobytes()).hexdigest())


def forked(work: Callable[[], None]) -> int:
    """The process that does it."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException as error:  # noqa: BLE001
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return pid


def ended(pid: int) -> int:
    """0, or minus the signal that ended it."""
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, -signal.SIGKILL), code
    return code


def noted(notes: Path) -> list[tuple[int, int]]:
    if not notes.exists():
        return []
    pairs = [line.split() for line in notes.read_text().splitlines()]
    return [(int(start), int(size)) for start, size in pairs]


def finished(folder: Path) -> list[int]:
    """Starts of the finished batches."""
    segments = {path.parent for path in (folder / "store").glob(f"*/*/{journal.PATTERN}")}
    return sorted(batch.start for segment in segments for batch in read_journals(segment))


def killed_until_done(folder: Path, seed: int) -> Round:
    rng = random.Random(seed)
    rounds: list[Round] = []
    num_deaths = 8
    while True:
        notes = folder / f"notes_{len(rounds)}"
        before = finished(folder)
        point, number = rng.choice([*POINTS, "any time"]), rng.randrange(1, 9)
        is_last = len(rounds) == num_deaths
        plain = is_last or point == "any time"
        pid = forked(
            lambda n=notes, p=point, k=number, plain=plain: encode(
                folder, n, prepare=lambda: None if plain else die_at(p, k)
            )
        )
        if plain and not is_last:
            while len(noted(notes)) < number and os.waitid(os.P_PID, pid, WATCH) is None:
                time.sleep(0.001)
            time.sleep(rng.uniform(0, 0.002))
            os.kill(pid, signal.SIGKILL)
        code = ended(pid)
        rounds.append({"point": point, "code": code, "before": before, "encoded": noted(notes)})
        if is_last:
            digest = notes.with_suffix(".digest").read_text()
            return {"rounds": rounds, "digest": digest, "finished": finished(folder)}


def together(folder: Path) -> Round:
    """The first dies with the lock in its hand; two more come while it lives."""
    first = forked(
        lambda: encode(folder, folder / "first", prepare=lambda: die_at("before the record", 5))
    )
    while not noted(folder / "first"):
        time.sleep(0.005)
    others = {name: forked(lambda n=name: encode(folder, folder / n)) for name in ("b", "c")}
    codes = {"first": ended(first)} | {name: ended(pid) for name, pid in others.items()}
    return {
        "codes": codes,
        "encoded": {name: noted(folder / name) for name in ("first", "b", "c")},
        "digests": [(folder / f"{name}.digest").read_text() for name in ("b", "c")],
        "finished": finished(folder),
    }


def unbroken(folder: Path) -> str:
    ended(forked(lambda: encode(folder, folder / "notes")))
    return (folder / "notes.digest").read_text()


def main() -> None:
    home, seeds = Path(sys.argv[1]), sys.argv[2:]
    folders = {name: home / name for name in ("unbroken", "together", *seeds)}
    for folder in folders.values():
        folder.mkdir()
    result = {
        "unbroken": unbroken(folders["unbroken"]),
        "together": together(folders["together"]),
        "broken": [killed_until_done(folders[seed], int(seed)) for seed in seeds],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
