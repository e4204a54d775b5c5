"""Objects of a JSON array, read in blocks."""

from __future__ import annotations

import gzip
import json
import time
import tracemalloc
from pathlib import Path

import pytest

from quarry.data import json_array
from quarry.data.json_array import is_json_array, read_json_array
from quarry.errors import UserError

RECORDS = [
    {"query": 'é "quoted" \\ \n 😀', "n": [1, -2.5e-3, True, False, None, float("inf")]},
    {},
    {"a": {"b": [{"c": "]},{["}]}, "empty": ["", [], {}]},
    {"b": "x" * 50, "\u2028": "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16")},
]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("num_bytes", [1, 2, 3, 7, 64, 1 << 20])
@pytest.mark.parametrize("escapes", [True, False])
@pytest.mark.parametrize("indent", [None, 2])
def test_blocks_end_anywhere(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    num_bytes: int,
    escapes: bool,
    indent: int | None,
) -> None:
    monkeypatch.setattr(json_array, "BLOCK_BYTES", num_bytes)
    text = json.dumps(RECORDS, indent=indent, ensure_ascii=escapes).replace("\n", "\r\n")
    for content in (text.encode(), b"\xef\xbb\xbf \r\n" + text.encode() + b"\n\n"):
        found = list(read_json_array(write(tmp_path / "a.json", content)))
        assert [record for _, record in found] == RECORDS
        lines = content.decode("utf-8-sig").split("\n")
        assert all(lines[line - 1].lstrip(" [")[0] == "{" for line, _ in found)


def test_each_object_has_the_line_it_begins_on(tmp_path: Path) -> None:
    file = write(tmp_path / "a.json", '\n[ {"a": 1}, {"a":\n2},\n\n{"a": 3}\n]\n')
    assert list(read_json_array(file)) == [(2, {"a": 1}), (2, {"a": 2}), (5, {"a": 3})]
    file.with_name("a.json.gz").write_bytes(gzip.compress(file.read_bytes()))
    assert list(read_json_array(tmp_path / "a.json.gz")) == list(read_json_array(file))
    assert list(read_json_array(write(file, " [ ] "))) == []


@pytest.mark.parametrize(
    ("content", "is_array"),
    [
        (b"[]", True), (b"\xef\xbb\xbf[", True), (b" \r\n\t[", True), (b" " * 5000 + b"[", True),
        (b"", False), (b" \n", False), (b'{"a": []}', False), (b"\xff\xfe[\0", False),
    ],
)  # fmt: skip
def test_an_array_is_known_by_its_first_character(
    tmp_path: Path, content: bytes, is_array: bool
) -> None:
    assert is_json_array(write(tmp_path / "a.json", content)) is is_array
    assert is_json_array(write(tmp_path / "b.json.gz", gzip.compress(content))) is is_array


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        (b'{"a": 1}]', r"3: .*',' or '\]' after record 1 is expected, .* begins with '\{\"a\""),
        (b",]", "3: .*',' stands before its end"),
        (b",", "3: the file ends inside record 2 of the array, which begins on line 3: it is cut"),
        (b"", r"3: .*',' or '\]' after record 1 is expected, .* is cut off"),
        (b',{"a": "\n"}]', r"3: malformed JSON \(Invalid control character at\)"),
        (b',{"a": "x', r"3: the file ends inside record 2"),
        (b',\n{"a": [1,\n2', r"5: the file ends inside record 2 of the array, .* on line 4"),
        (b',\n{"a":\n1, x}]', r"5: malformed JSON .* at 'x\}\]' in record 2 .* begins on line 4"),
        (b',{"a": 1},"text"]', "3: record 3 of the array is not an object, it begins with '\"te"),
        (b",[1]]", r"3: record 2 of the array is not an object, it begins with '\[1"),
        (b",{" + b'"a":[' * 100_000, r"3: malformed JSON|cannot be read"),
        (b',{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}]", "3 .record 2 .*: .*cannot be read"),
        (b',{"a":' + b"9" * 5000 + b"}]", r"3 \(record 2 of the array\): .*cannot be read"),
        (b',{"a": 1, "b": {"c": 1, "c": 1}}]', r"3 \(record 2.*\): the key 'c' stands twice"),
        (b',{"a": "\\ud83d"}]', r"3 \(record 2 of the array\): .*lone surrogate"),
        (b',\n{"a": "\xe9t\xe9"}]', r"4: not UTF-8 \(byte 0xe9 at byte 20 of the file"),
        (b',\n{"a": "\xc3', r"4: not UTF-8 \(byte 0xc3 at byte 20 of the file"),
        (b',\n{"a": "x\0y"}]', "4: holds a NUL byte"),
        (b',\n{"a":\r1}]', "4: a carriage return inside the line"),
        (b"]\n[]", r"4: more text behind the end of the array: '\[\]'"),
        (b"]\r", "3: a carriage return inside the line"),
    ],
)
@pytest.mark.parametrize("num_bytes", [5, 1 << 20])
def test_what_is_wrong_is_named_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_bytes: int, rest: bytes, message: str
) -> None:
    monkeypatch.setattr(json_array, "BLOCK_BYTES", num_bytes)
    file = write(tmp_path / "a.json", b'[\n\n{"a": 0}' + rest)
    with pytest.raises(UserError, match=rf"a\.json:({message})") as caught:
        list(read_json_array(file))
    assert len(str(caught.value)) < 500


