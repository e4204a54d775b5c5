"""From runs to rows: stages, models that another run trained, seeds, labels, repeated values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from helpers.study_runs import BM25_SETTINGS, a_set, entries_in, write_run_directory
from quarry.errors import UserError
from quarry.study_report.entries import Entry, entries_of
from quarry.study_report.measured import measured_in
from quarry.study_report.run_record import read_record
from quarry.types import Report


def report(name: str, value: float = 0.5, set_name: str = "alpha") -> Report:
    return Report(retriever=name, results=(a_set(set_name, [value, value]),))


def shown(found: Sequence[Entry]) -> list[tuple[str, str]]:
    return [(entry.stage, entry.label) for entry in found]


def test_a_training_run_has_a_baseline_a_model_as_it_came_and_a_trained_one(
    tmp_path: Path,
) -> None:
    reports = [report(name) for name in ("bm25", "untrained", "trained", "best", "hybrid")]
    run = write_run_directory(tmp_path / "run", reports, is_training=True)
    assert shown(entries_in([run])) == [
        ("baseline", "bm25"),
        ("zero_shot", "qwen-base"),
        ("supervised", "qwen-base"),
        ("supervised", "qwen-base (best)"),
        ("supervised", "qwen-base (hybrid)"),
    ]


def test_an_evaluation_has_its_baseline_and_its_model(tmp_path: Path) -> None:
    pair = write_run_directory(tmp_path / "pair", [report("bm25"), report("dense")])
    none = {"baseline": {"_target_": "quarry.retrieval.retriever.no_retriever"}}
    alone = write_run_directory(
        tmp_path / "alone", [report("dense"), report("dense-bf16")], model="qwen-vl", settings=none
    )
    bm25 = write_run_directory(
        tmp_path / "bm25_alone", [report("bm25")], settings={"retriever": BM25_SETTINGS}
    )
    assert shown(entries_in([pair, alone, bm25])) == [
        ("baseline", "bm25"),  # the same settings as a baseline and by itself: one row
        ("zero_shot", "qwen-base"),
        ("zero_shot", "qwen-vl"),
        ("zero_shot", "qwen-vl (bf16)"),
    ]


def test_other_settings_of_a_baseline_are_another_row(tmp_path: Path) -> None:
    first = write_run_directory(tmp_path / "a", [report("bm25"), report("dense")])
    other = {**BM25_SETTINGS, "k1": 0.82}
    second = write_run_directory(
        tmp_path / "b", [report("bm25", 0.6), report("dense")], settings={"baseline": other}
    )
    labels = [label for stage, label in shown(entries_in([first, second])) if stage == "baseline"]
    assert labels == ["bm25, k1=0.9", "bm25, k1=0.82"]


def test_runs_that_differ_in_the_seed_alone_are_one_row(tmp_path: Path) -> None:
    runs = [
        write_run_directory(
            tmp_path / f"{seed}-{lr}",
            [report("untrained", 0.1), report("trained", seed / 100)],
            is_training=True,
            seed=seed,
            settings={"optimizer.lr": lr, "trainer.devices": seed, "paths.store_dir": str(seed)},
        )
        for lr in (1e-4, 1e-3)
        for seed in (42, 43)
    ]
    found = entries_in(runs)
    assert shown(found) == [
        ("zero_shot", "qwen-base"),
        ("supervised", "qwen-base, lr=0.0001"),
        ("supervised", "qwen-base, lr=0.001"),
    ]
    assert found[1].seeds == ["42", "43"]
    assert [found[1].results[seed]["alpha"].metrics["nDCG@10"] for seed in ("42", "43")] == [
        0.42,
        0.43,
    ]
    assert found[0].seeds == [None]  # training has no part in it
    assert found[0].remarks == ()


def test_a_row_is_named_by_the_experiment_that_all_of_its_runs_have(tmp_path: Path) -> None:
    def runs(folder: Path, experiments: Sequence[str]) -> list[Path]:
        ways = [(1e-4, "a"), (1e-4, "b"), (1e-3, "a"), (1e-4, "a")]
        return [
            write_run_directory(
                folder / str(place),
                [report("trained")],
                is_training=True,
                seed=place,
                settings={"optimizer.lr": lr, "data.path": path},
                options={"experiment": experiment},
            )
            for place, ((lr, path), experiment) in enumerate(zip(ways, experiments, strict=True))
        ]

    same = entries_in(runs(tmp_path / "same", ["plain", "mined", "fast", "plain"]))
    assert [(entry.variant, entry.seeds) for entry in same] == [
        ("experiment=plain", ["0", "3"]),
        ("experiment=mined", ["1"]),
        ("experiment=fast", ["2"]),
    ]
    other = entries_in(runs(tmp_path / "other", ["plain", "mined", "fast", "copy"]))
    assert len(other) == 3
    assert not any("experiment" in entry.variant for entry in other)


def test_an_evaluation_of_a_trained_model_fills_the_row_of_its_training(tmp_path: Path) -> None:
    trained = write_run_directory(
        tmp_path / "trained", [report("trained")], model="qwen-coder", is_training=True, seed=7
    )
    (trained / "model").mkdir()
    later = write_run_directory(
        tmp_path / "later",
        [report("dense", 0.7, "beta")],
        model="local",
        settings={"model.path": str(trained / "model"), "trainer.precision": "bf16-mixed"},
    )
    (entry,) = entries_in([later, trained])
    assert (entry.stage, entry.label, entry.seeds) == ("supervised", "qwen-coder", ["7"])
    assert set(entry.results["7"]) == {"alpha", "beta"}
    best = trained / "checkpoints" / "best"
    best.mkdir(parents=True)
    of_best = write_run_directory(
        tmp_path / "of_best", [report("dense")], model="local", settings={"model.path": str(best)}
    )
    other_prompt = write_run_directory(
        tmp_path / "other",
        [report("dense")],
        model="local",
        settings={"model.path": str(trained), "prompt.query": "other"},
        options={"prompt": "echo"},
    )
    labels = [label for _, label in shown(entries_in([trained, of_best, other_prompt]))]
    assert labels == [
        "qwen-coder, prompt=promptreps",
        "qwen-coder (best), prompt=promptreps",
        "qwen-coder, prompt=echo",
    ]


def test_a_model_from_elsewhere_is_as_it_came_unless_it_was_saved_here(tmp_path: Path) -> None:
    for name, path in (("hub", "BAAI/bge-base"), ("folder", str(tmp_path / "some"))):
        (tmp_path / "some").mkdir(exist_ok=True)
        run = write_run_directory(
            tmp_path / name, [report("dense")], model="local", settings={"model.path": path}
        )
        assert shown(entries_in([run])) == [("zero_shot", Path(path).name)]
    (tmp_path / "some" / "quarry_contract.json").write_text("{}")
    assert shown(entries_in([tmp_path / "folder"])) == [("supervised", "some")]


def test_a_model_folder_that_is_gone_is_told(tmp_path: Path) -> None:
    run = write_run_directory(
        tmp_path / "run",
        [report("dense")],
        model="local",
        settings={"model.path": str(tmp_path / "gone")},
    )
    with pytest.raises(UserError, match="unknown whether the model was trained"):
        entries_in([run])


def test_sizes_are_told_where_there_are_several(tmp_path: Path) -> None:
    runs = [
        write_run_directory(
            tmp_path / f"{model}-{size}",
            [report("dense")],
            model=model,
            settings={"model.size": size},
        )
        for model, size in (("qwen-base", "7B"), ("qwen-base", "1.5B"), ("qwen-vl", "7B"))
    ]
    assert [label for _, label in shown(entries_in(runs))] == [
        "qwen-base 7B",
        "qwen-base 1.5B",
        "qwen-vl 7B",
    ]


def test_a_value_that_was_measured_twice_is_shown_once_and_told(tmp_path: Path) -> None:
    first = write_run_directory(tmp_path / "first", [report("dense", 0.5)])
    second = write_run_directory(tmp_path / "second", [report("dense", 0.75)])
    (entry,) = entries_in([first, second])
    assert entry.results[None]["alpha"].metrics["nDCG@10"] == 0.5
    (remark,) = entry.remarks
    assert remark.startswith("alpha was measured twice under the same settings (nDCG@10 0.500000")
    assert f"shown is {first}, not {second}" in remark


def test_measures_of_two_runs_stand_together(tmp_path: Path) -> None:
    result = a_set("alpha", [0.5, 0.5], measure="MAP")
    first = write_run_directory(tmp_path / "first", [report("dense", 0.5)])
    second = write_run_directory(
        tmp_path / "second", [Report(retriever="dense", results=(result,))]
    )
    (entry,) = entries_in([first, second])
    assert entry.results[None]["alpha"].metrics == {"nDCG@10": 0.5, "MAP": 0.5}
    assert entry.remarks == ()


def test_rows_come_in_a_given_order_and_under_other_names(tmp_path: Path) -> None:
    runs = [
        write_run_directory(tmp_path / model, [report("dense")], model=model)
        for model in ("mine", "qwen-vl", "qwen-base")
    ]
    found = entries_in(runs, order=["qwen-base", "qwen-vl"], labels={"qwen-vl": "Qwen2.5-VL"})
    assert [entry.label for entry in found] == ["qwen-base", "Qwen2.5-VL", "mine"]
    with pytest.raises(UserError, match=r"task\.labels: there is no row 'qwen-r1' \(there are 'mi"):
        entries_in(runs, labels={"qwen-r1": "x"})
    with pytest.raises(UserError, match="'mine' would name two rows"):
        entries_in(runs, labels={"qwen-vl": "mine"})


def test_a_training_without_an_evaluation_has_the_results_of_a_later_one(tmp_path: Path) -> None:
    trained = write_run_directory(tmp_path / "trained", [], is_training=True, training_s=3600)
    later = write_run_directory(
        tmp_path / "later", [report("dense")], model="local", settings={"model.path": str(trained)}
    )
    records = [read_record(trained, problem="no metrics.json"), read_record(later)]
    measured = [each for record in records for each in measured_in(record, uses_encoder=True)]
    (entry,) = entries_of(measured, labels={})
    assert (entry.stage, entry.unfinished) == ("supervised", {})
    assert entry.results["42"]["alpha"].metrics["nDCG@10"] == 0.5
    assert [cost.training_device_hours for cost in entry.training_costs] == [8.0]
