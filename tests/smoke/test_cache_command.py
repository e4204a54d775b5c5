"""`python eval.py task=cache`: what runs have left in the cache, and what a limit leaves of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from helpers.beir_folders import write_beir_folder
from helpers.commands import Result


def test_a_cache_is_listed_limited_and_no_run_directory_is_made(
    command: Callable[..., Result], environment: dict[str, str], tmp_path: Path
) -> None:
    data = write_beir_folder(tmp_path / "mine")
    own = {**environment, "QUARRY_CACHE": str(tmp_path / "c"), "QUARRY_RUNS": str(tmp_path / "r")}
    run = ("retriever=bm25", "benchmark=folder", f"benchmark.path={data}", "logger=none")
    result = command("eval.py", *run, "hydra.run.dir=" + str(tmp_path / "one"), environment=own)
    assert result.code == 0, result.err
    listed = command("eval.py", "task=cache", environment=own)
    assert listed.code == 0, listed.err
    lines = [line.split() for line in listed.out.splitlines() if line]
    rows = {line[1]: line for line in lines if line[0].startswith(("corpus-", "rankings/"))}
    assert rows["corpus"][-2:] == ["unchanged", str(data / "corpus.jsonl")]
    assert rows["ranking"][-3:] == ["unchanged", "mine,", "test"]
    assert listed.last_line.startswith("cache entries=2 ")
    assert not (tmp_path / "r").exists()
    limited = command(
        "eval.py", *run, "paths.max_cache_gib=0", f"hydra.run.dir={tmp_path / 'two'}",
        environment=own,
    )  # fmt: skip
    assert limited.code == 0, limited.err
    empty = command("eval.py", "task=cache", environment=own)
    assert empty.last_line == "cache entries=0 bytes=0 removed=0 removed_bytes=0"
