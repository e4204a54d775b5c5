"""The folder of a report: what is in it, what the page says, and what the figures show."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.study_runs import a_set, entries_in, tables_of, values_of, write_run_directory
from quarry.metrics.bootstrap import bootstrap_intervals
from quarry.study_report.figures.cost import device_hours, plot_cost
from quarry.study_report.figures.heat_map import plot_heat_map, scaled
from quarry.study_report.figures.learning_curves import (
    curves_by_subject,
    mean_curve,
    plot_learning_curves,
)
from quarry.study_report.figures.specialisations import plot_specialisations, specialisations_of
from quarry.study_report.figures.stages import pairs_of, plot_stages
from quarry.study_report.report_files import StudyReport, write_study_report
from quarry.study_report.table import StudyTable
from quarry.types import Report

MODELS = ("qwen-base", "qwen-coder", "qwen-coder-instruct")
MEMBERS = {"base": ["qwen-base"], "code": ["qwen-coder", "qwen-coder-instruct"]}


def study(folder: Path) -> list[StudyTable]:
    """Three models, as they came and trained with two seeds, on two sets."""
    runs = []
    for number, model in enumerate(MODELS):
        for seed in (1, 2):
            reports = [
                Report(
                    retriever=name,
                    results=tuple(
                        a_set(s, values_of(quality, num_queries=30, seed=10 * place + shift))
                        for place, s in enumerate(("alpha", "beta"), start=1)
                    ),
                )
                for name, quality, shift in (
                    ("bm25", 0.3, 9),
                    ("untrained", 0.1 + 0.05 * number, number),
                    ("trained", 0.5 + 0.05 * number, number + 3 * seed),
                )
            ]
            runs.append(
                write_run_directory(
                    folder / f"{model}-{seed}",
                    reports,
                    model=model,
                    is_training=True,
                    seed=seed,
                    training_s=3600.0 * (1 + number),
                    curve=[(0, 0.1), (10, 0.2 + 0.1 * seed)],
                )
            )
    return tables_of(entries_in(runs))


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> list[StudyTable]:
    return study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def written(tables: list[StudyTable], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write_study_report(report(tables, left_out=("job_3: killed",)), folder)
    return folder


def report(tables: list[StudyTable], *, left_out: tuple[str, ...] = ()) -> StudyReport:
    return StudyReport(
        title="Study x",
        tables=tuple(tables),
        specialisations=MEMBERS,
        left_out=left_out,
    )


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        array = np.asarray(image.convert("RGB"))
    assert min(array.shape[:2]) >= 300
    assert len(np.unique(array.reshape(-1, 3), axis=0)) > 20
    return array


def test_the_folder_has_tables_in_three_formats_and_figures_in_two(written: Path) -> None:
    names = {path.relative_to(written).as_posix() for path in written.rglob("*.*")}
    for stage in ("zero_shot", "supervised"):
        for ending in ("tex", "csv"):
            assert f"tables/{stage}_other.{ending}" in names
            assert f"tables/{stage}_other_differences.{ending}" in names
    figures = ("zero_shot_other_heat_map", "supervised_other_specialisations", "stages",
               "learning_curves", "supervised_other_cost")  # fmt: skip
    for figure in figures:
        assert (written / "figures" / f"{figure}.pdf").read_bytes().startswith(b"%PDF")
        pixels(written / "figures" / f"{figure}.png")
    assert "figures/zero_shot_other_cost.png" not in names  # nothing was trained
    document = (written / "report.tex").read_text()
    assert r"\input{tables/zero_shot_other.tex}" in document
    assert {"report.md", "report.json", "values.csv"} <= names


def test_the_page_links_its_figures_and_says_where_rows_come_from(written: Path) -> None:
    page = (written / "report.md").read_text()
    assert page.startswith("# Study x\n\n## Zero-shot, other sets\n")
    for line in page.splitlines():
        if line.startswith("!["):
            assert (written / line.partition("](")[2].rstrip(")")).is_file()
    assert "## Missing\n\n- job_3: killed" in page
    assert "- qwen-coder (seeds 1, 2): `qwen-coder-1`, `qwen-coder-2`" in page
    assert "## Published" not in page


def test_the_same_numbers_make_the_same_files(tables: list[StudyTable], tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_study_report(report(tables[1:]), tmp_path / name)
    files = [path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*")]
    assert len(files) > 10
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


def test_what_an_older_report_left_is_gone_and_nothing_else(
    tables: list[StudyTable], tmp_path: Path
) -> None:
    old = tmp_path / "tables" / "supervised_other.tex"
    old.parent.mkdir()
    for path in (old, tmp_path / "mine.txt"):
        path.write_text("x")
    (tmp_path / "report.json").write_text('{"files": ["tables/supervised_other.tex", "../x"]}')
    (tmp_path.parent / "x").write_text("x")
    write_study_report(report(tables[:1]), tmp_path)
    names = {path.name for path in tmp_path.rglob("*.*")}
    assert (tmp_path.parent / "x").exists()
    assert "zero_shot_other.tex" in names
    assert "supervised_other.tex" not in names
    assert "mine.txt" in names


def test_colors_run_over_the_models_of_a_column() -> None:
    values = np.array([[9.0, 0.0], [1.0, 2.0], [3.0, 2.0], [2.0, np.nan]])
    found = scaled(values, [False, True, True, True])
    assert found[:, 0].tolist() == [1.0, 0.0, 1.0, 0.5]
    assert found[:3, 1].tolist() == [0.5, 0.5, 0.5]
    assert np.isnan(found[3, 1])


def test_a_bar_is_the_mean_over_the_models_of_a_specialisation(tables: list[StudyTable]) -> None:
    table = tables[-1]
    base, code = specialisations_of(table, MEMBERS)
    means = {e.label: table.row(e)[-1].value for e in table.models}
    assert base.value == means["qwen-base"]
    assert code.value == pytest.approx((means["qwen-coder"] + means["qwen-coder-instruct"]) / 2)
    assert (base.label, code.label) == ("base", "code (mean of 2)")
    for bar in (base, code):
        assert bar.interval is not None
        low, high = bar.interval
        assert low < bar.value < high
    alone = specialisations_of(table, {})
    assert [bar.name for bar in alone] == list(MODELS)


def test_the_interval_of_one_set_is_that_of_its_queries(tmp_path: Path) -> None:
    values = values_of(0.5, num_queries=200, seed=1)
    runs = [
        write_run_directory(
            tmp_path / model,
            [Report(retriever="dense", results=(a_set("alpha", values),))],
            model=model,
        )
        for model in MODELS[1:]
    ]
    (bar,) = specialisations_of(tables_of(entries_in(runs))[0], MEMBERS)
    per_query = {"m": {f"q{i}": float(value) for i, value in enumerate(values)}}
    expected = bootstrap_intervals(per_query)["m"]
    assert bar.interval == pytest.approx(expected, abs=0.01)


def test_variants_of_one_model_are_no_mean(tmp_path: Path) -> None:
    runs = [
        write_run_directory(
            tmp_path / prompt,
            [Report(retriever="dense", results=(a_set("alpha", [value]),))],
            settings={"prompt.query": prompt},
            options={"prompt": prompt},
        )
        for prompt, value in (("echo", 0.2), ("none", 0.4))
    ]
    (table,) = tables_of(entries_in(runs))
    bars = specialisations_of(table, MEMBERS)
    assert [(bar.name, bar.value) for bar in bars] == [
        ("base, prompt=echo", 0.2),
        ("base, prompt=none", 0.4),
    ]


def test_a_specialisation_without_a_value_is_shown_as_missing(tmp_path: Path) -> None:
    runs = [
        write_run_directory(
            tmp_path / model,
            [Report(retriever="dense", results=results, failures=failures)],
            model=model,
        )
        for model, results, failures in (
            ("qwen-base", (a_set("alpha", [0.5]), a_set("beta", [0.5])), {}),
            ("qwen-coder", (a_set("alpha", [0.5]),), {"beta": "x"}),
            ("qwen-vl", (a_set("alpha", [0.5]), a_set("beta", [0.7])), {}),
        )
    ]
    (table,) = tables_of(entries_in(runs))
    bars = {bar.label: bar.value for bar in specialisations_of(table, MEMBERS)}
    assert bars == {"base": 0.5, "code": None, "qwen-vl": 0.6}
    assert plot_specialisations(table, MEMBERS, tmp_path / "bars.png")
    pixels(tmp_path / "bars.png")


def test_points_before_and_after_training_are_of_one_model(tables: list[StudyTable]) -> None:
    before, after = tables
    pairs = pairs_of(before, after)
    assert [name for name, _, _ in pairs] == list(MODELS)
    for name, x, y in pairs:
        (first,) = (e for e in before.models if e.name == name)
        (second,) = (e for e in after.models if e.name == name)
        assert (x, y) == (before.row(first)[-1], after.row(second)[-1])


def test_curves_are_means_over_seeds_and_drawn_once(tables: list[StudyTable]) -> None:
    entries = [entry for table in tables for entry in table.models]
    ((subject, curves),) = curves_by_subject(entries).items()
    assert subject == ("nDCG@10", ("alpha",))
    assert list(curves) == list(MODELS)
    assert all(len(seeds) == 2 for seeds in curves.values())
    assert mean_curve(curves["qwen-base"]) == [(0, 0.1), (10, pytest.approx(0.35))]


def test_hours_are_those_of_all_devices(tables: list[StudyTable]) -> None:
    before, after = tables
    # an hour for the first model, two for the second, on eight devices
    assert [device_hours(e) for e in after.models[:2]] == [
        (8.0, "NVIDIA H100 80GB HBM3"),
        (16.0, "NVIDIA H100 80GB HBM3"),
    ]
    assert device_hours(before.models[0]) is None


def test_what_there_is_nothing_to_draw_of_is_not_drawn(tmp_path: Path) -> None:
    run = write_run_directory(
        tmp_path / "run", [Report(retriever="dense", results=(a_set("alpha", [0.5]),))]
    )
    (table,) = tables_of(entries_in([run]))
    path = tmp_path / "new" / "x.png"
    assert plot_heat_map(table, path) == ()
    assert plot_specialisations(table, MEMBERS, path) == ()
    assert plot_cost(table, path) == ()
    assert plot_stages([table], path) == ()
    assert plot_learning_curves(table.models, path) == ()
    assert not path.parent.exists()


@pytest.mark.parametrize("models", [MODELS[:1], MODELS[:2]])
@pytest.mark.parametrize("sets", [("alpha",), ("alpha", "beta")])
def test_a_report_of_one_or_two_models_has_figures_that_show_something(
    models: tuple[str, ...], sets: tuple[str, ...], tmp_path: Path
) -> None:
    runs = [
        write_run_directory(
            tmp_path / model,
            [
                Report(retriever=name, results=tuple(a_set(s, [value]) for s in sets))
                for name, value in (("bm25", 0.3), ("untrained", 0.1), ("trained", 0.5))
            ],
            model=model,
            is_training=True,
        )
        for model in models
    ]
    write_study_report(report(tables_of(entries_in(runs))), tmp_path / "report")
    names = {path.stem for path in (tmp_path / "report").rglob("*.png")}
    if len(models) == 1:
        assert names == set()
    else:
        assert "stages" in names
        assert ("supervised_other_heat_map" in names) == (len(sets) == 2)


@pytest.mark.filterwarnings("error")
def test_any_name_can_be_drawn(tables: list[StudyTable], tmp_path: Path) -> None:
    names = dict(zip(MODELS, ("$x$ %s {0}", "_hidden\nb", "long name " * 20), strict=True))
    renamed = [
        replace(
            table,
            entries=tuple(replace(e, label=names.get(e.name, e.name)) for e in table.entries),
        )
        for table in tables
    ]
    write_study_report(report([replace(t, base=t.entries[1]) for t in renamed]), tmp_path)
    for path in (tmp_path / "figures").glob("*.png"):
        assert max(pixels(path).shape) < 2500, path
