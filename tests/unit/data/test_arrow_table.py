from __future__ import annotations

import logging
import os
import pickle
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from quarry.data import arrow_table
from quarry.data.arrow_table import LINE, ROWS_PER_BATCH, ArrowTable, open_table
from quarry.errors import UserError

SCHEMA = pa.schema([(LINE, pa.int64()), ("id", pa.large_string()), ("parts", pa.list_(pa.int64()))])
NUM_ROWS = 2 * ROWS_PER_BATCH + 3


def rows(num_rows: int = NUM_ROWS) -> Iterator[tuple[int, str, list[int]]]:
    for i in range(num_rows):
        yield i + 1, f"id{i}", [i] * (i % 3)


def unread() -> Iterator[tuple[int, str, list[int]]]:
    pytest.fail("the cached table was not used")
    yield


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.jsonl"
    path.write_text("the rows of these tests do not come from this file")
    return path


def build(source: Path, content: Iterator[tuple[int, str, list[int]]], name: str = "cache"):
    return open_table(
        cache_dir=source.parent / name,
        kind="test",
        sources=[source],
        schema=SCHEMA,
        rows=content,
        id_column="id",
    )


def test_reads_rows_ranges_and_columns_over_batch_borders(source: Path) -> None:
    table = build(source, rows())
    assert len(table) == NUM_ROWS
    for i in (0, 1, ROWS_PER_BATCH - 1, ROWS_PER_BATCH, NUM_ROWS - 1):
        assert table.row(i, ("parts", "id")) == ([i] * (i % 3), f"id{i}")
        assert table.row(i - NUM_ROWS, ("id",)) == (f"id{i}",)
    for start, stop in [(0, NUM_ROWS), (1020, 1030), (5, 5), (7, 3), (2050, 9999)]:
        expected = [(f"id{i}", i + 1) for i in range(start, min(stop, NUM_ROWS))]
        assert list(table.rows(start, stop, ("id", LINE))) == expected
    np.testing.assert_array_equal(table.column(LINE), np.arange(1, NUM_ROWS + 1))
    for outside in (NUM_ROWS, -NUM_ROWS - 1):
        with pytest.raises(IndexError):
            table.row(outside, ("id",))


@pytest.mark.parametrize("num_rows", [1, ROWS_PER_BATCH, ROWS_PER_BATCH + 1])
def test_length_at_batch_borders(source: Path, num_rows: int) -> None:
    assert len(build(source, rows(num_rows))) == num_rows


def test_is_built_once_and_again_when_the_source_changes(source: Path) -> None:
    first = build(source, rows())
    assert build(source, unread()).path == first.path
    os.utime(source, ns=(1, 1))
    assert build(source, rows(5)).path != first.path
    assert len(build(source, unread())) == 5


