"""retriever=reranked: both stages in one report, and what is refused before anything is encoded."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import instantiate

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "config"))
from configurations import composed, opened

from helpers.models import tiny_folder
from helpers.rerankers import classifier_folder
from quarry.config.validation import validate
from quarry.errors import MissingPathError, UserError
from quarry.metrics.run_files import read_run
from quarry.retrieval.dense import DenseRetriever
from quarry.retrieval.rerankers.pair_scorer import PairScorer
from quarry.runtime import task_output
from quarry.study_report.measured import measured_in
from quarry.study_report.report_task import _uses_encoder
from quarry.study_report.run_record import read_record
from quarry.tasks.evaluate import evaluate as evaluate_task

TEXTS = ("abc def", "love is all", "some other text", "abc", "what is it", "more")


@pytest.fixture(scope="module", autouse=True)
def _conf() -> Iterator[None]:
    with opened():
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reranker, a bi-encoder, and a collection."""
    root = tmp_path_factory.mktemp("reranked")
    classifier_folder(root / "bert", "bert")
    classifier_folder(root / "three", "bert", num_labels=3)
    tiny_folder(root / "tiny")
    folder = root / "one"
    (folder / "qrels").mkdir(parents=True)
    documents = [{"_id": f"d{i}", "title": "", "text": text} for i, text in enumerate(TEXTS)]
    queries = [{"_id": "q0", "text": "abc text"}, {"_id": "q1", "text": "is love it"}]
    for name, records in (("corpus", documents), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq0\td3\t1\nq1\td1\t1\n")
    return root


def evaluate(root: Path, folder: Path, *overrides: str) -> dict[str, float]:
    config = composed(
        "eval", "retriever=reranked", f"retriever.reranker.path={root / 'bert'}", "logger=none",
        "benchmark=folder", f"benchmark.path={root / 'one'}", f"paths.run_dir={folder / 'run'}",
        f"paths.cache_dir={folder / 'cache'}", "trainer.accelerator=cpu", *overrides,
    )  # fmt: skip
    task = instantiate(config.task)
    assert task.func is evaluate_task
    found: dict[str, float] = task(config)
    return found


BM25 = "retriever@retriever.first_stage=bm25"
DENSE = ("model/pooling=mean", "prompt=none")


def test_both_stages_are_reported_and_the_first_is_made_once(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    retrieve = DenseRetriever.retrieve

    def counted(self: DenseRetriever, dataset: Any, **more: Any) -> Any:
        calls.append(dataset.name)
        return retrieve(self, dataset, **more)

    monkeypatch.setattr(DenseRetriever, "retrieve", counted)
    own = (f"model.path={root / 'tiny'}", *DENSE, "retriever.depth=3", "baseline=bm25")
    values = evaluate(root, tmp_path, *own)
    assert calls == ["one"]
    about = json.loads((tmp_path / "run" / "reranker.json").read_text())
    names = ("kind", "activation", "max_length", "depth")
    assert [about[name] for name in names] == ["classifier", "identity", 256, 3]
    assert about["sets"] == {"one": {"num_pairs": 6, "num_unique_pairs": 6, "num_cut_pairs": 0}}
    line = task_output.last_result_line().split()
    assert [each.partition("=")[0] for each in line[1:]] == ["bm25", "dense", "dense-reranked"]
    assert values["val/one/ndcg_at_10"] == pytest.approx(float(line[3].partition("=")[2]), abs=1e-4)
    runs = tmp_path / "run" / "runs"
    first, second = (read_run(runs / f"one.{n}.trec") for n in ("dense", "dense-reranked"))
    for query_id, ranking in first.items():
        names, again = list(ranking), list(second[query_id])
        assert sorted(names[:3]) == sorted(again[:3])
        assert names[3:] == again[3:]
    report = (tmp_path / "run" / "report.md").read_text()
    assert "| dense-reranked |" in report
    record = read_record(tmp_path / "run")
    forms = {m.report.retriever: m.name for m in measured_in(record, uses_encoder=True)}
    assert forms == {"bm25": "bm25", "dense": "tiny", "dense-reranked": "tiny (reranked)"}


def test_bm25_is_reranked_without_a_model_and_pairs_are_scored_once(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = evaluate(root, tmp_path, BM25)
    monkeypatch.setattr(PairScorer, "_scored", lambda self, texts: pytest.fail("scored again"))
    again = evaluate(root, tmp_path, BM25, f"paths.run_dir={tmp_path / 'again'}")
    assert again == values
    record = read_record(tmp_path / "again")
    assert not _uses_encoder(record, trusted=())
    first, second = measured_in(record, uses_encoder=False)
    assert [(m.stage, m.name) for m in (first, second)] == [
        ("baseline", "bm25"), ("baseline", "bm25-reranked"),
    ]  # fmt: skip
    assert first.settings.get("retriever.k1") == "0.9"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((BM25, "baseline=bm25"), "baseline=bm25"),
        (("retriever.reranker.path=null",), r"retriever\.reranker\.path=null"),
        (("retriever.reranker.path=ROOT/three",), r"retriever\.reranker\.path=.*3 labels"),
        (("retriever.reranker.path=ROOT/tiny",), r"retriever\.reranker\.path=.*no reranker"),
        (("evaluation.compare_dtype=bf16",), r"evaluation\.compare_dtype=bf16"),
        (("retriever@retriever.first_stage=reranked",), r"retriever\.first_stage=reranked"),
    ],
)
def test_what_cannot_be_reranked_is_refused_and_leaves_no_run(
    overrides: tuple[str, ...], message: str, root: Path, tmp_path: Path
) -> None:
    named = [each.replace("ROOT", str(root)) for each in overrides]
    with pytest.raises(UserError, match=message):
        evaluate(root, tmp_path, f"model.path={root / 'tiny'}", *named)
    assert not (tmp_path / "run").exists()


def test_a_path_that_is_not_there_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match=r"retriever\.reranker\.path="):
        evaluate(root, tmp_path, BM25, f"retriever.reranker.path={tmp_path / 'none'}")


@pytest.mark.parametrize("value", ["0", "-5"])
def test_a_depth_below_one_is_out_of_range(value: str) -> None:
    config = composed("eval", "retriever=reranked", f"retriever.depth={value}")
    with pytest.raises(UserError, match=rf"retriever\.depth={value}"):
        validate(config, primary="eval")
