"""The files behind a table are recorded in it, and a changed one is recognized."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa

from quarry.data.table_sources import (
    SourceFile,
    sources_as_text,
    sources_from_text,
    sources_in,
    with_sources,
)

SCHEMA = pa.schema([("a", pa.int64())], metadata={b"other": b"kept"})


def test_sources_travel_in_the_metadata_of_a_schema(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("content")
    sources = (SourceFile.of(file),)
    schema = with_sources(SCHEMA, sources)
    assert sources_in(schema) == sources == sources_from_text(sources_as_text(sources))
    assert schema.equals(SCHEMA)
    assert schema.metadata[b"other"] == b"kept"
    assert sources_in(SCHEMA) == ()


def test_other_content_of_equal_size_and_time_is_another_source(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("one")
    before = SourceFile.of(file)
    assert SourceFile.of(file) == before
    file.write_text("two")
    os.utime(file, ns=(before.modified_ns, before.modified_ns))
    assert SourceFile.of(file).key()[:3] == before.key()[:3]
    assert SourceFile.of(file) != before
