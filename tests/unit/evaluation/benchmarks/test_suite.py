"""Suites from folders and from the hub: never both, each set by its own rules, mistakes by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from helpers.beir_folders import write_beir_folder
from helpers.hub_repos import write_mteb
from quarry.data.hub_set import mteb_tables
from quarry.errors import MissingPathError, UserError
from quarry.evaluation.benchmark import Benchmark
from quarry.evaluation.benchmarks import suite as module
from quarry.evaluation.benchmarks.suite import suite_benchmark


def suite(tmp_path: Path, *members: str, **more: Any) -> Benchmark:
    arguments = {"sets": None, "path": str(tmp_path / "sets"), "check_counts": False, **more}
    return suite_benchmark(name="mine", members=members, cache_dir=tmp_path / "cache", **arguments)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Sets as BEIR's archives unpack: a forum lies below cqadupstack."""
    for name in ("scifact", "arguana", "cqadupstack/android", "cqadupstack-gis"):
        write_beir_folder(tmp_path / "sets" / name)
    write_beir_folder(tmp_path / "sets" / "msmarco", split="dev")
    return tmp_path / "sets"


def test_folders_are_found_by_name_and_by_group(folders: Path, tmp_path: Path) -> None:
    names = ("scifact", "cqadupstack-android", "cqadupstack-gis", "msmarco")
    benchmark = suite(tmp_path, *names)
    assert [one.name for one in benchmark.sets] == list(names)
    assert [one.group for one in benchmark.sets] == [None, "cqadupstack", "cqadupstack", None]
    for one in benchmark.sets:
        assert len(one.data.corpus) == 3
        assert one.data.name == one.name


def test_sets_pick_by_name_and_by_group(folders: Path, tmp_path: Path) -> None:
    def picked(*sets: str) -> list[str]:
        benchmark = suite(tmp_path, "cqadupstack", "scifact", sets=sets, path=None)
        return [one.name for one in benchmark.sets]

    assert picked("scifact", "cqadupstack-gis") == ["scifact", "cqadupstack-gis"]
    assert len(picked("cqadupstack")) == 12
    with pytest.raises(UserError, match=r"benchmark\.sets: there is no 'arguana' .*cqadup"):
        picked("arguana")
    with pytest.raises(UserError, match="names cqadupstack-gis twice"):
        picked("cqadupstack", "cqadupstack-gis")


def test_each_set_brings_its_own_rules(folders: Path, tmp_path: Path) -> None:
    write_beir_folder(folders / "trec-dl-2019")
    write_beir_folder(folders / "apps")
    arguana, deep, apps = suite(tmp_path, "arguana", "trec-dl-2019", "apps").sets
    assert (arguana.remove_self_match, deep.remove_self_match) == (True, False)
    assert (arguana.relevance_level, deep.relevance_level) == (None, 2)
    assert (arguana.uses_title, apps.uses_title) == (True, False)
    assert (arguana.data.content, apps.data.content) == ("text", "code")
    assert (arguana.licence, deep.licence) == ("cc-by-sa-4.0", "msr-la-nc")
    assert (arguana.data.source, deep.data.source) == ("arguana, test", "trec-dl-2019, test")


def test_a_cut_set_is_refused_unless_counts_are_not_checked(folders: Path, tmp_path: Path) -> None:
    (checked,) = suite(tmp_path, "scifact", check_counts=True).sets
    with pytest.raises(UserError, match=r"^scifact: 300 queries expected, 2 found; 5,183 doc"):
        _ = checked.data
    (unchecked,) = suite(tmp_path, "scifact").sets
    assert len(unchecked.data.queries) == 2


def test_with_a_path_nothing_comes_from_the_hub(folders: Path, tmp_path: Path) -> None:
    message = r"has no BEIR folder .* of nq, fiqa\. .* benchmark\.sets=\[scifact\]"
    with pytest.raises(MissingPathError, match=message):
        suite(tmp_path, "scifact", "nq", "fiqa")
    with pytest.raises(MissingPathError, match="no such folder"):
        suite(tmp_path, "scifact", path=str(tmp_path / "nowhere"))
    with pytest.raises(MissingPathError, match=r"^benchmark\.path is empty"):
        suite(tmp_path, "scifact", path="")
    write_beir_folder(folders / "msmarco-dev")
    with pytest.raises(MissingPathError, match=r"no split 'dev'.*choose one of: test"):
        suite(tmp_path, "msmarco-dev")


def test_the_folder_of_one_set_is_that_set(folders: Path, tmp_path: Path) -> None:
    benchmark = suite(tmp_path, "nq", "scifact", path=str(folders / "scifact"))
    assert [one.name for one in benchmark.sets] == ["scifact"]
    renamed = str(folders / "cqadupstack-gis")
    (only,) = suite(tmp_path, "nq", "scifact", sets=["nq"], path=renamed).sets
    assert (only.name, len(only.data.corpus)) == ("nq", 3)
    with pytest.raises(MissingPathError, match=r"none of 2 is called cqadupstack-gis.*sets=\[NAME"):
        suite(tmp_path, "nq", "scifact", path=renamed)


def test_without_a_path_the_pinned_tables_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    copy = mteb_tables(str(write_mteb(tmp_path / "copy")), split="test")
    (scifact,) = (one for one in module.PUBLIC_SETS if one.name == "scifact")
    known = replace(scifact, tables=copy, num_queries=2, num_documents=3, num_positives=2)
    monkeypatch.setattr(module, "PUBLIC_SETS", (known,))
    (one,) = suite(tmp_path, "scifact", path=None, check_counts=True).sets
    assert one.data.qrels == {"1": {"d1": 2, "007": 0}, "02": {"007": 1}}
