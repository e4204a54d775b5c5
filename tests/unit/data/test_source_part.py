"""Parts of a source are disjoint, make up all of it, and are named as schedulers count."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quarry.data import source_part
from quarry.data.record_files import read_records
from quarry.data.source_part import SourcePart
from quarry.errors import UserError


@pytest.mark.parametrize("text", ["3", "a/4", "-1/4", "1/", "1.0/4", "1/4/4", ""])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="NUMBER/COUNT"):
        SourcePart.parsed(text)


@pytest.mark.parametrize("text", ["4/4", "64/4", "0/0"])
def test_a_shard_out_of_range_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="out of range.*count from 0"):
        SourcePart.parsed(text)


def test_numbers_count_from_0() -> None:
    assert SourcePart.parsed("0/4") == SourcePart(number=0, count=4)
    assert [list(SourcePart(number=n, count=3).bounds(7)) for n in range(3)] == [
        [0, 1], [2, 3], [4, 5, 6],
    ]  # fmt: skip


def written(folder: Path, form: str, rows: range) -> Path:
    """Records of very different lengths."""
    records = [{"_id": str(i), "text": "x" * (i * 37 % 101)} for i in rows]
    path = folder / f"rows{rows.start}{form}"
    if form == ".parquet":
        pq.write_table(pa.Table.from_pylist(records), path, row_group_size=7)
    elif form == ".csv":
        path.write_text("_id,text\n" + "".join(f"{r['_id']},{r['text']}\n" for r in records))
    elif form == ".json":
        path.write_text(json.dumps(records))
    else:
        text = "".join(json.dumps(record) + "\n" for record in records)
        path.write_bytes(gzip.compress(text.encode()) if form.endswith(".gz") else text.encode())
    return path


@pytest.mark.parametrize("form", [".jsonl", ".jsonl.gz", ".parquet", ".csv", ".json"])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 64])
def test_each_record_is_in_one_part(
    tmp_path: Path, form: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_part, "RUN_OF_RECORDS", 3)
    files = [written(tmp_path, form, range(40)), written(tmp_path, form, range(40, 53))]
    parts = [
        [r["_id"] for _, _, r in read_records(files, part=SourcePart(number=n, count=count))]
        for n in range(count)
    ]
    assert sorted((each for part in parts for each in part), key=int) == [str(i) for i in range(53)]
    if form in (".jsonl", ".parquet"):  # contiguous, in order
        assert [each for part in parts for each in part] == [str(i) for i in range(53)]
    assert count > 7 or max(map(len, parts)) <= 53 / count + 14


def test_a_part_of_lines_reads_its_bytes_alone(tmp_path: Path) -> None:
    """What is broken elsewhere is another part's matter."""
    path = tmp_path / "rows.jsonl"
    path.write_text("{broken\n" + '{"_id": "1", "text": "a"}\n' * 9)
    last = [where for _, where, _ in read_records([path], part=SourcePart(number=1, count=2))]
    assert len(last) == 4
    with pytest.raises(UserError, match="malformed"):
        list(read_records([path], part=SourcePart(number=0, count=2)))
