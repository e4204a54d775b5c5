"""`python eval.py task=encode`: what a user sees of it, also when a disk becomes full half-way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from helpers.commands import Result
from helpers.disks import small_disk
from helpers.encoding import SETTINGS, write_corpus
from helpers.models import tiny_folder
from quarry.encoding.vector_folder import VectorFolder

Command = Callable[..., Result]


def test_a_disk_that_becomes_full_half_way_keeps_the_finished_blocks(
    command: Command, tmp_path: Path
) -> None:
    model, corpus = tiny_folder(tmp_path / "tiny"), write_corpus(tmp_path / "c.jsonl", 3500)
    call = (
        "eval.py", "task=encode", f"model.path={model}", f"task.corpus={corpus}", *SETTINGS,
        f"task.output={tmp_path / 'v'}", "task.block_size=500",
    )  # fmt: skip
    with small_disk(tmp_path / "store", num_bytes=2**19) as store:
        full = command(*call, f"paths.store_dir={store}")
        assert full.code == 2, full.err
        assert "Traceback" not in full.err
        assert "block 8 of 8" in full.err.rsplit("Error:", 1)[1] or "paths.store_dir" in full.err
        state = command(
            "eval.py", "task=encode", f"task.output={tmp_path / 'v'}", "task.status=true"
        )
        assert state.last_line == "done=0 open=1 damaged=0 missing=0"
        (finished,) = [line for line in state.out.splitlines() if "of 8 blocks are done" in line]
        assert int(finished.split()[2]) >= 1
    rest = command(*call)
    assert rest.code == 0, rest.err
    assert rest.last_line == f"texts=4000 folder={tmp_path / 'v'}"
    assert f"finished before: {finished.split()[2]}\n" in rest.err
    folder = VectorFolder.open(tmp_path / "v")
    folder.verify()
    assert folder.ids[3999] == "d3999"
    assert "done already" in command(*call).err
