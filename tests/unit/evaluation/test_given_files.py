"""Run files are found by path, folder and pattern; sets and systems by names, tags or a mapping."""

from __future__ import annotations

from pathlib import Path

import pytest

from quarry.errors import MissingPathError, UserError
from quarry.evaluation.given_files import GivenFile, find_run_files, system_names


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("one.b.trec", "one.a.trec.gz", "two.a.tsv", "one.qrels", "notes.md"):
        (tmp_path / name).touch()
    return tmp_path


def found(runs: object, *sets: str) -> list[tuple[str, str, str]]:
    return [(file.path.name, file.set_name, file.name) for file in find_run_files(runs, sets)]


def test_with_one_set_all_files_belong_to_it(folder: Path) -> None:
    assert found(str(folder / "two.a.tsv"), "one") == [("two.a.tsv", "one", "two.a")]
    assert found([str(folder / "one.b.trec"), str(folder / "*.trec.gz")], "one") == [
        ("one.b.trec", "one", "b"),
        ("one.a.trec.gz", "one", "a"),
    ]


def test_of_several_sets_the_file_name_decides(folder: Path) -> None:
    assert found(str(folder), "one", "two") == [
        ("one.a.trec.gz", "one", "a"),
        ("one.b.trec", "one", "b"),
        ("two.a.tsv", "two", "a"),
    ]
    (folder / "one.more.x.trec").touch()
    assert found(str(folder / "one.more.x.trec"), "one", "one.more") == [
        ("one.more.x.trec", "one.more", "x")
    ]


def test_a_mapping_decides_whatever_the_names(folder: Path) -> None:
    runs = {"two": [str(folder / "one.b.trec")], "one": str(folder / "two.a.tsv")}
    assert found(runs, "one", "two") == [
        ("one.b.trec", "two", "one.b"),
        ("two.a.tsv", "one", "two.a"),
    ]


def test_a_file_counts_once(folder: Path) -> None:
    path = str(folder / "one.b.trec")
    assert len(found([path, path, str(folder / "one.b*")], "one")) == 1


def test_what_is_not_there_is_refused(folder: Path) -> None:
    (folder / "empty").mkdir()
    for runs, fact in [
        (None, "task.runs is not set"),
        ([], "task.runs is not set"),
        ({"one": []}, "task.runs is not set"),
        ([""], "task.runs is not set"),
        (5, "task.runs=5: there is no such file"),
        ("gone.trec", "task.runs=gone.trec: there is no such file"),
        (f"{folder}/*.run", "no file matches"),
        (f"{folder}/empty", "the folder has no run file"),
    ]:
        with pytest.raises(MissingPathError) as info:
            find_run_files(runs, ["one"])
        assert fact in str(info.value)
        assert "Fix: " in str(info.value)


def test_a_file_or_set_that_does_not_fit_is_refused(folder: Path) -> None:
    (folder / "three.trec").touch()
    with pytest.raises(UserError, match="the file's name begins with no set"):
        find_run_files(str(folder), ["one", "two"])
    with pytest.raises(UserError, match="three is no set of the benchmark"):
        find_run_files({"three": "x"}, ["one", "two"])


def files(*pairs: tuple[str, str]) -> list[GivenFile]:
    return [GivenFile(path=Path(f"{s}.{n}.trec"), set_name=s, name=n) for s, n in pairs]


def test_tags_name_systems_where_they_tell_them_apart() -> None:
    given = files(("one", "a"), ("one", "b"), ("two", "a"))
    assert system_names(given, ["BM25", "TAS-B", "BM25"], None) == ["BM25", "TAS-B", "BM25"]
    assert system_names(given, ["rank", "rank", "x"], None) == ["a", "b", "a"]
    assert system_names(given, ["BM25", None, "BM25"], None) == ["a", "b", "a"]
    assert system_names(given, ["rank", "rank", "x"], ["x", 2, "x"]) == ["x", "2", "x"]


def test_names_that_cannot_be_told_apart_are_refused() -> None:
    same = files(("one", "a"), ("one", "a"))
    with pytest.raises(UserError, match=r"two systems of one are called 'a'.*task\.names="):
        system_names(same, ["t", "t"], None)
    with pytest.raises(UserError, match=r"task\.names=\['x'\]: 1 names for 2 run files"):
        system_names(same, ["t", "t"], ["x"])
    with pytest.raises(UserError, match="or one has no name"):
        system_names(same, ["t", "t"], ["x", " "])
