"""task=teach: what it writes, that it continues, and what it refuses before anything is scored."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "config"))
from configurations import composed, opened

from helpers.models import tiny_folder
from helpers.rerankers import classifier_folder, language_model_folder
from quarry.data.train_files import read_train_files
from quarry.errors import MissingPathError, UserError
from quarry.losses.teacher_vectors import TeacherVectors
from quarry.models.backbones.fingerprint import weights_digest
from quarry.retrieval.rerankers import pair_scorer
from quarry.retrieval.rerankers.pair_scorer import PairScorer
from quarry.runtime import task_output
from quarry.tasks.teach import teach as teach_task

LINES = (
    {"query": "abc", "positives": [{"docid": "p1", "title": "T", "text": "defg"}],
     "negatives": ["xx yy", "zz"]},
    {"query": "what is love", "positives": ["love is all"], "negatives": ["xx yy", ""]},
    {"query": "abc", "positives": ["longer text"], "negatives": ["zz"]},
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _conf() -> Iterator[None]:
    with opened():
        yield


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    classifier_folder(root / "bert", "bert")
    language_model_folder(root / "yesno")
    tiny_folder(root / "tiny")
    return root


@pytest.fixture
def data(tmp_path: Path) -> Path:
    file = tmp_path / "train.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return file


def teach(
    folder: Path, *overrides: str, monkeypatch: pytest.MonkeyPatch | None = None
) -> dict[str, float]:
    overrides = (
        "task=teach", f"paths.run_dir={folder / 'run'}", f"paths.cache_dir={folder / 'cache'}",
        "data=file", f"data.path={folder / 'train.jsonl'}", *overrides,
    )  # fmt: skip
    config = composed("train", *overrides)
    if monkeypatch is not None:
        _say(monkeypatch, overrides)
    task = instantiate(config.task)
    assert task.func is teach_task
    found: dict[str, float] = task(config)
    return found


def _say(monkeypatch: pytest.MonkeyPatch, overrides: Sequence[str]) -> None:
    """Let the task find the overrides, as on a command line."""
    hydra = SimpleNamespace(
        overrides=SimpleNamespace(task=list(overrides), hydra=[]),
        job=SimpleNamespace(name="train"),
        runtime=SimpleNamespace(output_dir=".", choices={}),
    )
    monkeypatch.setattr(HydraConfig, "initialized", lambda: True)
    monkeypatch.setattr(HydraConfig, "get", lambda: hydra)


def digest_of(folder: Path, *, memo: Path) -> str:
    return weights_digest(str(folder), memo=memo)


def facts_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "run" / "teach.json").read_text())
    return found


@pytest.mark.parametrize("name", ["bert", "yesno"])
def test_a_reranker_scores_what_training_reads(
    name: str, models: Path, data: Path, tmp_path: Path
) -> None:
    counts = teach(tmp_path, f"task.teacher.path={models / name}")
    assert counts["teach/num_pairs"] == 7
    read = read_train_files(path=tmp_path / "run" / "scored.jsonl", cache_dir=tmp_path / "cache")
    assert not len(read.score_summary(has_negatives=True).lacking)
    assert read[0].hard_negative_scores is not None
    assert read[0].hard_negative_scores[1] == read[2].hard_negative_scores[0]  # type: ignore[index]
    facts = facts_of(tmp_path)
    assert facts["teacher"] == str(models / name)
    reranker = facts["reranker"]
    wanted = {"bert": ["classifier", "identity", 256], "yesno": ["yes_no", "log_sigmoid", 512]}
    assert [reranker[key] for key in ("kind", "activation", "max_length")] == wanted[name]
    assert reranker["dtype"] == "float32"
    assert (reranker["frame"] is None) == (name == "bert")
    assert reranker["weights"] == f"full:{digest_of(models / name, memo=tmp_path / 'memo')}"
    assert reranker["commit"] is None  # of a hub id alone
    assert facts["caveats"] == ["1 passages are empty and left out"]
    assert facts["num_unique_pairs"] == 6
    assert (tmp_path / "run" / "provenance.json").is_file()
    assert task_output.last_result_line().startswith("teach examples=3 pairs=7 ")


def test_a_bi_encoder_scores_and_writes_vectors(
    models: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = (f"task.teacher.path={models / 'tiny'}", "task.teacher.kind=bi_encoder",
           "model/pooling=mean", "prompt=none")  # fmt: skip
    teach(tmp_path, *own, monkeypatch=monkeypatch)
    read = read_train_files(path=tmp_path / "run" / "scored.jsonl", cache_dir=tmp_path / "cache")
    assert all(-1.0001 <= score <= 1.0001 for score in read[0].positive_scores or ())
    assert facts_of(tmp_path)["teacher"] == str(models / "tiny")
    vectors = tmp_path / "vectors"
    teach(tmp_path, *own, "task.writes=vectors", f"paths.run_dir={vectors}")
    assert TeacherVectors(vectors / "vectors.safetensors").dim == 32
    assert json.loads((vectors / "teach.json").read_text())["num_texts"] == 10


def test_a_killed_call_continues_with_the_bytes_of_an_uninterrupted_one(
    models: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = f"task.teacher.path={models / 'yesno'}"
    monkeypatch.setattr(pair_scorer, "NUM_PAIRS_PER_BLOCK", 2)
    teach(tmp_path, teacher, f"paths.run_dir={tmp_path / 'wanted'}", "task.teacher.cache_dir=null")
    packed, num_pairs = PairScorer._packed, []

    def dies(self: PairScorer, texts: Any) -> Any:
        if len(num_pairs) == 2:
            raise KeyboardInterrupt
        num_pairs.append(len(texts))
        return packed(self, texts)

    with monkeypatch.context() as patched:
        patched.setattr(PairScorer, "_packed", dies)
        with pytest.raises(KeyboardInterrupt):
            teach(tmp_path, teacher)
    assert not (tmp_path / "run" / "scored.jsonl").exists()
    num_pairs.clear()
    monkeypatch.setattr(
        PairScorer, "_packed", lambda self, texts: (num_pairs.append(1), packed(self, texts))[1]
    )
    teach(tmp_path, teacher)
    assert len(num_pairs) == 1  # of three blocks
    wanted = (tmp_path / "wanted" / "scored.jsonl").read_bytes()
    assert (tmp_path / "run" / "scored.jsonl").read_bytes() == wanted
    with pytest.raises(UserError, match="holds a run already"):
        teach(tmp_path, teacher)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("task.teacher.path=null",), r"task\.teacher\.path=null"),
        (("task.teacher.path=MODELS/tiny",), r"task\.teacher\.path=.*no reranker"),
        (("task.teacher.path=MODELS/bert", "task.writes=vectors"), r"task\.writes=vectors"),
        (("task.teacher.path=MODELS/bert", "task.writes=all"), r"task\.writes=all"),
        (("task.teacher.path=MODELS/bert", "loss=cosent"), "^loss has no effect"),
        (("task.teacher.path=MODELS/bert", "prompt=echo"), r"^prompt has no effect.*bi_encoder"),
        (
            ("task.teacher.path=MODELS/tiny", "task.teacher.kind=bi_encoder", "model.path=other"),
            r"model\.path=other",
        ),
        (
            ("task.teacher.path=MODELS/tiny", "task.teacher.kind=bi_encoder",
             "task.teacher.max_length=64"),
            r"task\.teacher\.max_length",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_taught_is_refused_and_leaves_no_run(
    overrides: tuple[str, ...],
    message: str,
    models: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    named = [each.replace("MODELS", str(models)) for each in overrides]
    with pytest.raises(UserError, match=message):
        teach(tmp_path, *named, monkeypatch=monkeypatch)
    assert not (tmp_path / "run").exists()


def test_paths_that_are_not_there_are_refused(models: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match=r"task\.teacher\.path="):
        teach(tmp_path, f"task.teacher.path={tmp_path / 'none'}")
    with pytest.raises(MissingPathError, match=r"none\.jsonl"):
        teach(tmp_path, f"task.teacher.path={models / 'bert'}", "data.path=none.jsonl")


def test_a_line_that_cannot_be_scored_is_refused_with_its_place(
    models: Path, data: Path, tmp_path: Path
) -> None:
    data.write_text(data.read_text() + '{"query": "  ", "positives": ["x"]}\n')
    with pytest.raises(UserError, match=r"train\.jsonl:4"):
        teach(tmp_path, f"task.teacher.path={models / 'bert'}")
