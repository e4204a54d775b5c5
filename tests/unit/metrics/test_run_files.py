"""TREC files: read what is well formed, refuse the rest by line, write what reads back exactly."""

import gzip
import random
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from quarry.errors import MissingPathError, UserError
from quarry.metrics.run_files import read_run, read_trec_qrels, write_run


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_reads_qrels(tmp_path: Path) -> None:
    path = write(tmp_path / "qrels", "2 0 b 1\n1\tQ0\ta\t-1\r\n\n 1 0  é   3 \n")
    assert read_trec_qrels(path) == {"2": {"b": 1}, "1": {"a": -1, "é": 3}}


def test_reads_a_run_and_ignores_ranks(tmp_path: Path) -> None:
    path = write(tmp_path / "run", "q Q0 a 1 0.5 tag\nq Q0 b 2 1.5e3 tag\np 0 a ? -inf t\n")
    assert read_run(path) == {"q": {"a": 0.5, "b": 1500.0}, "p": {"a": float("-inf")}}


def test_reads_compressed_files(tmp_path: Path) -> None:
    path = tmp_path / "run.gz"
    path.write_bytes(gzip.compress(b"q Q0 a 1 0.5 tag\n"))
    assert read_run(path) == {"q": {"a": 0.5}}


def test_a_byte_order_mark_is_not_part_of_the_first_id(tmp_path: Path) -> None:
    path = tmp_path / "qrels"
    path.write_bytes(b"\xef\xbb\xbf1 0 a 1\n")
    assert read_trec_qrels(path) == {"1": {"a": 1}}


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("1 0 a 1\n1 0 b\n", 2, "3 columns where 4 are expected"),
        ("1 0 a b 1\n", 1, "5 columns where 4 are expected"),
        ("1 0 a 1\n\n1 0 b 1.0\n", 3, "grade '1.0' is not a whole number"),
        ("query-id corpus-id x score\n", 1, "grade 'score' is not a whole number"),
        ("1 0 a 1\n2 0 a 1\n1 0 a 0\n", 3, "document 'a' is there twice for query '1'"),
    ],
)
def test_bad_qrels_lines_are_named(tmp_path: Path, text: str, line: int, reason: str) -> None:
    path = write(tmp_path / "qrels", text)
    with pytest.raises(UserError) as caught:
        read_trec_qrels(path)
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("q Q0 a 1 0.5 tag\nq Q0 b 2 0.5\n", 2, "5 columns where 6 are expected"),
        ("q Q0 my document 1 0.5 tag\n", 1, "7 columns where 6 are expected"),
        ("q Q0 a 1 high tag\n", 1, "score 'high' is not a number"),
        ("q Q0 a 1 nan tag\n", 1, "score 'nan' is not a number"),
        ("q Q0 a 1 2 t\np Q0 a 1 2 t\nq Q0 a 2 1 t\n", 3, "document 'a' is there twice"),
    ],
)
def test_bad_run_lines_are_named(tmp_path: Path, text: str, line: int, reason: str) -> None:
    path = write(tmp_path / "run", text)
    with pytest.raises(UserError) as caught:
        read_run(path)
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert reason in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for read in (read_trec_qrels, read_run):
        with pytest.raises(MissingPathError, match="missing"):
            read(tmp_path / "missing")


def test_a_line_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.write_bytes(b"q Q0 a 1 0.5 tag\nq Q0 \xff 2 0.25 tag\n")
    with pytest.raises(UserError, match=r"run:2: .*UTF-8"):
        read_run(path)


@pytest.mark.parametrize("keep", [-10, 5])
def test_a_damaged_compressed_file_is_named(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "run.gz"
    path.write_bytes(gzip.compress(b"q Q0 a 1 0.5 tag\n")[:keep])
    with pytest.raises(UserError, match=r"run\.gz.*damaged"):
        read_run(path)


def test_a_plain_file_named_gz_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"run\.gz.*damaged"):
        read_run(write(tmp_path / "run.gz", "q Q0 a 1 0.5 tag\n"))


def test_writes_best_first_with_ranks_from_one(tmp_path: Path) -> None:
    path = tmp_path / "made" / "run"
    write_run(path, {"q": {"d10": 0.1, "a": 2.0, "d9": 0.1}, "p": {"b": -1.0}}, "bm25")
    assert path.read_text(encoding="utf-8").splitlines() == [
        "q Q0 a 1 2.0 bm25",
        "q Q0 d9 2 0.1 bm25",
        "q Q0 d10 3 0.1 bm25",
        "p Q0 b 1 -1.0 bm25",
    ]


def test_what_is_written_reads_back_exactly(tmp_path: Path) -> None:
    rng = random.Random(0)
    # Any bit pattern of a double but NaN and the infinities, among them the subnormal ones.
    doubles = (struct.unpack("d", rng.randbytes(8))[0] for _ in range(2000))
    values = [0.1 + 0.2, 5e-324, 1.7976931348623157e308, float("inf")]
    values += [score for score in doubles if score - score == 0]
    run = {
        "q1": {f"d{number}": score for number, score in enumerate(values)},
        "é": {"doc/with:signs%20": 1.0},
    }
    path = tmp_path / "run"
    write_run(path, run, "tag")
    assert read_run(path) == run


def test_single_precision_scores_keep_their_value(tmp_path: Path) -> None:
    path = tmp_path / "run"
    run = {"q": {"a": np.float32(0.1), "b": torch.tensor(0.3)}}
    write_run(path, run, "tag")
    assert read_run(path) == {"q": {"a": 0.10000000149011612, "b": 0.30000001192092896}}


@pytest.mark.parametrize(
    ("run", "tag", "named"),
    [
        ({"q 1": {"a": 1.0}}, "tag", "query id 'q 1'"),
        ({"q": {"my\tdocument": 1.0}}, "tag", r"document id 'my\tdocument'"),
        ({"q": {"": 1.0}}, "tag", "document id ''"),
        ({"q": {"a\u00a0b": 1.0}}, "tag", r"document id 'a\xa0b'"),
        ({"q": {"a": 1.0}}, "my tag", "tag 'my tag'"),
    ],
)
def test_what_the_format_cannot_hold_is_refused(
    tmp_path: Path, run: dict[str, dict[str, float]], tag: str, named: str
) -> None:
    with pytest.raises(UserError) as caught:
        write_run(tmp_path / "run", run, tag)
    assert named in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "run"
    write_run(path, {"q": {"a": 1.0}}, "tag")
    with pytest.raises(UserError, match="NaN"):
        write_run(path, {"q": {"a": 2.0}, "p": {"a": float("nan")}}, "tag")
    assert read_run(path) == {"q": {"a": 1.0}}
    assert list(tmp_path.iterdir()) == [path]


def test_a_compressed_run_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"run\.gz.*without \.gz"):
        write_run(tmp_path / "run.gz", {"q": {"a": 1.0}}, "tag")
