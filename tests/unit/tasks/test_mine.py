"""The mining task: what it writes, what it continues, and what it refuses before anything loads."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from helpers.commands import ROOT
from helpers.models import tiny_folder
from quarry.assembly.model_parts import settle_contract
from quarry.config.schema import register_schemas
from quarry.config.settled_contract import SettledContract
from quarry.data.train_files import read_train_files
from quarry.errors import UserError
from quarry.mining.mined_file import MinedFile
from quarry.retrieval.encoder import Encoder
from quarry.runtime import task_output
from quarry.tasks.mine import mine as mine_task

WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]


@pytest.fixture(scope="module", autouse=True)
def _conf() -> Iterator[None]:
    register_schemas()
    with initialize_config_dir(config_dir=str(ROOT / "conf"), version_base="1.3"):
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A training file of 20 lines, and a corpus as a BEIR folder and as a file."""
    lines = [
        {
            "query": f"{WORDS[index % 10]} {WORDS[(index + 3) % 10]}",
            "positive": f"{WORDS[index % 10]} {WORDS[(index * 7 + 1) % 10]} {index}",
            "negative": f"{WORDS[(index + 3) % 10]} other",
        }
        for index in range(20)
    ]
    write(tmp_path / "train.jsonl", lines)
    documents = [
        {"_id": f"d{index}", "title": "", "text": f"{word} in a corpus"}
        for index, word in enumerate(WORDS)
    ]
    write(tmp_path / "set" / "corpus.jsonl", documents)
    return tmp_path


def write(path: Path, records: Sequence[dict[str, Any]]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(each) + "\n" for each in records), encoding="utf-8")


def mine(
    folder: Path, *overrides: str, run: str = "run", monkeypatch: pytest.MonkeyPatch | None = None
) -> dict[str, float]:
    overrides = (
        "task=mine", "data=file", f"data.path={folder / 'train.jsonl'}",
        f"paths.run_dir={folder / run}", f"paths.cache_dir={folder / 'cache'}",
        "task.num_negatives=2", "task.top_k=10", *overrides,
    )  # fmt: skip
    config = compose(config_name="train", overrides=list(overrides))
    if monkeypatch is not None:
        told = SimpleNamespace(
            overrides=SimpleNamespace(task=list(overrides)), runtime=SimpleNamespace(choices={})
        )
        monkeypatch.setattr(HydraConfig, "initialized", lambda: True)
        monkeypatch.setattr(HydraConfig, "get", lambda: told)
    task = instantiate(config.task)
    assert task.func is mine_task
    found: dict[str, float] = task(config)
    return found


def refused(folder: Path, *overrides: str, **more: Any) -> str:
    with pytest.raises(UserError) as info:
        mine(folder, *overrides, **more)
    assert not list(folder.glob("run/*"))
    assert "Fix: " in str(info.value)
    return str(info.value)


BM25 = "retriever=bm25"


def test_bm25_writes_a_file_that_training_reads(data: Path) -> None:
    found = mine(data, BM25)
    run = data / "run"
    assert {path.name for path in run.iterdir()} == {
        ".lock", "config.yaml", "config_resolved.yaml", "mined.jsonl", "mining.json",
        "provenance.json", "run.log",
    }  # fmt: skip
    examples = read_train_files(path=run / "mined.jsonl", cache_dir=data / "cache")
    assert len(examples) == found["mine/queries_out"]
    facts = json.loads((run / "mining.json").read_text())
    counts = facts["counts"]
    assert counts["queries_in"] == 20
    assert counts["queries_out"] == len(examples) > 2
    assert sum(len(each.hard_negatives) for each in examples) == counts["negatives"]
    assert facts["mined_with"] == "bm25"
    assert facts["settings"]["num_negatives"] == 2
    assert f"queries={len(examples)} " in str(task_output.last_result_line())


