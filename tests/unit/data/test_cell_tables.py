"""Tables of commas and of tabs."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from quarry.data.cell_tables import read_csv, read_tsv
from quarry.errors import UserError


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_csv_cells_are_strings_as_they_are_written(tmp_path: Path) -> None:
    content = (
        '\ufeffid, query ,"positive"\r\n'
        '007,why,"a, ""b""\nc\r\nd\re"\r\n'
        "\r\n"
        ' 1.0 ,say "so",\r\n'
        "\u2028,é,NaN"
    )
    assert list(read_csv(write(tmp_path / "a.csv", content))) == [
        (2, {"id": "007", "query": "why", "positive": 'a, "b"\nc\r\nd\re'}),
        (6, {"id": " 1.0 ", "query": 'say "so"', "positive": ""}),
        (7, {"id": "\u2028", "query": "é", "positive": "NaN"}),
    ]
    assert list(read_csv(write(tmp_path / "a.csv", ""))) == []
    assert list(read_csv(write(tmp_path / "a.csv", "query,positive\n\n"))) == []


def test_a_csv_of_one_column(tmp_path: Path) -> None:
    found = read_csv(write(tmp_path / "a.csv", 'text\none\n"two, three"\n'))
    assert [record["text"] for _, record in found] == ["one", "two, three"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (",query\n0,a\n", r"1: column 1 of the header has no name .*to_csv\(index=False\)"),
        ("query,query\na,b\n", "1: the column 'query' stands twice"),
        ("query;positive\na;b\n", "1: a .csv has commas, this header has ';'"),
        ("\n\nquery\tpositive\na\tb\n", r"3: a .csv has commas, this header has '\\t'"),
        (
            'query,positive\n"a\nb",c\nd\n',
            r"4: 1 cells, the header has 2 \(query, positive\)\. Fix",
        ),
        ("query,positive\na,b,c\n", "2: 3 cells, the header has 2"),
        ('query,positive\na,b\n"c,d\ne,f\n', "3: .*found on line 4: a quote .* is not closed"),
        ('query,positive\na,"b" c\n', "2: the record .* is malformed CSV, found on its line: ','"),
        ('query,positive\na,"b\n"c",d\n', "2: the record .* is malformed CSV, found on line 3"),
        ("query,positive\ra,b\r", "1: a carriage return outside of quotes"),
        (b"query,positive\na,\xe9\n", r"2: not UTF-8 \(byte 0xe9"),
        ("query,positive\na,b".encode("utf-16"), "1: the file is UTF-16"),
        ("query,positive\na,b\0\n", "2: holds a NUL"),
        ('"' + "a" * 200_000 + "\n" * 1000, "1: .*a quote that opens in it is not closed"),
        (",".join(f"c{i}" for i in range(9000)) + "\na\n", "2: 1 cells, the header has 9000"),
    ],
)
def test_a_malformed_csv_is_named(tmp_path: Path, content: str | bytes, message: str) -> None:
    file = write(tmp_path / "a.csv", content)
    with pytest.raises(UserError, match=rf"a\.csv:{message}") as caught:
        list(read_csv(file))
    assert len(str(caught.value)) < 600


def test_long_cells_are_read_up_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = csv.field_size_limit()
    file = write(tmp_path / "a.csv", 'query,positive\na,"' + "x" * 20_000_000 + '"\n')
    ((_, record),) = read_csv(file)
    assert len(record["positive"]) == 20_000_000
    csv.field_size_limit(1000)
    monkeypatch.setattr("quarry.data.cell_tables.MAX_CELL_CHARACTERS", 1000)
    try:
        with pytest.raises(UserError, match=r"a\.csv:2: .*larger than field limit"):
            list(read_csv(file))
    finally:
        csv.field_size_limit(limit)


@pytest.mark.parametrize("delimiter", [",", "\t"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_ALL, csv.QUOTE_MINIMAL])
def test_what_a_writer_wrote_comes_back(tmp_path: Path, delimiter: str, quoting: int) -> None:
    rows = [
        {"query": 'she said "so"', "positive": '"to be"'},
        {"query": '"', "positive": '""'},
        {"query": "", "positive": "a,b;c"},
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter, quoting=quoting)
    writer.writeheader()
    writer.writerows(rows)
    file = write(tmp_path / "table", text.getvalue())
    read = read_csv if delimiter == "," else read_tsv
    assert [record for _, record in read(file)] == rows


def test_a_raw_dump_of_tabs_keeps_its_quotes(tmp_path: Path) -> None:
    content = 'query\t"positive\n"to be"\t"Hamlet\n\n007\t\n"a" or "b"\t""x"\n'
    assert list(read_tsv(write(tmp_path / "a.tsv", content))) == [
        (2, {"query": '"to be"', '"positive': '"Hamlet'}),
        (4, {"query": "007", '"positive': ""}),
        (5, {"query": '"a" or "b"', '"positive': '""x"'}),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("query\tpositive\na\n", r"2: 1 cells, the header has 2 \(query, positive\).*\.csv or \."),
        ('query\tpositive\n"a\tb"\tc\n', "2: 3 cells, the header has 2 .*tabs or newlines"),
        ("query\tquery\na\tb\n", "1: the column 'query' stands twice"),
        ("query\t\na\tb\n", "1: column 2 of the header has no name"),
        ("query\tpositive\na\rb\tc\n", "2: a carriage return inside the line"),
    ],
)
def test_a_malformed_tsv_is_named(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"a\.tsv:{message}"):
        list(read_tsv(write(tmp_path / "a.tsv", content)))
