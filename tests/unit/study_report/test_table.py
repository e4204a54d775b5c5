"""Tables by hand: means, seeds, groups, what is missing, and tests against the base."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import pytest

from helpers.study_runs import a_set, entries_in, tables_of, write_run_directory
from quarry.errors import UserError
from quarry.evaluation.benchmarks.suite import PUBLIC_SETS
from quarry.evaluation.significance_test import SignificanceTest
from quarry.study_report.entries import entries_of
from quarry.study_report.measured import measured_in
from quarry.study_report.run_record import read_record
from quarry.study_report.table import StudyTable
from quarry.types import Report, SetResult

PUBLIC = {one.name: one for one in PUBLIC_SETS}


def public(name: str, values: Sequence[float], measure: str = "nDCG@10") -> SetResult:
    """As if the public set had been measured; a few queries stand for all."""
    one = PUBLIC[name]
    return a_set(
        name,
        values,
        measure=measure,
        num_queries=one.num_queries,
        num_documents=one.num_documents,
        group=one.group,
    )


def dense(folder: Path, model: str, *results: SetResult, failures: dict | None = None) -> Path:
    report = Report(retriever="dense", results=results, failures=failures or {})
    return write_run_directory(folder / model, [report], model=model)


def values(table: StudyTable) -> list[list[float | None]]:
    return [[c.value if c.value is None else round(c.value, 6) for c in r] for r in table.cells]


def test_each_suite_and_stage_has_its_table(tmp_path: Path) -> None:
    zero = dense(tmp_path, "qwen-base", public("scifact", [0.5]), public("cosqa", [0.25]))
    reports = [
        Report(retriever=name, results=(public("msmarco-dev", [value], "MRR@10"),
                                        public("trec-dl-2019", [value])))
        for name, value in (("bm25", 0.2), ("trained", 0.4))
    ]  # fmt: skip
    trained = write_run_directory(tmp_path / "trained", reports, is_training=True)
    tables = tables_of(entries_in([zero, trained]))
    assert [(t.key, t.title) for t in tables] == [
        ("zero_shot_beir", "Zero-shot, BEIR"),
        ("zero_shot_coir", "Zero-shot, CoIR"),
        ("supervised_msmarco", "Supervised, MS MARCO and TREC DL"),
    ]
    last = tables[-1]
    assert [(c.row.name, c.measure) for c in last.columns] == [
        ("msmarco-dev", "MRR@10"),
        ("trec-dl-2019", "nDCG@10"),
    ]
    assert not last.has_average  # of two measures there is no mean
    assert [entry.label for entry in last.entries] == ["bm25", "qwen-base"]


def test_a_public_set_that_was_cut_is_another_set(tmp_path: Path) -> None:
    run = dense(tmp_path, "one", a_set("scifact", [0.5], num_documents=10))
    assert [table.key for table in tables_of(entries_in([run]))] == ["zero_shot_other"]


def test_means_are_over_columns_and_a_group_is_one(tmp_path: Path) -> None:
    run = dense(
        tmp_path,
        "one",
        public("cqadupstack-android", [0.2, 0.4]),
        public("cqadupstack-gis", [0.5]),
        public("scifact", [0.8, 1.0]),
    )
    (table,) = tables_of(entries_in([run]))
    # android 0.3 and gis 0.5 make 0.4, scifact 0.9; the mean of the two columns
    assert values(table) == [[0.4, 0.9, 0.65]]
    assert [column.row.label for column in table.columns] == ["cqadupstack (mean of 2)", "scifact"]
    (chosen,) = tables_of(entries_in([run]), sets=["scifact", "cqadupstack"])
    assert values(chosen) == [[0.9, 0.4, 0.65]]
    with pytest.raises(UserError, match=r"task\.sets: no run has measured nq .*cqadup"):
        tables_of(entries_in([run]), sets=["nq"])


def test_seeds_have_a_mean_and_a_sample_deviation(tmp_path: Path) -> None:
    runs = [
        write_run_directory(
            tmp_path / str(seed),
            [Report(retriever="trained", results=(a_set("alpha", [a]), a_set("beta", [b])))],
            is_training=True,
            seed=seed,
        )
        for seed, a, b in ((1, 0.2, 0.8), (2, 0.3, 0.5), (3, 0.7, 0.2))
    ]
    (table,) = tables_of(entries_in(runs))
    alpha, _, mean = table.cells[0]
    assert alpha.value == pytest.approx(0.4)
    assert alpha.deviation == pytest.approx(stdev([0.2, 0.3, 0.7]))
    assert mean.value == pytest.approx(fmean([0.5, 0.4, 0.45]))
    assert mean.deviation == pytest.approx(stdev([0.5, 0.4, 0.45]))
    assert (mean.num_seeds, mean.reason) == (3, None)


def test_what_is_missing_is_missing_and_says_why(tmp_path: Path) -> None:
    whole = dense(tmp_path, "whole", a_set("alpha", [0.5]), a_set("beta", [0.5]))
    failed = dense(tmp_path, "failed", a_set("alpha", [0.9]), failures={"beta": "out of memory"})
    never = dense(tmp_path, "never", a_set("beta", [0.9]))
    other = dense(tmp_path, "other", a_set("alpha", [0.9]), a_set("beta", [0.9], measure="MAP"))
    (table,) = tables_of(entries_in([whole, failed, never, other]))
    assert values(table) == [
        [0.5, 0.5, 0.5],
        [0.9, None, None],
        [None, 0.9, None],
        [0.9, None, None],
    ]
    reasons = [next(c.reason for c in row if c.reason) for row in table.cells[1:]]
    assert reasons == [
        "beta failed: out of memory",
        "alpha was not evaluated",
        "beta has no nDCG@10, only MAP",
    ]
    assert (1, 1) not in table.comparisons


def test_a_run_that_was_stopped_is_a_row_without_values(tmp_path: Path) -> None:
    whole = dense(tmp_path, "whole", a_set("alpha", [0.5]))
    stopped = write_run_directory(tmp_path / "x", [], model="stopped")
    measured_elsewhere = write_run_directory(
        tmp_path / "y", [], model="elsewhere", settings={"benchmark.sets": ["beta"]}
    )
    records = [
        read_record(whole),
        read_record(stopped, problem="killed"),
        read_record(measured_elsewhere, problem="killed"),
    ]
    found = [each for record in records for each in measured_in(record, uses_encoder=True)]
    (table,) = tables_of(entries_of(found, labels={}))
    assert [entry.label for entry in table.entries] == ["whole", "stopped"]
    assert (table.cells[1][0].value, table.cells[1][0].reason) == (None, "killed")


def test_of_some_seeds_it_is_told_how_many(tmp_path: Path) -> None:
    runs = [
        write_run_directory(
            tmp_path / str(seed),
            [Report(retriever="trained", results=results, failures=failures)],
            is_training=True,
            seed=seed,
        )
        for seed, results, failures in (
            (1, (a_set("alpha", [0.5]), a_set("beta", [0.5])), {}),
            (2, (a_set("alpha", [0.7]),), {"beta": "no network"}),
        )
    ]
    (table,) = tables_of(entries_in(runs))
    assert table.cells[0][1].reason == "1 of 2 seeds; beta failed: no network"
    assert table.cells[0][1].num_seeds == 1


def exact(differences: np.ndarray, weights: np.ndarray) -> float:
    parts = differences * weights
    sums = [abs(np.dot(signs, parts)) for signs in product((1, -1), repeat=len(parts))]
    return float(np.mean([total >= abs(parts.sum()) - 1e-12 for total in sums]))


def test_comparisons_are_exact_tests_corrected_over_the_table(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    base, first, second = ({"alpha": rng.random(5), "beta": rng.random(3)} for _ in range(3))
    second = {name: found + 2.0 for name, found in second.items()}
    runs = [
        dense(tmp_path, model, *(a_set(name, found) for name, found in own.items()))
        for model, own in (("qwen-base", base), ("first", first), ("second", second))
    ]
    (table,) = tables_of(entries_in(runs))
    assert table.base is not None
    assert table.base.label == "qwen-base"
    expected = {}
    for row, own in ((1, first), (2, second)):
        by_set = [own[name] - base[name] for name in ("alpha", "beta")]
        expected[row, 0] = exact(by_set[0], np.full(5, 1 / 5))
        expected[row, 1] = exact(by_set[1], np.full(3, 1 / 3))
        weights = np.array([1 / 10] * 5 + [1 / 6] * 3)
        expected[row, 2] = exact(np.concatenate(by_set), weights)
    found = {place: comparison.p_value for place, comparison in table.comparisons.items()}
    assert found == pytest.approx(expected)
    assert expected[2, 2] == 2 / 2**8
    # Holm: the smallest of six times six
    smallest = table.comparisons[2, 2]
    assert smallest.corrected == pytest.approx(6 * 2 / 2**8)
    assert smallest.is_significant
    assert smallest.num_queries == 8
    assert table.difference(2, 2) == pytest.approx(
        fmean([np.mean(second[n]) - np.mean(base[n]) for n in ("alpha", "beta")])
    )
    assert table.difference(0, 0) is None


def test_seeds_are_averaged_query_by_query_before_the_test(tmp_path: Path) -> None:
    base = dense(tmp_path, "qwen-base", a_set("alpha", [0.5, 0.5]))
    trained = [
        write_run_directory(
            tmp_path / f"{model}-{seed}",
            [Report(retriever="trained", results=(a_set("alpha", found),))],
            model=model,
            is_training=True,
            seed=seed,
        )
        for model, seed, found in (
            ("qwen-base", 1, [0.5, 0.5]),
            ("other", 1, [0.9, 0.3]),
            ("other", 2, [0.7, 0.9]),
        )
    ]
    table = tables_of(entries_in([base, *trained]))[-1]
    # means over seeds 0.8 and 0.6, differences 0.3 and 0.1: of four sums two are as far
    assert table.comparisons[1, 0].p_value == 2 / 4


def test_the_base_can_be_chosen(tmp_path: Path) -> None:
    runs = [dense(tmp_path, model, a_set("alpha", [0.5])) for model in ("one", "two")]
    found = entries_in(runs)
    tables = [tables_of(found)[0], tables_of(found, base="two")[0]]
    assert [table.base.label for table in tables if table.base] == ["one", "two"]
    with pytest.raises(
        UserError, match=r"task\.base=three: no table has .* \(there are 'one', 'two'"
    ):
        tables_of(found, base="three")


def test_so_few_permutations_that_nothing_could_be_found_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    runs = [dense(tmp_path, model, a_set("alpha", rng.random(50))) for model in ("one", "two")]
    with pytest.raises(UserError, match=r"task\.num_permutations=10: .* 1 comparisons"):
        tables_of(entries_in(runs), test=SignificanceTest(num_permutations=10))
    with pytest.raises(UserError, match=r"task\.alpha=0"):
        SignificanceTest(alpha=0)


def test_a_table_for_each_measure_that_is_asked_for(tmp_path: Path) -> None:
    run = dense(
        tmp_path,
        "one",
        a_set("alpha", [0.5], more={"MAP": 0.25}),
        a_set("beta", [0.75], more={"Recall@100": 0.5}),
    )
    tables = tables_of(entries_in([run]), measures=["nDCG@10", "MAP", "MRR@10"])
    assert [table.key for table in tables] == ["zero_shot_other_ndcg_10", "zero_shot_other_map"]
    assert values(tables[0]) == [[0.5, 0.75, 0.625]]
    assert values(tables[1]) == [[0.25]]  # beta has no MAP anywhere


def test_baselines_alone_have_a_table(tmp_path: Path) -> None:
    run = write_run_directory(
        tmp_path / "bm25_alone",
        [Report(retriever="bm25", results=(a_set("alpha", [0.5]),))],
        settings={"retriever.k1": 0.9},
    )
    (table,) = tables_of(entries_in([run]))
    assert (table.title, values(table)) == ("Baselines, other sets", [[0.5]])
