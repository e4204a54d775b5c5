from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from quarry.data.jsonl import find_file, read_jsonl, read_lines
from quarry.errors import MissingPathError, UserError


def test_numbers_lines_from_one_and_skips_blank_ones(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n\n  \n{"a": "é"}', encoding="utf-8")
    assert list(read_jsonl(path)) == [(1, {"a": 1}), (4, {"a": "é"})]


def test_tolerates_a_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n{"a": 2}\r\n')
    assert list(read_jsonl(path)) == [(1, {"a": 1}), (2, {"a": 2})]
    assert [text for _, text in read_lines(path)] == ['{"a": 1}', '{"a": 2}']


def test_a_line_ends_at_a_newline_alone(tmp_path: Path) -> None:
    # U+2028 and U+0085 are line ends to str.splitlines, and legal inside a JSON string.
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": "x\u2028y\u0085z"}\n', encoding="utf-8")
    assert list(read_jsonl(path)) == [(1, {"a": "x\u2028y\u0085z"})]


def test_reads_gzip_by_its_own_name_and_in_place_of_a_missing_plain_file(tmp_path: Path) -> None:
    zipped = tmp_path / "a.jsonl.gz"
    zipped.write_bytes(gzip.compress(b'{"a": 1}\n{"a": 2}\n'))
    expected = [(1, {"a": 1}), (2, {"a": 2})]
    assert list(read_jsonl(zipped)) == expected
    assert list(read_jsonl(tmp_path / "a.jsonl")) == expected
    assert find_file(tmp_path / "a.jsonl") == zipped


def test_prefers_the_plain_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": "plain"}\n')
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"a": "zipped"}\n'))
    assert list(read_jsonl(tmp_path / "a.jsonl")) == [(1, {"a": "plain"})]


def test_a_missing_file_is_told_at_the_call(tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match=r"a\.jsonl: no such file, and no a\.jsonl\.gz"):
        read_jsonl(tmp_path / "a.jsonl")
    with pytest.raises(MissingPathError, match="is a folder"):
        read_jsonl(tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"a": 1', "malformed JSON at column"),
        (b'{"a": 1} {"a": 2}', "malformed JSON at column 10"),
        (b"[1, 2]", "holds a JSON list, not an object"),
        (b'"text"', "holds a JSON str, not an object"),
        (b'{"a": "\xe9t\xe9"}', r"not UTF-8 \(byte 0xe9 at byte 7"),
        (b'{"a": "\\ud83d"}', "lone surrogate"),
        (b"[" * 100_000, "cannot be read"),
        (b"[", "malformed JSON, an array over several lines"),
        (b'{"a": 1, "b": {"c": 1, "c": 1}}', "the key 'c' stands twice"),
        (b'{"a": "x\0y"}', "holds a NUL byte"),
        (b'{"a": 1}\r{"a": 2}', "a carriage return inside the line"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: bytes, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 0}\n' + line + b"\n")
    records = read_jsonl(path)
    assert next(records) == (1, {"a": 0})
    with pytest.raises(UserError, match=rf"a\.jsonl:2: .*{message}"):
        next(records)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_other_encodings_are_named(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes('{"a": "x"}\n'.encode(encoding))
    with pytest.raises(UserError, match=r"a\.jsonl:1: .*UTF-16"):
        list(read_jsonl(path))


def test_a_line_of_twenty_megabytes_is_a_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"a": "x" * 20_000_000}) + '\n{"a": 1}\n')
    assert [number for number, _ in read_jsonl(path)] == [1, 2]
    path.write_text("x" * 20_000_000)
    with pytest.raises(UserError, match=r"a\.jsonl:1: malformed JSON") as caught:
        list(read_jsonl(path))
    assert len(str(caught.value)) < 500


def test_an_escaped_surrogate_pair_is_a_character(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"a": "😀"}))  # json.dumps escapes it as \ud83d\ude00
    assert list(read_jsonl(path)) == [(1, {"a": "😀"})]


def test_a_cut_off_gzip_file_is_an_error_near_the_line_where_it_ends(tmp_path: Path) -> None:
    content = "".join(json.dumps({"a": i, "b": str(i**9)}) + "\n" for i in range(2000)).encode()
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(content)[:-100])
    numbers = []
    with pytest.raises(UserError, match=r"a\.jsonl\.gz:\d+: the gzip file is damaged or cut off"):
        numbers.extend(number for number, _ in read_jsonl(path))
    path.write_bytes(b"this is no gzip file")
    with pytest.raises(UserError, match=r"a\.jsonl\.gz:1: the gzip file is damaged"):
        list(read_jsonl(path))


def test_a_damaged_gzip_file_is_an_error(tmp_path: Path) -> None:
    whole = bytearray(gzip.compress(b'{"a": 1}\n' * 2000))
    whole[-6] ^= 0xFF  # in the checksum
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(bytes(whole))
    with pytest.raises(UserError, match="damaged or cut off"):
        list(read_jsonl(path))