@pytest.mark.parametrize("place", [0, -1])
def test_a_source_of_the_same_size_and_time_but_other_content_is_read_anew(
    source: Path, place: int
) -> None:
    content = bytearray(300_000)
    source.write_bytes(content)
    times = source.stat()
    build(source, rows())
    content[place] = 1
    source.write_bytes(content)
    os.utime(source, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert len(build(source, rows(5))) == 5


def test_pickles_as_its_path(source: Path) -> None:
    table = build(source, rows())
    dumped = pickle.dumps(table)
    assert len(dumped) < 1000
    assert pickle.loads(dumped).row(1500, ("id",)) == ("id1500",)


def test_finds_rows_by_id(source: Path) -> None:
    table = build(source, rows())
    found = table.rows_of(["id2050", "absent", "id0", "", "id0"], id_column="id")
    assert found.tolist() == [2050, -1, 0, -1, 0]
    everything = table.rows_of([f"id{i}" for i in range(NUM_ROWS)], id_column="id")
    np.testing.assert_array_equal(everything, np.arange(NUM_ROWS))
    assert table.rows_of([], id_column="id").shape == (0,)


@pytest.fixture
def colliding_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    def two_hashes_in_all(ids: list[str]) -> np.ndarray:
        return np.array([len(text) % 2 for text in ids], dtype=np.uint64)

    monkeypatch.setattr(arrow_table, "_hash_ids", two_hashes_in_all)


@pytest.mark.usefixtures("colliding_hashes")
def test_ids_that_share_a_hash_are_told_apart(source: Path) -> None:
    table = build(source, rows(50))
    assert table.rows_of(["id7", "id49", "idx", "id12"], id_column="id").tolist() == [7, 49, -1, 12]


@pytest.mark.usefixtures("colliding_hashes")
def test_a_duplicate_between_other_ids_of_its_hash_is_found(source: Path) -> None:
    lines = [(1, "aa", []), (2, "bb", []), (4, "cc", []), (9, "aa", []), (10, "bb", [])]
    with pytest.raises(UserError, match=r"source\.jsonl:9: the id 'aa' stands on line 1 already"):
        build(source, iter(lines))


def test_a_duplicate_id_is_named_with_both_lines_and_leaves_nothing(source: Path) -> None:
    content = [*rows(), (5000, "id1030", []), (5001, "id3", [])]
    for _ in range(2):  # the failure must not leave a table that the second attempt would take
        with pytest.raises(UserError, match=r":5000: the id 'id1030' stands on line 1031 already"):
            build(source, iter(content))
        assert list((source.parent / "cache").iterdir()) == []


def test_no_rows_is_an_error(source: Path) -> None:
    with pytest.raises(UserError, match=r"source\.jsonl: holds no records"):
        build(source, rows(0))


def test_a_failed_build_leaves_nothing(source: Path) -> None:
    def broken() -> Iterator[tuple[int, str, list[int]]]:
        yield from rows()
        raise UserError("source.jsonl:7: bad")

    with pytest.raises(UserError, match="bad"):
        build(source, broken())
    assert list((source.parent / "cache").iterdir()) == []


@pytest.mark.parametrize("damage", ["empty", "cut", "garbage", "no index", "cut index", "other"])
def test_a_damaged_file_is_rebuilt(
    source: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    table = build(source, rows())
    index = table.path.with_suffix(".ids.npy")
    content = table.path.read_bytes()
    match damage:
        case "empty":
            table.path.write_bytes(b"")
        case "cut":
            table.path.write_bytes(content[: len(content) // 2])
        case "garbage":
            table.path.write_bytes(b"\0" * len(content))
        case "no index":
            index.unlink()
        case "cut index":
            index.write_bytes(index.read_bytes()[:-8])
        case "other":
            other = open_table(
                cache_dir=source.parent / "other",
                kind="test",
                sources=[source],
                schema=pa.schema([(LINE, pa.int64())]),
                rows=[(1,)],
            )
            table.path.write_bytes(other.path.read_bytes())
    with caplog.at_level(logging.WARNING):
        rebuilt = build(source, rows())
    assert "damaged" in caplog.text
    assert list(rebuilt.rows(0, NUM_ROWS, SCHEMA.names)) == list(rows())
    assert rebuilt.rows_of(["id9"], id_column="id").tolist() == [9]


def test_a_build_within_another_build_spoils_neither(source: Path) -> None:
    inner: list[ArrowTable] = []

    def interrupted() -> Iterator[tuple[int, str, list[int]]]:
        for row in rows():
            if row[0] == ROWS_PER_BATCH + 7:
                inner.append(build(source, rows()))
            yield row

    outer = build(source, interrupted())
    for table in (outer, inner[0], build(source, unread())):
        assert list(table.rows(0, NUM_ROWS, SCHEMA.names)) == list(rows())
        assert table.rows_of(["id2049"], id_column="id").tolist() == [2049]
    assert len(list((source.parent / "cache").iterdir())) == 2


def test_all_that_a_build_writes_before_its_end_has_the_name_of_a_temporary_file(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[str] = []

    def killed(*_: object) -> None:
        found.extend(path.name for path in (source.parent / "cache").iterdir())
        raise KeyboardInterrupt

    monkeypatch.setattr(arrow_table, "_refuse_duplicate", killed)
    with pytest.raises(KeyboardInterrupt):
        build(source, rows())
    assert len(found) == 2
    assert all(name.startswith(".") and name.endswith(".tmp") for name in found)
    assert not list((source.parent / "cache").iterdir())


def run_script(script: str, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


SCRIPT = """
import re, sys
from pathlib import Path
import pyarrow as pa
from quarry.data.arrow_table import LINE, open_table
from quarry.data.jsonl import read_jsonl

def kilobytes(field):
    return int(re.search(field + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

source = Path(sys.argv[1])
schema = pa.schema([(LINE, pa.int64()), ("id", pa.large_string()), ("text", pa.large_string())])
rows = ((line, record["_id"], record["text"]) for line, record in read_jsonl(source))
pa.array(["pyarrow imports pandas with the first array"])
before = kilobytes("VmRSS")
table = open_table(cache_dir=source.parent / "cache", kind="test", sources=[source],
                   schema=schema, rows=rows, id_column="id")
peak = kilobytes("VmHWM")
anonymous = kilobytes("RssAnon")
length = sum(len(text) for (text,) in table.rows(0, len(table), ("text",)))
row = table.rows_of(["d12"], id_column="id")[0]
print(len(table), length, row, peak - before, kilobytes("RssAnon") - anonymous)
"""


def test_two_processes_that_build_at_once_both_succeed(tmp_path: Path) -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("the script reads /proc")
    source = tmp_path / "corpus.jsonl"
    source.write_text("".join(f'{{"_id": "d{i}", "text": "text {i}"}}\n' for i in range(20_000)))
    processes = [run_script(SCRIPT, str(source)) for _ in range(2)]
    for process in processes:
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        # "text 0" has 6 letters: 20,000 * 5 and the digits of 0..19999 (10 + 90*2 + ...).
        digits = 10 + 90 * 2 + 900 * 3 + 9000 * 4 + 10_000 * 5
        assert output.split()[:3] == ["20000", str(20_000 * 5 + digits), "12"]
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_large_file_costs_little_memory_of_ones_own(tmp_path: Path) -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("memory is read from /proc")
    source = tmp_path / "corpus.jsonl"
    text = "a passage of some length " * 20
    with source.open("w") as file:
        file.writelines(f'{{"_id": "d{i}", "text": "{i} {text}"}}\n' for i in range(200_000))
    assert source.stat().st_size > 100_000_000
    output, errors = run_script(SCRIPT, str(source)).communicate(timeout=60)
    assert output, errors
    num_rows, _, _, build_growth, read_growth = map(int, output.split())
    assert num_rows == 200_000
    # A record batch in flight (1024 rows of 500 bytes, as Python and as Arrow) and about 32 bytes a
    # row for the id index, in kB: a tenth of what the texts alone would cost.
    assert build_growth < 20_000
    assert read_growth < 10_000


def test_random_rows_are_quick(source: Path) -> None:
    table = build(source, ((i + 1, f"id{i}", [i]) for i in range(50_000)))
    wanted = random.Random(0).choices(range(50_000), k=5_000)
    durations_s = []
    for _ in range(3):  # the best of three, in processor time: others may be at work
        start = time.process_time()
        for row in wanted:
            table.row(row, ("id",))
        durations_s.append(time.process_time() - start)
    assert len(wanted) / min(durations_s) >= 50_000


def test_a_cache_folder_that_cannot_be_made_is_a_users_error(source: Path) -> None:
    with pytest.raises(UserError, match=r"cache_dir=.*source\.jsonl: cannot be made"):
        build(source, rows(), name="source.jsonl")
