"""Published rows: digits as printed, beside numbers of the same set and measure alone."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from helpers.study_runs import a_set, entries_in, tables_of, write_run_directory
from quarry.errors import UserError
from quarry.evaluation.benchmarks.suite import PUBLIC_SETS
from quarry.metrics.trec import parse_measure
from quarry.study_report.published_rows import FOLDER, PublishedRow, published_value, read_published
from quarry.study_report.table import StudyTable
from quarry.types import Report

NAMES = {one.name for one in PUBLIC_SETS} | {one.group for one in PUBLIC_SETS}


def row(label: str, file: str) -> PublishedRow:
    (found,) = (each for each in read_published([file]) if each.label == label)
    return found


def table_with(folder: Path, *names: str, trained: bool = False, **more: Any) -> StudyTable:
    public = {one.name: one for one in PUBLIC_SETS}
    results = tuple(
        a_set(
            name,
            [0.5],
            measure=more.get("measure", public[name].main_measure),
            num_queries=public[name].num_queries,
            num_documents=public[name].num_documents,
            group=public[name].group,
            convention=more.get("convention"),
        )
        for name in names
    )
    report = Report(retriever="trained" if trained else "dense", results=results)
    run = write_run_directory(folder / "run", [report], is_training=trained)
    measures = [more["measure"]] if "measure" in more else None
    return tables_of(entries_in([run]), published=read_published(None), measures=measures)[0]


def shown(table: StudyTable) -> dict[str, list[str | None]]:
    return {
        row.label: [None if value is None else value.text for value in values]
        for row, values in table.published
    }


def test_every_file_names_sets_measures_and_a_source() -> None:
    rows = read_published(None)
    assert {path.stem for path in FOLDER.glob("*.yaml")} == {
        "beir", "coir", "msmarco", "retrievers", "retrievers_coir", "study_supervised",
        "study_zero_shot",
    }  # fmt: skip
    assert len(rows) >= 30
    for each in rows:
        assert each.source
        assert each.confidence
        assert set(each.values) <= NAMES
        for measures in each.values.values():
            for measure, value in measures.items():
                parse_measure(measure)
                assert 0 < value.value < 1
    with pytest.raises(UserError, match=r"task\.published: there is no nope .*beir, coir"):
        read_published(["nope"])


def test_numbers_are_those_of_the_sources() -> None:
    base = row("Qwen2.5-7B", "study_supervised").values
    assert base["msmarco-dev"]["MRR@10"].text == "0.42280"
    assert base["trec-dl-2020"]["nDCG@10"].value == 0.7227
    assert row("RepLLaMA, reproduced", "msmarco").values["msmarco-dev"]["MRR@10"].text == "0.425"

    # the means that the sources print for the same rows
    def mean(each: PublishedRow, names: list[str]) -> float:
        return fmean(each.values[name]["nDCG@10"].value for name in names)

    thirteen = [name for name in row("RepLLaMA", "beir").values if name in NAMES]
    assert len(thirteen) == 13
    assert mean(row("RepLLaMA", "beir"), thirteen) == pytest.approx(0.5515, abs=5e-5)
    assert mean(row("RepLLaMA, reproduced", "beir"), thirteen) == pytest.approx(0.549, abs=5e-4)
    assert mean(row("BM25, one field", "beir"), thirteen) == pytest.approx(0.4370, abs=5e-5)
    assert mean(row("BM25, two fields", "beir"), thirteen) == pytest.approx(0.4477, abs=5e-5)
    coir = row("E5-mistral", "coir")
    assert mean(coir, list(coir.values)) == pytest.approx(0.5518, abs=5e-5)
    forums = [n for n in row("BM25, one field", "beir").values if n.startswith("cqadupstack-")]
    assert len(forums) == 12
    assert mean(row("BM25, one field", "beir"), forums) == pytest.approx(0.3021, abs=5e-5)


def test_retrievers_have_the_means_that_the_leaderboard_prints() -> None:
    # embeddings-benchmark/leaderboard, column Average; half a unit in its last place, 0.005 %
    averages = {
        "all-MiniLM-L6-v2": 0.4195, "BGE-small-en-v1.5": 0.5168, "BGE-base-en-v1.5": 0.5325,
        "BGE-large-en-v1.5": 0.5429, "E5-small-v2": 0.4904, "E5-base-v2": 0.5029,
        "E5-large-v2": 0.5056, "E5-mistral-7b-instruct": 0.5687,
        "gte-Qwen2-1.5B-instruct": 0.5829, "gte-Qwen2-7B-instruct": 0.6025,
    }  # fmt: skip
    for label, average in averages.items():
        values = [each["nDCG@10"].value for each in row(label, "retrievers").values.values()]
        assert len(values) == 15
        assert fmean(values) == pytest.approx(average, abs=6e-5), label


def test_retrievers_stand_beside_trained_and_untrained_runs_under_their_rules(
    tmp_path: Path,
) -> None:
    for trained in (False, True):
        table = shown(table_with(tmp_path / str(trained), "nfcorpus", trained=trained))
        assert table["all-MiniLM-L6-v2"] == ["0.3159"]
        assert table["BGE-base-en-v1.5, Pyserini"] == ["0.3735"]
    for self_match, expected in (("removed", ["0.6361"]), ("kept", None)):
        table = table_with(tmp_path / self_match, "arguana", convention={"self_match": self_match})
        assert shown(table).get("BGE-base-en-v1.5") == expected
    for title, expected in (("joined", ["0.3371"]), ("none", None)):
        table = table_with(tmp_path / title, "cosqa", convention={"title": title})
        assert shown(table).get("BGE-base-en-v1.5, mteb") == expected


def test_no_digit_is_added_and_none_is_lost() -> None:
    assert published_value("42.0", "percent").text == "0.420"
    assert published_value(".42280", "fraction").text == "0.42280"
    assert published_value("8.69", "percent").text == "0.0869"


def test_rows_stand_beside_the_same_sets_and_stage(tmp_path: Path) -> None:
    zero = shown(table_with(tmp_path / "zero", "scifact", "nq", "fiqa"))
    assert zero["BM25, one field"] == ["0.3055", "0.2361", "0.6789", "0.4068"]  # and their mean
    assert zero["Qwen2.5-VL-7B-Instruct"] == ["0.2484", None, "0.5121", None]
    assert "RepLLaMA" not in zero  # it was trained
    trained = shown(table_with(tmp_path / "trained", "scifact", trained=True))
    assert trained["RepLLaMA"] == ["0.756"]
    assert "Qwen2.5-VL-7B-Instruct" not in trained


def test_another_measure_has_its_own_numbers_or_none(tmp_path: Path) -> None:
    recall = shown(table_with(tmp_path / "r", "scifact", measure="Recall@100"))
    assert recall["BM25, one field"] == ["0.925"]
    assert "PromptReps, hybrid, Llama-3-8B" not in recall
    assert shown(table_with(tmp_path / "m", "scifact", measure="MAP")) == {}


def test_a_group_is_shown_whole_or_not_at_all(tmp_path: Path) -> None:
    languages = [one.name for one in PUBLIC_SETS if one.group == "codesearchnet"]
    whole = shown(table_with(tmp_path / "whole", *languages))
    assert whole["Contriever"] == ["0.3472"]
    assert whole["Qwen2.5-VL-7B-Instruct"] == ["0.2067"]  # the mean of six
    assert shown(table_with(tmp_path / "part", *languages[:5])) == {}


def test_a_number_under_other_rules_is_not_shown(tmp_path: Path) -> None:
    for level, expected in ((2, None), (1, "0.8411")):
        table = table_with(
            tmp_path / str(level),
            "trec-dl-2019",
            trained=True,
            measure="Recall@1000",
            convention={"relevance_level": level},
        )
        assert shown(table).get("Qwen2.5-7B", [None]) == [expected]


def test_sets_of_another_size_have_no_published_numbers(tmp_path: Path) -> None:
    report = Report(retriever="dense", results=(a_set("scifact", [0.5], num_documents=9),))
    run = write_run_directory(tmp_path / "run", [report])
    (table,) = tables_of(entries_in([run]), published=read_published(None))
    assert table.published == ()