def test_a_cut_off_gzip_file_is_an_error(tmp_path: Path) -> None:
    content = gzip.compress(json.dumps([{"a": i} for i in range(2000)], indent=1).encode())
    for part in (content[:-100], content[:3], b"no gzip"):
        file = write(tmp_path / "a.json.gz", part)
        with pytest.raises(UserError, match=r"a\.json\.gz:\d+: the gzip file is damaged or cut"):
            is_json_array(file) and list(read_json_array(file))


@pytest.mark.parametrize("value", ["x" * 2_000_000, [0.5] * 300_000], ids=["string", "many values"])
def test_an_object_of_many_blocks_is_read_in_linear_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: object
) -> None:
    monkeypatch.setattr(json_array, "BLOCK_BYTES", 1 << 14)
    large = json.dumps({"a": value})
    begin = time.process_time()
    json.loads(large)
    once = time.process_time() - begin
    file = write(tmp_path / "a.json", f'[{{"a": 1}},{large},\n{{"a": 2}}]')
    begin = time.process_time()
    assert [line for line, _ in read_json_array(file)] == [1, 1, 2]
    # A rescan for each of the 90 blocks would take 45 times as long as one scan.
    assert time.process_time() - begin < 10 * once + 0.5
    write(file, f'[{{"a": 1}},{large[:-3]}')
    with pytest.raises(UserError, match=r"a\.json:1: .*cut off") as caught:
        list(read_json_array(file))
    assert len(str(caught.value)) < 500


def test_memory_is_bounded(tmp_path: Path) -> None:
    record = json.dumps({"a": "x" * 5000})
    file = write(tmp_path / "a.json", "[" + ",".join([record] * 4000) + "]")
    tracemalloc.start()
    assert sum(1 for _ in read_json_array(file)) == 4000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 << 20  # of 20 MB: a few copies of a block


def test_a_malformed_record_is_not_looked_for_in_the_rest_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_array, "BLOCK_BYTES", 100)
    read: list[int] = []
    check = json_array._check
    monkeypatch.setattr(json_array, "_check", lambda *args: (read.append(1), check(*args))[1])
    file = write(tmp_path / "a.json", '[{"a" 1},' + " " * 100_000 + "]")
    with pytest.raises(UserError, match=r"a\.json:1: malformed JSON"):
        list(read_json_array(file))
    assert len(read) <= 2
