"""Which files make up a set, and which folders are sets."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from helpers.beir_folders import write_beir_folder
from helpers.hub_repos import write_text
from quarry.data.beir_folder import find_sets, find_split, find_table, is_beir_folder, list_splits
from quarry.errors import MissingPathError, UserError


def test_splits_of_every_form_are_found(tmp_path: Path) -> None:
    names = (
        "a.tsv",
        "b.txt",
        "c.trec",
        "d.csv",
        "e.jsonl",
        "f.parquet",
        "g.tsv.gz",
        "h.x.jsonl.gz",
    )
    for name in (*names, "notes.md", ".tsv", ".hidden.tsv"):
        write_text(tmp_path / "qrels" / name, "")
    assert list_splits(tmp_path) == ["a", "b", "c", "d", "e", "f", "g", "h.x"]
    for name in names:
        split = name.removesuffix(".gz").rpartition(".")[0]
        assert find_split(path=tmp_path, split=split).name == name
    with pytest.raises(MissingPathError, match=r"no split 'test'.*of: a, b.* also has notes\.md"):
        find_split(path=tmp_path, split="test")


def test_a_table_in_two_forms_is_refused_with_both_names(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_beir_folder(tmp_path)
    write_text(folder / "qrels" / "test.jsonl", "")
    with pytest.raises(UserError, match=r"qrels/test\.jsonl and .*qrels/test\.tsv: the same table"):
        find_split(path=folder, split="test")
    write_text(folder / "corpus.parquet", "")
    with pytest.raises(UserError, match=r"corpus\.jsonl and .*corpus\.parquet: the same table"):
        find_table(folder, "corpus")
    write_text(folder / "queries.jsonl.gz", "")
    assert find_table(folder, "queries").name == "queries.jsonl"
    assert "queries.jsonl is read, queries.jsonl.gz beside it is not" in caplog.text


def test_a_table_in_a_form_that_is_not_read_is_named(tmp_path: Path) -> None:
    write_text(tmp_path / "corpus.xml", "")
    with pytest.raises(
        MissingPathError, match=r"corpus\.jsonl: no such file.*there is corpus\.xml"
    ):
        find_table(tmp_path, "corpus")


def test_finds_sets(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    b = write_beir_folder(tmp_path / "all" / "b")
    a = write_beir_folder(tmp_path / "all" / "a")
    for name in ("notes", "plots", ".git"):
        (tmp_path / "all" / name).mkdir()
    (tmp_path / "all" / "README.md").write_text("")
    with caplog.at_level(logging.INFO):
        assert find_sets(tmp_path / "all") == [a, b]
    (record,) = caplog.records
    assert "2 folders have no corpus, queries or qrels and are no sets: notes, plots" in (
        record.getMessage()
    )
    assert find_sets(str(b)) == [b]
    with pytest.raises(MissingPathError, match="neither a BEIR folder nor"):
        find_sets(tmp_path / "all" / "notes")
    with pytest.raises(MissingPathError, match="no such folder"):
        find_sets(tmp_path / "absent")


@pytest.mark.parametrize("part", ["corpus.jsonl.gz", "queries.csv", "qrels/test.xlsx", "qrels.tsv"])
def test_a_folder_with_a_part_of_a_set_is_not_passed_over(tmp_path: Path, part: str) -> None:
    whole = write_beir_folder(tmp_path / "a")
    write_text(tmp_path / "b" / part, "")
    assert find_sets(tmp_path) == [whole, tmp_path / "b"]
    assert not is_beir_folder(tmp_path / "b")
    assert find_sets(tmp_path / "b") == [tmp_path / "b"]


def test_sets_inside_a_folder_that_is_half_a_set_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    inside = write_beir_folder(tmp_path / "old")
    write_text(tmp_path / "corpus.jsonl", "")
    assert find_sets(tmp_path) == [inside]
    assert "has a part of a set itself, but not all" in caplog.text
    assert caplog.text.rstrip().endswith("the folders inside: old")


def test_a_folder_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(UserError, match=r"qrels: cannot be read \(Permission denied\)"):
        list_splits(write_beir_folder(tmp_path))
