"""`python eval.py`: any model, any BEIR folder, and mistakes that end in one clear message."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.commands import SMALL, Result

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def beir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two test collections of four documents."""
    folder = tmp_path_factory.mktemp("sets")
    for name in ("one", "two"):
        path = folder / name
        (path / "qrels").mkdir(parents=True)
        texts = ["read a line", "write a line", "close the file", ""]
        write_lines(
            path / "corpus.jsonl", [{"_id": f"d{i}", "text": t} for i, t in enumerate(texts)]
        )
        write_lines(path / "queries.jsonl", [{"_id": "q", "text": "read line"}])
        (path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td0\t1\n")
    return folder


def write_lines(path: Path, records: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def test_a_trained_run_is_evaluated_to_the_numbers_of_its_training(
    trained: tuple[Path, Result], command: Run, tmp_path: Path
) -> None:
    run, _ = trained
    result = command(
        "eval.py", f"model.path={run}", "benchmark.split=dev", "logger=csv",
        f"hydra.run.dir={tmp_path / 'eval'}",
    )  # fmt: skip
    assert result.code == 0, result.err
    expected = json.loads((run / "metrics.json").read_text())["sets"]["stdlib_code"]["trained"]
    found = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert found["sets"]["stdlib_code"]["dense"] == pytest.approx(expected, abs=1e-6)
    assert result.last_line == f"nDCG@10 stdlib_code={expected['nDCG@10']:.4f}"


def test_an_override_of_the_contract_is_logged_and_stored(
    trained: tuple[Path, Result], command: Run, beir: Path, tmp_path: Path
) -> None:
    run, _ = trained
    result = command(
        "eval.py", f"model.path={run}", "benchmark=folder", f"benchmark.path={beir}",
        "prompt.max_document_length=8", "model/pooling=last_token", "logger=none",
        "retriever=hybrid", f"hydra.run.dir={tmp_path / 'eval'}",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert "prompt.max_document_length=8 is used, and the model states" in result.err
    differences = json.loads((tmp_path / "eval" / "provenance.json").read_text())
    assert set(differences["contract_differences"]) == {"prompt", "model.pooling"}
    assert result.last_line.startswith("nDCG@10 one=")
    assert " two=" in result.last_line


def test_sets_of_a_folder_are_picked_by_name(command: Run, beir: Path, tmp_path: Path) -> None:
    result = command(
        "eval.py", "retriever=bm25", "benchmark=folder", f"benchmark.path={beir}",
        "benchmark.sets=[two]", "logger=none", "evaluation.store_dtype=float16",
        f"hydra.run.dir={tmp_path / 'eval'}",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert result.last_line == "nDCG@10 two=1.0000"
    assert result.err.count("evaluation.store_dtype: no effect with retriever=bm25") == 1
    assert (tmp_path / "eval" / "runs" / "two.bm25.trec").exists()


def test_a_set_that_is_called_as_the_mean_is_refused_before_anything_is_encoded(
    command: Run, beir: Path, tmp_path: Path
) -> None:
    shutil.copytree(beir / "two", tmp_path / "sets" / "mean")
    shutil.copytree(beir / "two", tmp_path / "sets" / "two")
    message = refused(
        command, "eval.py", "retriever=bm25", "benchmark=folder", "logger=none",
        f"benchmark.path={tmp_path / 'sets'}", f"hydra.run.dir={tmp_path / 'eval'}",
    )  # fmt: skip
    assert "mean would name two things in the logs" in message
    assert not (tmp_path / "eval").exists()


def refused(command: Run, script: str, *overrides: str) -> str:
    """The message of a command that must end in one."""
    result = command(script, *overrides)
    assert result.code == 2, result.err
    assert "Traceback" not in result.err
    return result.err.split("\nError: ", 1)[1]


def test_no_model_no_folder_and_a_wrong_option_each_say_what_to_do(command: Run) -> None:
    assert "model.path=DIR" in refused(command, "eval.py", "logger=none")
    message = refused(command, "eval.py", "logger=none", "model.path=./nowhere")
    assert message.startswith("model.path=./nowhere: no such folder.")
    message = refused(command, "eval.py", "retriever=bm52")
    assert "bm25" in message
    assert "hybrid" in message


def test_without_the_hub_a_published_model_names_what_would_run(
    command: Run, tmp_path: Path
) -> None:
    run = f"hydra.run.dir={tmp_path / 'run'}"
    message = refused(command, "eval.py", "model=qwen-coder", "logger=none", run)
    assert not (tmp_path / "run").exists()
    assert "'Qwen/Qwen2.5-Coder-7B'" in message
    for remedy in ("model.path=DIR", "model.size=tiny"):
        assert f"python eval.py model=qwen-coder logger=none {remedy}" in message


def test_prompts_are_shown_token_by_token_and_nothing_else_happens(
    trained: tuple[Path, Result], command: Run, environment: dict[str, str]
) -> None:
    run, _ = trained
    before = sorted(Path(environment["QUARRY_RUNS"]).rglob("*"))
    result = command(
        "eval.py", "task=prompts", f"model.path={run}", "prompt=repllama", "task.query=read a line"
    )
    assert result.code == 0, result.err
    assert "end token: <|endoftext|>" in result.out
    assert "lengths: query 32, document 156 tokens of template and text" in result.out
    assert "query:read" in result.out.replace(" ", "")  # the tokenizer lower-cases
    assert "passage that is cut: 156 tokens" in result.out
    assert sorted(Path(environment["QUARRY_RUNS"]).rglob("*")) == before


def test_damaged_data_is_named_by_file_and_line(command: Run, beir: Path, tmp_path: Path) -> None:
    spoilt = tmp_path / "spoilt"
    shutil.copytree(beir / "one", spoilt)
    with (spoilt / "corpus.jsonl").open("a") as stream:
        stream.write('{"_id": "d9", "text": \n')
    overrides = ("retriever=bm25", "benchmark=folder", f"benchmark.path={spoilt}", "logger=none")
    message = refused(command, "eval.py", *overrides)
    assert f"{spoilt / 'corpus.jsonl'}:5" in message


def test_no_folder_of_a_folder_of_sets_is_passed_over(
    command: Run, beir: Path, tmp_path: Path
) -> None:
    sets, run = tmp_path / "sets", tmp_path / "run"
    for name in ("flawed", "other"):
        shutil.copytree(beir / "one", sets / name)
    with (sets / "flawed" / "qrels" / "test.tsv").open("a") as stream:
        stream.write("q\tgone\t1\nabsent\td0\t1\n")
    (sets / "other" / "qrels" / "test.tsv").rename(sets / "other" / "qrels" / "dev.tsv")
    (sets / "notes").mkdir()
    result = command(
        "eval.py", "retriever=bm25", "benchmark=folder", f"benchmark.path={sets}", "logger=none",
        "benchmark.absent_queries=drop", f"hydra.run.dir={run}",
    )  # fmt: skip
    assert result.code == 2
    assert "Traceback" not in result.err
    assert "1 folders have no corpus, queries or qrels and are no sets: notes" in result.err
    assert "(bm25: other)" in result.err.split("\nError: ", 1)[1]
    assert "\nflawed (!) " in result.out
    metrics = json.loads((run / "metrics.json").read_text())
    assert "no split 'test'" in metrics["failed"]["other"]["bm25"]
    dropped, missing, *_ = metrics["caveats"]["flawed"]
    assert dropped.startswith("1 of 2 judged queries were dropped")
    assert missing == "1 of 2 judged documents are not in the corpus (50.0 % are missing)"
    page = (run / "report.md").read_text()
    assert "## Caveats" in page
    assert f"- flawed: {missing}." in page


def test_a_suite_goes_on_past_a_set_that_fails_and_does_not_exit_0(
    command: Run, beir: Path, tmp_path: Path
) -> None:
    sets, run = tmp_path / "sets", tmp_path / "run"
    for name in ("nfcorpus", "scifact", "fiqa"):
        shutil.copytree(beir / "one", sets / name)
    with (sets / "nfcorpus" / "corpus.jsonl").open("a") as stream:
        stream.write("{}\n")
    result = command(
        "eval.py", "retriever=bm25", "benchmark=small", f"benchmark.path={sets}", "logger=none",
        "benchmark.sets=[nfcorpus,scifact,fiqa]", "benchmark.check_counts=false",
        f"hydra.run.dir={run}",
    )  # fmt: skip
    assert result.code == 2
    assert "Traceback" not in result.err
    assert "no effect" not in result.err
    message = result.err.split("\nError: ", 1)[1]
    assert message.startswith("1 of the sets failed")
    assert "(bm25: nfcorpus)" in message
    assert str(run / "report.md") in message
    reason = f"{sets / 'nfcorpus' / 'corpus.jsonl'}:5: lacks '_id'"
    assert result.err.count(reason) == 1
    assert f"bm25 on nfcorpus failed: {reason}" in result.err
    assert "5: lacks '" in (run / "report.md").read_text()
    assert result.last_line == "nDCG@10 scifact=1.0000 fiqa=1.0000 nfcorpus=failed mean=failed"
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["sets"]["scifact"]["bm25"]["nDCG@10"] == 1
    assert "nfcorpus" not in metrics["sets"]
    assert metrics["failed"]["nfcorpus"]["bm25"].endswith("every line needs an id")
    assert (run / "runs" / "fiqa.bm25.trec").exists()


def test_a_wrong_count_says_which(command: Run, beir: Path, tmp_path: Path) -> None:
    shutil.copytree(beir / "one", tmp_path / "scifact")
    message = refused(
        command, "eval.py", "retriever=bm25", "benchmark=beir", "benchmark.sets=[scifact]",
        f"benchmark.path={tmp_path}", "logger=none", f"hydra.run.dir={tmp_path / 'run'}",
    )  # fmt: skip
    assert message.startswith("scifact: 300 queries expected, 1 found; 5,183 documents expected, 4")


def test_a_set_that_cannot_be_read_stops_training_before_it_begins(
    command: Run, beir: Path, tmp_path: Path
) -> None:
    shutil.copytree(beir, tmp_path / "sets")
    with (tmp_path / "sets" / "two" / "queries.jsonl").open("a") as stream:
        stream.write('{"_id": "q", "text": "again"}\n')
    small = [override for override in SMALL if not override.startswith("benchmark.")]
    run = tmp_path / "run"
    message = refused(
        command, "train.py", *small, "logger=none", "benchmark=folder", f"hydra.run.dir={run}",
        f"benchmark.path={tmp_path / 'sets'}",
    )  # fmt: skip
    assert f"{tmp_path / 'sets' / 'two' / 'queries.jsonl'}:2" in message
    assert not (run / "metrics.json").exists()


def test_training_data_that_cannot_be_used_is_refused_before_training(
    command: Run, tmp_path: Path
) -> None:
    data = tmp_path / "train.jsonl"
    write_lines(data, [{"query": "a", "positive": "b"}, {"query": "c", "positive": "d"}])
    small = (*SMALL, "logger=none", "data=jsonl", f"data.path={data}")
    message = refused(command, "train.py", *small)
    assert "2 examples" in message
    assert "data.global_batch_size" in message
    message = refused(
        command, "train.py", *small, "data.global_batch_size=2", "data.num_hard_negatives=1"
    )
    assert f"{data}:1" in message


def test_everything_wrong_with_a_configuration_is_told_at_once(command: Run) -> None:
    message = refused(
        command, "train.py", "loss.contrastive_batch_size=7", "trainer.devices=0", "+loss.tau=1",
        "data=jsonl",
    )  # fmt: skip
    assert "loss.tau" in message
    message = refused(
        command, "train.py", "loss.contrastive_batch_size=7", "trainer.devices=0", "data=jsonl"
    )
    for key in ("loss.contrastive_batch_size=7", "trainer.devices=0", "data.path"):
        assert key in message