def test_a_model_mines_from_the_store_and_again_without_encoding(
    data: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine(data, f"model.path={model}", "task.filter.relative_margin=0")
    with monkeypatch.context() as patched:
        patched.setattr(Encoder, "encode_batches", None)
        mine(data, f"model.path={model}", "task.filter.relative_margin=0", run="again")
    again = (data / "again" / "mined.jsonl").read_bytes()
    assert (data / "run" / "mined.jsonl").read_bytes() == again
    facts = json.loads((data / "run" / "mining.json").read_text())
    assert facts["model"]["location"] == str(model)


@pytest.mark.parametrize("corpus", ["set", "set/corpus.jsonl"])
def test_a_corpus_is_searched_and_its_passages_are_the_negatives(data: Path, corpus: str) -> None:
    mine(data, BM25, f"task.corpus={data / corpus}", "task.filter.relative_margin=null")
    examples = read_train_files(path=data / "run" / "mined.jsonl", cache_dir=data / "cache")
    texts = {passage.text for each in examples for passage in each.hard_negatives}
    assert texts <= {f"{word} in a corpus" for word in WORDS}
    first = json.loads((data / "run" / "mined.jsonl").read_text().splitlines()[0])
    assert set(first["mined"]["document_ids"]) <= {f"d{index}" for index in range(10)}


class KilledError(BaseException):
    pass


def killed_after(monkeypatch: pytest.MonkeyPatch, num_blocks: int) -> None:
    """End the process, so to say, in the midst of a block."""
    monkeypatch.setattr("quarry.mining.mining_job.NUM_QUERIES_PER_BLOCK", 3)
    add, number = MinedFile.add, iter(range(sys.maxsize))

    def dies(self: MinedFile, *arguments: Any, **more: Any) -> None:
        if next(number) == num_blocks:
            raise KilledError
        add(self, *arguments, **more)

    monkeypatch.setattr(MinedFile, "add", dies)


@pytest.mark.parametrize("num_blocks", [0, 1, 6])
def test_the_same_command_continues_after_a_kill(
    data: Path, model: Path, monkeypatch: pytest.MonkeyPatch, num_blocks: int
) -> None:
    settings = (f"model.path={model}", "task.sampling=random", "task.filter.relative_margin=0")
    mine(data, *settings, run="whole")
    with monkeypatch.context() as patched:
        killed_after(patched, num_blocks)
        with pytest.raises(KilledError):
            mine(data, *settings)
    assert not (data / "run" / "mined.jsonl").exists()
    mine(data, *settings)
    for name in ("mined.jsonl", "mining.json"):
        assert (data / "run" / name).read_bytes() == (data / "whole" / name).read_bytes(), name
    assert not (data / "run" / "mining_progress.jsonl").exists()


def test_a_model_with_a_contract_continues(
    data: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its prompts and lengths are settled in the configuration before that is compared."""

    def settled(config: DictConfig) -> SettledContract:
        found = settle_contract(config)
        config.prompt.max_query_length = 24
        return found

    monkeypatch.setattr("quarry.assembly.loaded_encoder.settle_contract", settled)
    settings = (f"model.path={model}", "task.filter.relative_margin=0")
    with monkeypatch.context() as patched:
        killed_after(patched, 4)
        with pytest.raises(KilledError):
            mine(data, *settings)
    assert mine(data, *settings)["mine/queries_out"] > 0
    stored = OmegaConf.load(data / "run" / "config_resolved.yaml")
    assert stored.prompt.max_query_length == 24


def test_a_call_killed_before_its_first_block_is_begun_again(data: Path) -> None:
    mine(data, BM25)
    expected = (data / "run" / "mined.jsonl").read_bytes()
    for name in ("mined.jsonl", "mining.json"):
        (data / "run" / name).unlink()
    mine(data, BM25)
    assert (data / "run" / "mined.jsonl").read_bytes() == expected


def test_other_settings_are_not_continued(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        killed_after(patched, 4)
        with pytest.raises(KilledError):
            mine(data, BM25)
    for other in ("seed=7", "task.num_negatives=1", "task.content=code", "task.keep_queries=true"):
        key = other.partition("=")[0]
        with pytest.raises(UserError, match=rf"hydra\.run\.dir=.*other settings \({key}\)"):
            mine(data, BM25, other)
    monkeypatch.setattr("quarry.tasks.continued_run._other_settings", lambda *_: [])
    with pytest.raises(UserError, match=r"hydra\.run\.dir=.*beginning of a mining"):
        mine(data, BM25, "task.content=code")  # the lines' own key has it, too
    with pytest.raises(UserError, match=r"hydra\.run\.dir=.*beginning of a mining"):
        mine(data, BM25, "task.keep_queries=true")
    mine(data, BM25)
    with pytest.raises(UserError, match="holds a run already"):
        mine(data, BM25)


def test_scores_of_a_teacher_are_filtered_in_place(data: Path) -> None:
    scored = [
        {"query": "q", "pos": ["p"], "neg": ["a", "b"], "pos_scores": [2], "neg_scores": [3, 1]},
        {"query": "r", "pos": ["a"], "neg": ["c"], "pos_scores": [-2], "neg_scores": [-2.05]},
    ]
    write(data / "train.jsonl", scored)
    mine(data, "task.use_scores=true")
    (example,) = read_train_files(path=data / "run" / "mined.jsonl", cache_dir=data / "cache")
    assert [passage.text for passage in example.hard_negatives] == ["b"]
    assert (example.positive_scores, example.hard_negative_scores) == ((2.0,), (1.0,))


def test_a_line_that_the_filter_leaves_nothing_is_kept_on_request(data: Path) -> None:
    scored = [
        {"query": "q", "pos": ["p"], "neg": ["a", "b"], "pos_scores": [2], "neg_scores": [3, 1]},
        {"query": "r", "pos": ["a"], "neg": ["c"], "pos_scores": [1], "neg_scores": [5]},
    ]
    write(data / "train.jsonl", scored)
    mine(data, "task.use_scores=true", "task.keep_queries=true")
    examples = list(read_train_files(path=data / "run" / "mined.jsonl", cache_dir=data / "cache"))
    kept = [[passage.text for passage in each.hard_negatives] for each in examples]
    assert kept == [["b"], []]
    assert [each.positive_scores for each in examples] == [(2.0,), (1.0,)]


def test_a_run_file_of_the_corpus(data: Path) -> None:
    lines = json.loads((data / "train.jsonl").read_text().splitlines()[0])
    write(data / "train.jsonl", [{"query_id": "7", **lines}])
    (data / "a.trec").write_text("7 Q0 d1 1 0.5 a\n7 Q0 d2 2 0.25 a\n7 Q0 d99 3 0.1 a\n")
    found = mine(
        data, f"task.run_file={data / 'a.trec'}", f"task.corpus={data / 'set'}",
        "task.filter.relative_margin=null", "task.filter.max_score=0.4",
    )  # fmt: skip
    assert found == {"mine/queries_out": 1.0, "mine/negatives": 1.0}
    facts = json.loads((data / "run" / "mining.json").read_text())
    assert facts["source"]["num_unknown_documents"] == 1


def test_what_leaves_nothing_or_cannot_work_is_refused_with_its_key(data: Path) -> None:
    cases = {
        ("task.filter.max_score=0",): "task.filter.max_score=0",
        ("task.top_k=60", "task.rank_range=[50,60]"): "task.rank_range=[50,60]: leaves none of 20",
        ("task.rank_range=[5,11]",): "task.rank_range=[5,11]: no ranks of task.top_k=10",
        ("task.rank_range=[1,2,3]",): "task.rank_range=[1, 2, 3]: must be",
        ("task.content=prose",): "task.content=prose: unknown",
        ("task.corpus=nowhere",): "task.corpus=nowhere: no such file or folder",
        ("task.run_file=nowhere",): "task.run_file=nowhere: no such file",
        ("task.use_scores=true",): "task.use_scores=true: no hard negative",
        ("task.use_scores=true", f"task.corpus={data / 'set'}"): f"task.corpus={data / 'set'}: has",
        ("data.path=null",): "The configuration cannot work:\n- data.path is not set",
    }
    for overrides, words in cases.items():
        assert refused(data, BM25, *overrides).startswith(words), overrides
    for setting in (
        "num_negatives=0", "top_k=0", "filter.max_score=nan", "filter.relative_margin=2",
    ):  # fmt: skip
        assert f"- task.{setting}: out of range" in refused(data, BM25, f"task.{setting}")


def test_models_that_are_none_are_refused_before_encoding(data: Path, tmp_path: Path) -> None:
    assert refused(data).startswith("model.path=null: nothing can be encoded")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert str(empty) in refused(data, f"model.path={empty}")
    assert refused(data, "retriever=hybrid").startswith("retriever: candidates come from")


def test_overrides_without_effect_are_refused(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message = refused(data, BM25, "trainer.max_steps=3", monkeypatch=monkeypatch)
    assert message.startswith("trainer.max_steps has no effect on task=mine")


@pytest.mark.parametrize(
    ("overrides", "warned"),
    [
        (
            ("task.use_scores=true", BM25, "retriever.k1=3", "task.content=code"),
            ["retriever, retriever.k1, task.content: no effect with task.use_scores=true"],
        ),
        ((BM25, "retriever.k1=1.5", "task.content=code"), []),
        (("model.path=any", "task.content=code", "data.num_hard_negatives=3"), [
            "data.num_hard_negatives: no effect with task=mine",
            "task.content: no effect with candidates that a model finds",
        ]),
        ((BM25, "model=local", "prompt.max_query_length=9", "evaluation.store_dtype=float16"), [
            "model, prompt.max_query_length, evaluation.store_dtype: no effect with candidates",
        ]),
    ],
)  # fmt: skip
def test_options_without_effect_are_warned_of(
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    overrides: tuple[str, ...],
    warned: list[str],
) -> None:
    with pytest.raises(UserError, match=r"top_k"):  # after the warnings, before anything loads
        mine(data, *overrides, "task.rank_range=[5,11]", monkeypatch=monkeypatch)
    found = [record.message for record in caplog.records if "no effect" in record.message]
    assert [text[: len(words)] for text, words in zip(found, warned, strict=True)] == warned
