"""A run, its exported folder and sentence-transformers on that folder: one ranking, one result.

In one process but for the last test: what a command costs is mostly its imports.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytrec_eval
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from sentence_transformers import SentenceTransformer

from helpers.commands import ROOT, Result
from helpers.replicas import replica
from quarry.config.schema import register_schemas
from quarry.metrics.run_files import read_run
from quarry.retrieval.export.loading import read_export
from quarry.tasks.evaluate import evaluate
from quarry.tasks.export import export
from quarry.tasks.train import train

COMBINATIONS = [
    # model, prompt, pooling, adapter; more of them, without training, in test_exported_model_folder
    ("qwen-r1", "echo", "echo", "lora"),
    ("qwen-vl", "repllama_vl", "last_token", "lora"),
    ("qwen-coder", "promptreps", "weighted_mean", "none"),
]
WORDS = ("read", "write", "close", "open", "sort", "copy", "move", "print")
CORPUS = [
    # every other document without a title, some with outer white space
    {"_id": f"{word}{i}", "title": ("", word.title(), f" {word}\n")[i], "text": text}
    for word in WORDS
    for i, text in enumerate((f"{word} a line of the file", f"  how to {word}\n", f"{word} it"))
]
QUERIES = [{"_id": word, "text": f"{word} a line " * (1 + i)} for i, word in enumerate(WORDS)]
QRELS = {word: {f"{word}{i}": 1 + i for i in range(3)} for word in WORDS}


@pytest.fixture(scope="module")
def _conf() -> Iterator[None]:
    register_schemas()
    with initialize_config_dir(config_dir=str(ROOT / "conf"), version_base="1.3"):
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A test collection, and training rows in Tevatron's form."""
    folder = tmp_path_factory.mktemp("export")
    (folder / "set" / "qrels").mkdir(parents=True)
    write_lines(folder / "set" / "corpus.jsonl", CORPUS)
    write_lines(folder / "set" / "queries.jsonl", QUERIES)
    rows = [f"{q}\t{d}\t{grade}\n" for q, grades in QRELS.items() for d, grade in grades.items()]
    header = "query-id\tcorpus-id\tscore\n"
    (folder / "set" / "qrels" / "test.tsv").write_text(header + "".join(rows), encoding="utf-8")
    passages = [{"docid": d["_id"], "title": d["title"], "text": d["text"]} for d in CORPUS]
    examples = [
        {
            "query_id": query["_id"],
            "query": query["text"],
            "positive_passages": [passages[3 * i]],
            "negative_passages": [passages[3 * i - 1], passages[3 * i - 2]],
        }
        for i, query in enumerate(QUERIES)
    ]
    write_lines(folder / "train.jsonl", examples)
    return folder


def write_lines(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def configured(primary: str, data: Path, run: Path, *overrides: str) -> DictConfig:
    common = (
        f"paths.cache_dir={data / 'cache'}", f"paths.run_dir={run}", "logger=none",
        "trainer.accelerator=cpu",
    )  # fmt: skip
    return compose(primary, overrides=[*common, *overrides])


def rankings(run: Path) -> dict[str, dict[str, float]]:
    (file,) = (run / "runs").iterdir()
    return dict(read_run(file))


def theirs(folder: Path) -> dict[str, dict[str, float]]:
    """Scores of all documents, given as the model card says."""
    has_code = read_export(folder).has_code
    model = SentenceTransformer(str(folder), device="cpu", trust_remote_code=has_code)
    documents: list[Any] = [
        {"title": document["title"], "text": document["text"]}
        if has_code and document["title"]
        else " ".join(part for part in (document["title"], document["text"]) if part)
        for document in CORPUS
    ]
    queries = model.encode_query([query["text"] for query in QUERIES], batch_size=3)
    scores = model.similarity(queries, model.encode_document(documents, batch_size=5))
    return {
        query["_id"]: {d["_id"]: float(s) for d, s in zip(CORPUS, row, strict=True)}
        for query, row in zip(QUERIES, scores, strict=True)
    }


def ndcg_at_10(run: dict[str, dict[str, float]]) -> float:
    values = pytrec_eval.RelevanceEvaluator(QRELS, {"ndcg_cut.10"}).evaluate(run)
    return sum(value["ndcg_cut_10"] for value in values.values()) / len(values)


@pytest.mark.usefixtures("_conf")
@pytest.mark.parametrize(("model", "prompt", "pooling", "adapter"), COMBINATIONS)
def test_run_export_and_sentence_transformers_rank_alike(
    model: str, prompt: str, pooling: str, adapter: str, data: Path, tmp_path: Path
) -> None:
    run, base = tmp_path / "run", replica(model, data / "cache").folder()
    train(
        configured(
            "train", data, run, "experiment=sft_msmarco", f"model={model}", f"model.path={base}",
            f"prompt={prompt}", f"model/pooling={pooling}", f"model/adapter={adapter}",
            f"data.path={data / 'train.jsonl'}", "data.global_batch_size=4",
            "loss.contrastive_batch_size=4", "data.num_hard_negatives=2", "trainer.max_steps=2",
            "evaluation.every_n_steps=0", "callbacks=none", "scheduler=constant",
            "scheduler.num_warmup_steps=0", "benchmark=none",
        )
    )  # fmt: skip
    export(configured("train", data, tmp_path / "none", f"run={run}"), dtype="float32", folder=None)
    values = {}
    for name, path in {"of_run": run, "of_export": run / "export"}.items():
        config = configured(
            "eval", data, tmp_path / name, f"model={model}", f"model.path={path}",
            "evaluation.top_k=100", "evaluation.measures=[nDCG@10]", "baseline=none",
            "benchmark=folder", f"benchmark.path={data / 'set'}",
        )  # fmt: skip
        values[name] = evaluate(config)["val/set/ndcg_at_10"]
    assert values["of_export"] == pytest.approx(values["of_run"], abs=1e-6)
    expected = rankings(tmp_path / "of_run")
    assert ndcg_at_10(expected) == pytest.approx(values["of_run"], abs=1e-6)
    found = theirs(run / "export")
    assert ndcg_at_10(found) == pytest.approx(values["of_run"], abs=1e-4)
    for other in (rankings(tmp_path / "of_export"), found):
        assert other.keys() == expected.keys()
        for query_id, scores in expected.items():  # packed or padded: two orders of summation
            assert other[query_id] == pytest.approx(scores, abs=1e-5)


def test_as_commands(
    trained: tuple[Path, Result], command: Callable[..., Result], tmp_path: Path
) -> None:
    run, _ = trained
    folder = tmp_path / "export"
    exported = command("train.py", "task=export", f"run={run}", f"task.folder={folder}")
    assert exported.code == 0, exported.err
    result = command(
        "eval.py", f"model.path={folder}", "benchmark.split=dev", "logger=none",
        f"hydra.run.dir={tmp_path / 'eval'}",
    )  # fmt: skip
    assert result.code == 0, result.err
    expected = json.loads((run / "metrics.json").read_text())["sets"]["stdlib_code"]["trained"]
    found = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert found["sets"]["stdlib_code"]["dense"] == pytest.approx(expected, abs=1e-4)
