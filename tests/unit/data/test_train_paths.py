"""Files of training data, named or in a folder."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from quarry.data.train_paths import find_training_files
from quarry.errors import MissingPathError, UserError


def write(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    return folder


def found(path: Path) -> list[str]:
    return [file.name for file in find_training_files(path)]


def test_a_file_is_itself_or_its_zipped_one(tmp_path: Path) -> None:
    write(tmp_path, "test.csv", "b.jsonl.gz", "c.any")
    assert found(tmp_path / "test.csv") == ["test.csv"]
    assert found(tmp_path / "b.jsonl") == ["b.jsonl.gz"]
    assert found(tmp_path / "c.any") == ["c.any"]
    with pytest.raises(MissingPathError, match=r"d\.json: no such file, and no d\.json\.gz"):
        find_training_files(tmp_path / "d.json")


def test_a_folder_is_its_files_sorted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, "b.jsonl", "a.jsonl.gz", "10.JSONL", "README.md", ".gitattributes", ".x.csv")
    with caplog.at_level(logging.INFO):
        assert found(tmp_path) == ["10.JSONL", "a.jsonl.gz", "b.jsonl"]
        assert not caplog.records
        write(tmp_path, "notes.txt", "dataset_infos.json", "x.parquet.gz", "more/c.jsonl")
        assert found(tmp_path) == ["10.JSONL", "a.jsonl.gz", "b.jsonl"]
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert record.getMessage().endswith(
        "not read: dataset_infos.json, more/, notes.txt, x.parquet.gz"
    )


def test_of_a_plain_and_a_zipped_file_the_plain_one_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert found(write(tmp_path, "a.csv", "a.csv.gz", "b.csv.gz")) == ["a.csv", "b.csv.gz"]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "a.csv is read, a.csv.gz beside it is not" in record.getMessage()


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["train-0-of-2.parquet", "train-1-of-2.parquet", "test-0-of-1.parquet"], 2),
        (["nq-train.jsonl", "nq-dev.jsonl"], 1),
        (["trainData.json", "valData.csv", "nqTest.json"], 1),
        (["train.csv", "validation.csv", "extra.csv", "train_dev.csv"], 1),
        (["TRAIN.csv", "TEST.csv"], 1),
        (["training.csv", "testset.csv", "valid1.csv"], 1),
    ],
)
def test_files_of_other_splits_are_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, names: list[str], chosen: int
) -> None:
    assert found(write(tmp_path, *names)) == names[:chosen]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    _, _, left_out = record.getMessage().rpartition("train: ")
    assert left_out == ", ".join(sorted(names[chosen:]))


def test_files_that_say_nothing_of_another_split_are_all_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = ["contest.jsonl", "interval.jsonl", "nq.jsonl", "train.jsonl"]
    assert found(write(tmp_path, *names)) == names
    assert not caplog.records


@pytest.mark.parametrize("names", [["a.csv", "test.csv"], ["dev.csv"], ["train-test.csv", "x.csv"]])
def test_other_splits_alone_are_refused(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(UserError, match=r"(test|dev)\.csv say that they are no training data.*Fix"):
        find_training_files(write(tmp_path, *names))


def test_several_forms_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", "b.csv", "c.jsonl.gz", "d.json")
    with pytest.raises(UserError, match=r"of 3 forms: a\.csv, d\.json, c\.jsonl\.gz\. Fix"):
        find_training_files(tmp_path)


def test_a_folder_without_training_files_says_where_they_may_be(tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match="the folder is empty"):
        find_training_files(tmp_path)
    write(tmp_path, "data.arrow", "state.json", "README.md")
    with pytest.raises(MissingPathError, match=r"it has README\.md, data\.arrow, .*to_parquet"):
        find_training_files(tmp_path)
    write(tmp_path, "data/train-0.parquet", "data/train-1.parquet", "empty/x.txt")
    with pytest.raises(MissingPathError, match=r"searched: data/ \(2 files\)\. Fix: .*/data$"):
        find_training_files(tmp_path)
    with pytest.raises(MissingPathError, match="no such file"):
        find_training_files(tmp_path / "nothing")


def test_a_long_list_is_cut(tmp_path: Path) -> None:
    write(tmp_path, *[f"test-{i:02d}.csv" for i in range(30)])
    with pytest.raises(UserError, match=r"test-09\.csv and 20 more"):
        find_training_files(tmp_path)
