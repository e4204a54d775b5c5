"""Commands on small and read-only disks end in a message, and what was there stays."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from helpers.beir_folders import write_beir_folder
from helpers.commands import Result
from helpers.disks import fill, read_only, small_disk

Command = Callable[..., Result]
BM25 = ("retriever=bm25", "benchmark=folder", "logger=none")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_cache_that_becomes_full_keeps_what_it_had(
    command: Command, environment: dict[str, str], tmp_path: Path
) -> None:
    data = write_beir_folder(tmp_path / "mine")
    large = write_beir_folder(tmp_path / "large")
    with (large / "corpus.jsonl").open("a") as file:
        for number in range(3000):
            file.write(json.dumps({"_id": f"x{number}", "title": "", "text": "word " * 99}) + "\n")
    with small_disk(tmp_path / "cache", num_bytes=2**20) as cache:
        own = {**environment, "QUARRY_CACHE": str(cache), "QUARRY_RUNS": str(tmp_path / "runs")}
        first = command("eval.py", *BM25, f"benchmark.path={data}", environment=own)
        assert first.code == 0, first.err
        before = contents(cache)
        assert len(before) == 5  # table, its ids, ranking, what it is of, lock
        second = command("eval.py", *BM25, f"benchmark.path={large}", environment=own)
        assert second.code == 2, second.err
        assert "Traceback" not in second.err
        assert f"The cache, {cache}" in second.err
        assert "became full" in second.err
        assert "paths.cache_dir=DIR" in second.err
        assert contents(cache) == before


def test_read_only_caches_are_refused_cold_and_used_warm(
    command: Command, environment: dict[str, str], tmp_path: Path
) -> None:
    data, cache = write_beir_folder(tmp_path / "mine"), tmp_path / "cache"
    cache.mkdir()
    own = {**environment, "QUARRY_CACHE": str(cache), "QUARRY_RUNS": str(tmp_path / "runs")}
    run = (*BM25, f"benchmark.path={data}")
    with read_only(cache):
        cold = command("eval.py", *run, environment=own)
    assert cold.code == 2
    assert "cannot be written to and is empty" in cold.err
    assert command("eval.py", *run, environment=own).code == 0
    for path in (cache / "rankings").iterdir():
        path.unlink()
    with read_only(cache):
        warm = command("eval.py", *run, environment=own)
    assert warm.code == 0, warm.err
    assert "the ranking is used, and not cached" in warm.err


def test_full_and_read_only_run_directories_are_refused_at_once(
    command: Command, environment: dict[str, str], tmp_path: Path
) -> None:
    run = (*BM25, f"benchmark.path={write_beir_folder(tmp_path / 'mine')}")
    with small_disk(tmp_path / "small", num_bytes=2**21) as disk:
        fill(disk, leaving=2**18)
        full = command("eval.py", *run, f"hydra.run.dir={disk / 'x'}", environment=environment)
        assert full.code == 2
        assert "The run directory" in full.err
        assert "Nothing was written" in full.err
        assert [path.name for path in disk.iterdir()] == ["filling"]
        with read_only(disk):
            refused = command("eval.py", *run, f"hydra.run.dir={disk / 'y'}")
        assert refused.code == 2
        assert "Read-only file system" in refused.err
        assert "hydra.run.dir=DIR" in refused.err
        assert "Traceback" not in refused.err
