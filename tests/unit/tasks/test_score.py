"""The score task: what it asks for, what it writes, and that published numbers come out of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate

from helpers.commands import ROOT
from quarry.config.schema import register_schemas
from quarry.errors import UserError
from quarry.runtime import task_output
from quarry.tasks.score import score as score_task


@pytest.fixture(scope="module", autouse=True)
def _conf() -> Iterator[None]:
    register_schemas()
    with initialize_config_dir(config_dir=str(ROOT / "conf"), version_base="1.3"):
        yield


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A BEIR folder `one` and two runs of it, by the judgements as well."""
    folder = tmp_path / "one"
    (folder / "qrels").mkdir(parents=True)
    documents = [{"_id": f"d{i}", "title": "", "text": f"text {i}"} for i in range(3)]
    queries = [{"_id": f"q{i}", "text": f"query {i}"} for i in range(2)]
    for name, records in (("corpus", documents), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq0\td0\t1\nq1\td1\t1\n")
    (tmp_path / "a.trec").write_text("q0 Q0 d0 1 2 sysA\nq1 Q0 d0 1 2 sysA\nq1 Q0 d1 2 1 sysA\n")
    (tmp_path / "b.trec").write_text("q0 Q0 d9 1 2 sysB\nq9 Q0 d0 1 2 sysB\n")
    return tmp_path


def score(
    folder: Path, *overrides: str, monkeypatch: pytest.MonkeyPatch | None = None
) -> dict[str, float]:
    overrides = (
        "task=score", f"paths.run_dir={folder / 'run'}", f"paths.cache_dir={folder / 'cache'}",
        *overrides,
    )  # fmt: skip
    config = compose(config_name="eval", overrides=list(overrides))
    if monkeypatch is not None:
        _say(monkeypatch, overrides)
    task = instantiate(config.task)
    assert task.func is score_task
    found: dict[str, float] = task(config)
    return found


def _say(monkeypatch: pytest.MonkeyPatch, overrides: Sequence[str]) -> None:
    """As if the overrides stood on the command line."""
    told = SimpleNamespace(
        overrides=SimpleNamespace(task=list(overrides)), runtime=SimpleNamespace(choices={})
    )
    monkeypatch.setattr(HydraConfig, "initialized", lambda: True)
    monkeypatch.setattr(HydraConfig, "get", lambda: told)


def refused(folder: Path, *overrides: str, monkeypatch: pytest.MonkeyPatch | None = None) -> str:
    with pytest.raises(UserError) as info:
        score(folder, *overrides, monkeypatch=monkeypatch)
    assert not list(folder.glob("run/*"))
    assert "Fix: " in str(info.value)
    return str(info.value)


def test_a_run_directory_as_an_evaluation_leaves_it(data: Path) -> None:
    found = score(
        data, f"task.runs=[{data}/a.trec,{data}/b.trec]", "benchmark=folder",
        f"benchmark.path={data / 'one'}",
    )  # fmt: skip
    # a: ranks 1 and 2; b finds nothing that is relevant, and a query is missing
    assert found["score/sysA/one/mrr_at_10"] == 0.75
    assert found["score/sysB/one/mrr_at_10"] == 0.0
    assert task_output.last_result_line() == "nDCG@10 sysA=0.8155 sysB=0.0000"
    run = data / "run"
    for name in (
        "config_resolved.yaml", "provenance.json", "summary.json", "plots/results.png",
        "runs/one.sysA.trec", "per_query/one.sysB.jsonl", "run.log",
    ):  # fmt: skip
        assert (run / name).is_file(), name
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["sets"]["one"]["sysA"]["MRR@10"] == 0.75
    assert metrics["convention"]["one"]["title"] == "no effect: the ranking is given"
    document = json.loads((run / "score.json").read_text())
    assert document["runs"][1]["coverage"] == {
        "num_judged": 2, "num_answered": 1, "num_unjudged": 1, "num_unknown_documents": 1,
        "depth": 1,
    }  # fmt: skip
    (test,) = document["tests"]["pairs"]
    assert (test["first"], test["second"], test["num_queries"]) == ("sysA", "sysB", 2)
    page = (run / "report.md").read_text()
    assert "## Runs" in page
    assert "## Differences in nDCG@10" in page
    assert "- sysB: judged queries without a ranking: 1 of 2" in page
    assert "judged queries without a ranking: 1 of 2" in (run / "run.log").read_text()


def test_a_logger_that_cannot_start_is_known_before_the_work_and_leaves_nothing(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise AssertionError("scored before the loggers are open")

    monkeypatch.setattr("quarry.tasks.score.score_given", fails)
    (data / "file").touch()
    command = (
        f"task.runs={data}/a.trec", "benchmark=folder", f"benchmark.path={data / 'one'}",
        "logger=csv",
    )  # fmt: skip
    with pytest.raises(Exception, match=r"file"):
        score(data, *command, f"logger.csv.save_dir={data / 'file'}")
    assert not list(data.glob("run/*"))
    monkeypatch.undo()
    assert score(data, *command)["score/sysA/one/mrr_at_10"] == 0.75  # in the same directory


def test_judgements_alone_and_another_convention(data: Path) -> None:
    qrels = data / "one" / "qrels" / "test.tsv"
    found = score(
        data, f"task.runs={data}/b.trec", f"task.qrels={qrels}", "convention=study",
        "evaluation.measures=[MRR,P@1]", "task.names=[mine]",
    )  # fmt: skip
    assert found["score/mine/test/mrr"] == 0.0
    values = (data / "run" / "per_query" / "test.mine.jsonl").read_text().splitlines()
    assert [json.loads(line)["query_id"] for line in values] == ["q0"]  # the other is left out


def test_a_report_takes_the_systems_as_rankings_given(data: Path) -> None:
    score(
        data, f"task.runs=[{data}/a.trec,{data}/b.trec]", "benchmark=folder",
        f"benchmark.path={data / 'one'}",
    )  # fmt: skip
    overrides = [
        "task=report", f"runs=[{data / 'run'}]", f"task.folder={data / 'out'}", "paths.run_dir=.",
    ]  # fmt: skip
    config = compose(config_name="eval", overrides=overrides)
    found = instantiate(config.task)(config)
    assert list(found) == [
        "report/given_other/sysA (ranking given)",
        "report/given_other/sysB (ranking given)",
    ]
    config = compose(
        config_name="eval",
        overrides=["task=rescore", f"run={data / 'run'}", "paths.run_dir=."],
    )
    with pytest.raises(UserError, match=r"run files.*task=score"):
        instantiate(config.task)(config)


def test_what_is_missing_is_said_in_one_message(data: Path) -> None:
    runs = f"task.runs={data}/a.trec"
    assert refused(data).startswith("task.runs is not set")
    assert refused(data, runs).startswith("task=score: nothing says what is relevant")
    qrels = data / "one" / "qrels" / "test.tsv"
    given = (f"task.qrels={qrels}", "benchmark=folder", f"benchmark.path={data / 'one'}")
    assert "a benchmark has judgements of its own" in refused(data, runs, *given)
    assert "gone.trec: there is no such file" in refused(data, "task.runs=gone.trec", given[0])
    assert "gone: there is no such file" in refused(data, runs, "task.qrels=gone")
    message = refused(data, runs, *given[1:], "task.remove_self_match=true")
    assert "has no effect without task.qrels" in message


def test_what_would_have_no_effect_is_refused(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message = refused(
        data, f"task.runs={data}/a.trec", "model=qwen-tiny", "runs=[x]", monkeypatch=monkeypatch
    )
    assert message.startswith("model, runs has no effect on task=score")


PUBLISHED = {
    "BM25": (0.5058, 0.5947),
    "BM25_RM3": (0.5216, 0.5927),
    "SPLADE_P_P_ENSEMBLE_DISTIL": (0.7308, 0.7274),
    "D_BERT_KD_TASB": (0.7210, None),
    "OPEN_AI_ADA2": (0.7035, None),
    "REP_LLAMA": (0.7384, None),
}
"""nDCG@10 on TREC DL 2019 and TREC-COVID."""


def test_the_nine_published_runs_have_their_published_numbers(
    shared_data: Path, tmp_path: Path
) -> None:
    folder = shared_data / "trec_runs"
    found = score(
        tmp_path, f"task.runs={folder}", "task.num_permutations=2000",
        f"task.qrels={{dl19:{folder}/dl19.qrels,covid:{folder}/covid.qrels}}",
    )  # fmt: skip
    numbers = {
        name: tuple(
            None if (value := found.get(f"score/{name}/{set_name}/ndcg_at_10")) is None
            else round(value, 4)
            for set_name in ("dl19", "covid")
        )
        for name in PUBLISHED
    }  # fmt: skip
    assert numbers == PUBLISHED
    document = json.loads((tmp_path / "run" / "score.json").read_text())
    # scores of RepLLaMA are rounded: by its rank column it would be 0.7439
    (repllama,) = (each for each in document["runs"] if each["system"] == "REP_LLAMA")
    assert repllama["num_against_scores"] == 0
    assert repllama["num_ties_otherwise"] == 43
