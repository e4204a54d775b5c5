"""Rankings of others in a study: rows beside models, under a name that says what they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from helpers.study_runs import a_set, entries_in, tables_of, write_run_directory
from quarry.errors import UserError
from quarry.evaluation.given_rankings import SCORING
from quarry.study_report.grid import value_grid
from quarry.study_report.measured import measured_in
from quarry.study_report.run_record import read_record
from quarry.types import Report, SetResult

GIVEN_RULES = {"title": "no effect: the ranking is given", "top_k": "all"}


def given(folder: Path, **systems: Sequence[SetResult]) -> Path:
    reports = [Report(retriever=name, results=tuple(found)) for name, found in systems.items()]
    return write_run_directory(folder / "given", reports, settings={"task._target_": SCORING})


def ranking(name: str, values: Sequence[float], **more: Any) -> SetResult:
    rules = {**GIVEN_RULES, **more.pop("convention", {})}
    return a_set(name, values, convention=rules, **more)


def model(folder: Path, values: Sequence[float], *, is_training: bool = False) -> Path:
    name = "trained" if is_training else "dense"
    report = Report(retriever=name, results=(a_set("alpha", values),))
    return write_run_directory(folder / name, [report], is_training=is_training)


@pytest.mark.parametrize("is_training", [False, True])
def test_they_stand_beside_models_and_are_called_what_they_are(
    tmp_path: Path, is_training: bool
) -> None:
    runs = [
        model(tmp_path, [0.5, 0.25], is_training=is_training),
        given(tmp_path, splade=[ranking("alpha", [1.0, 0.5], num_documents=0)]),
    ]
    (table,) = tables_of(entries_in(runs))
    assert table.key == ("supervised_other" if is_training else "zero_shot_other")
    assert [entry.label for entry in table.entries] == ["splade (ranking given)", "qwen-base"]
    assert table.entries[0].stage == "given"
    assert [entry.name for entry in table.models] == ["qwen-base"]
    assert table.base is table.entries[1]  # not a ranking that somebody gave
    grid = value_grid(table)
    assert [len(block) for block in grid.blocks] == [1, 1]
    assert "how their models were trained is not known" in " ".join(grid.caption)


def test_without_a_model_they_have_a_table_of_their_own(tmp_path: Path) -> None:
    run = given(tmp_path, a=[ranking("alpha", [1.0, 0.5])], b=[ranking("alpha", [0.5, 0.5])])
    (table,) = tables_of(entries_in([run]))
    assert (table.key, table.title) == ("given_other", "Rankings given, other sets")
    assert [cells[0].value for cells in table.cells] == [0.75, 0.5]
    assert table.base is table.entries[0]


def test_a_set_that_only_they_have_is_shown(tmp_path: Path) -> None:
    runs = [
        model(tmp_path, [0.5, 0.25]),
        given(tmp_path, a=[ranking("alpha", [1.0, 0.5]), ranking("beta", [0.5])]),
    ]
    (table,) = tables_of(entries_in(runs))
    assert [column.row.name for column in table.columns] == ["alpha", "beta"]


def test_another_convention_is_refused_but_titles_are_no_rule_for_them(tmp_path: Path) -> None:
    own = model(tmp_path, [0.5, 0.25])
    other = given(tmp_path, a=[ranking("alpha", [1.0, 0.5], convention={"recall": "capped"})])
    with pytest.raises(UserError) as info:
        tables_of(entries_in([own, other]))
    lines = [line for line in str(info.value).splitlines() if line.startswith("- alpha: ")]
    assert len(lines) == 1
    assert lines[0].startswith("- alpha: convention recall is capped in")


def test_a_run_that_was_stopped_has_no_results(tmp_path: Path) -> None:
    run = write_run_directory(tmp_path / "x", [], settings={"task._target_": SCORING})
    (found,) = measured_in(read_record(run, problem="stopped"), uses_encoder=True)
    assert (found.stage, found.name, found.seed) == ("given", "x (ranking given)", None)
    assert found.report.results == ()
