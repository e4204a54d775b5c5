"""summary.json and what loggers get of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from unittest.mock import create_autospec

from pytorch_lightning.loggers import CSVLogger

from helpers.study_runs import a_set
from quarry.evaluation.run_cost import RunCost
from quarry.runtime.run_directory import RunDirectory
from quarry.tasks.summary import flat_summary, summary_of, table_of_sets, write_summary
from quarry.types import Report

COST = RunCost(
    wall_hours=0.5,
    training_s=900.0,
    encoding_s=60.0,
    searching_s=6.0,
    num_devices=8,
    device="NVIDIA H200",
    num_trained_tokens=90_000,
    peak_device_memory_gib=60.0,
    peak_host_memory_gib=4.0,
)
REPORTS = [
    Report(retriever="bm25", results=(a_set("scifact", [0.25]),)),
    Report(
        retriever="trained",
        results=(
            a_set("scifact", [0.5]),
            a_set("go", [0.25], group="code"),
            a_set("php", [0.75], group="code"),
        ),
    ),
]


def test_results_go_by_the_names_of_the_logs_and_others_stand_beside() -> None:
    summary = summary_of(REPORTS, of="trained", cost=COST)
    assert summary["results"] == {
        "scifact/ndcg_at_10": 0.5,
        "go/ndcg_at_10": 0.25,
        "php/ndcg_at_10": 0.75,
        "code/ndcg_at_10": 0.5,
        "mean/ndcg_at_10": 0.5,
    }
    assert summary["beside"] == {"bm25/scifact/ndcg_at_10": 0.25, "bm25/mean/ndcg_at_10": 0.25}
    cost = summary["cost"]
    assert (cost["device_hours"], cost["gpu_hours"], cost["tokens_per_s"]) == (4.0, 4.0, 100.0)
    assert RunCost.from_json(cost) == COST


def test_a_run_without_an_evaluation_has_its_loss() -> None:
    summary = summary_of([], {"train/loss": 1.5}, of="trained", cost=COST)
    assert (summary["results"], summary["beside"]) == ({"train/loss": 1.5}, {})


def test_what_is_not_known_is_null_in_the_file_and_nowhere_else(tmp_path: Path) -> None:
    cost = replace(COST, device="CPU", peak_device_memory_gib=None, training_s=0.0)
    logger = create_autospec(CSVLogger, instance=True)
    run = RunDirectory(tmp_path)
    write_summary(summary_of(REPORTS, of="trained", cost=cost), REPORTS, run, [logger])
    stored = json.loads((tmp_path / "summary.json").read_text())
    assert stored["cost"]["peak_device_memory_gib"] is None
    assert stored["cost"]["tokens_per_s"] is None
    assert (stored["cost"]["gpu_hours"], stored["cost"]["device_hours"]) == (0.0, 4.0)
    (numbers,) = logger.log_metrics.call_args.args
    assert numbers["results/scifact/ndcg_at_10"] == 0.5
    assert numbers["cost/num_devices"] == 8.0
    assert not numbers.keys() & {"cost/device", "cost/tokens_per_s"}
    assert flat_summary(stored)["cost/device"] == "CPU"


def test_the_table_has_a_row_for_each_retriever_and_set_and_gaps_for_what_is_missing() -> None:
    more = Report(retriever="rerun", results=(a_set("scifact", [0.5, 1.0], measure="MRR@10"),))
    columns, rows = table_of_sets([*REPORTS, more])
    assert columns == ["retriever", "set", "group", "queries", "documents", "nDCG@10", "MRR@10"]
    assert rows[0] == ["bm25", "scifact", None, 1, 100, 0.25, None]
    assert rows[2] == ["trained", "go", "code", 1, 100, 0.25, None]
    assert rows[-1] == ["rerun", "scifact", None, 2, 100, None, 0.75]
