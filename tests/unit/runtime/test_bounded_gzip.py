"""A gzip file that expands beyond what text does is refused, whatever it states."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from quarry.data.jsonl import read_lines
from quarry.errors import UserError
from quarry.metrics.run_files import numbered_lines
from quarry.runtime import bounded_gzip
from quarry.runtime.bounded_gzip import BoundedGzip, open_gzip


@pytest.fixture(autouse=True)
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_gzip, "MIN_BYTES", 2**20)


@pytest.fixture
def bomb(tmp_path: Path) -> Path:
    """Four MiB of one line in four KiB."""
    file = tmp_path / "corpus.jsonl.gz"
    file.write_bytes(gzip.compress(b"0" * 2**22))
    return file


def test_a_stated_size_is_refused_before_it_is_read(
    bomb: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoundedGzip, "read", lambda *_: pytest.fail("it was read"))
    with pytest.raises(
        UserError, match=r"corpus.jsonl.gz: expands to 4 MiB or more from 4,099 bytes"
    ):
        open_gzip(bomb)


@pytest.mark.parametrize("read", [read_lines, numbered_lines])
def test_readers_of_lines_refuse_it_at_the_limit_where_the_size_is_a_lie(
    bomb: Path, read: object
) -> None:
    content = bomb.read_bytes()
    bomb.write_bytes(content[:-4] + (100).to_bytes(4, "little"))
    assert callable(read)
    with pytest.raises(UserError, match="expands to 2 MiB or more"):
        list(read(bomb))


def test_several_members_count_together(tmp_path: Path) -> None:
    file = tmp_path / "a.gz"
    file.write_bytes(gzip.compress(b"0\n" * 2**18) * 8)
    with pytest.raises(UserError, match="expands to 2 MiB"), open_gzip(file) as opened:
        list(opened)


def test_text_is_read(tmp_path: Path) -> None:
    file = tmp_path / "a.gz"
    lines = [f"line {number} of some text\n".encode() for number in range(100_000)]
    file.write_bytes(gzip.compress(b"".join(lines)))
    with open_gzip(file) as opened:
        assert list(opened) == lines
    file.write_bytes(b"")
    with open_gzip(file) as opened:
        assert opened.read() == b""
