"""Each of the eight models under both protocols, from training to the export's verification.

In one process, on replicas that are made once: what a command costs is mostly its imports.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from safetensors.torch import load_file

from helpers.commands import ROOT
from helpers.replicas import VARIANTS
from quarry.config.schema import register_schemas
from quarry.errors import UserError
from quarry.stand_ins.replica_tokenizer import Vocabulary, stand_in_vocabulary
from quarry.tasks.evaluate import evaluate
from quarry.tasks.export import export
from quarry.tasks.train import train
from quarry.tasks.verify import verify

QUERIES = ("read a line", "write a line", "close the file", "open a socket", "sort a list")


@pytest.fixture(scope="module", autouse=True)
def _conf() -> Iterator[None]:
    register_schemas()
    with initialize_config_dir(config_dir=str(ROOT / "conf"), version_base="1.3"):
        yield


@pytest.fixture(scope="module", autouse=True)
def _vocabulary_is_trained_once() -> Iterator[None]:
    """The stand-in of all replicas, half of what these roads would take."""
    made: dict[object, Vocabulary] = {}

    def once(texts: Sequence[str], *, vocab_size: int) -> Vocabulary:
        key = (tuple(texts), vocab_size)
        if key not in made:
            made[key] = stand_in_vocabulary(texts, vocab_size=vocab_size)
        return made[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("quarry.stand_ins.replica.stand_in_vocabulary", once)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache, a test collection and training rows in Tevatron's form."""
    folder = tmp_path_factory.mktemp("variants")
    beir = folder / "set"
    (beir / "qrels").mkdir(parents=True)
    corpus = [
        {"_id": f"d{i}", "title": "", "text": f"def {query.replace(' ', '_')}(): pass"}
        for i, query in enumerate(QUERIES)
    ]
    rows = [{"_id": f"q{i}", "text": q} for i, q in enumerate(QUERIES)]
    write_lines(beir / "corpus.jsonl", corpus)
    write_lines(beir / "queries.jsonl", rows)
    lines = [f"q{i}\td{i}\t1\n" for i in range(len(QUERIES))]
    (beir / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines))
    passages = [{"docid": d["_id"], "title": "", "text": d["text"]} for d in corpus]
    examples = [
        {
            "query_id": f"q{i}",
            "query": query,
            "positive_passages": [passages[i]],
            "negative_passages": [p for p in passages if p["docid"] != f"d{i}"],
        }
        for i, query in enumerate(QUERIES)
    ]
    write_lines(folder / "train.jsonl", examples)
    return folder


def write_lines(path: Path, records: list[dict]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def configured(primary: str, data: Path, run: Path, *overrides: str) -> DictConfig:
    common = (
        f"paths.cache_dir={data / 'cache'}", f"paths.run_dir={run}", "logger=none",
        "trainer.accelerator=cpu", "benchmark=folder", f"benchmark.path={data / 'set'}",
    )  # fmt: skip
    return compose(primary, overrides=[*common, *overrides])


ROADS = [
    *[pytest.param(variant, "", id=f"{variant}-its-own-prompt") for variant in VARIANTS],
    # without a chat template, with Qwen's, with DeepSeek's, with that of the vision-language model
    *[
        pytest.param(f"qwen-{variant}", "promptreps", id=f"qwen-{variant}-promptreps")
        for variant in ("base", "instruct", "r1", "vl")
    ],
]


@pytest.mark.parametrize(("variant", "prompt"), ROADS)
def test_the_whole_road(variant: str, prompt: str, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    dressed = (f"prompt={prompt}",) if prompt else ()
    train(
        configured(
            "train",
            data,
            run,
            "experiment=sft_msmarco",
            f"model={variant}",
            "model.size=tiny",
            f"data.path={data / 'train.jsonl'}",
            "data.global_batch_size=4",
            "loss.contrastive_batch_size=2",
            "data.num_hard_negatives=2",
            "trainer.max_steps=2",
            "evaluation.every_n_steps=0",
            "callbacks=none",
            "scheduler=constant",  # the study's warm-up leaves the first two updates without effect
            "scheduler.num_warmup_steps=0",
            *dressed,
        )
    )
    adapter = load_file(run / "model" / "adapter_model.safetensors")
    assert all(weight.abs().max() > 0 for weight in adapter.values()), "something was not trained"
    assert not any("visual" in name for name in adapter)
    trained = json.loads((run / "metrics.json").read_text())["sets"]["set"]["trained"]
    values = evaluate(
        configured(
            "eval",
            data,
            tmp_path / "eval",
            f"model={variant}",
            f"model.path={run}",
            "evaluation.top_k=1000",
            "evaluation.measures=[MRR@10]",
        )
    )
    assert values["val/set/mrr_at_10"] == pytest.approx(trained["MRR@10"])
    export(configured("train", data, tmp_path / "none", f"run={run}"), dtype="float32", folder=None)
    verify(configured("eval", data, tmp_path / "none", f"run={run}"), export=None)


@pytest.mark.parametrize("variant", VARIANTS)
def test_zero_shot(variant: str, data: Path, tmp_path: Path) -> None:
    values = evaluate(
        configured(
            "eval",
            data,
            tmp_path / "run",
            "experiment=zero_shot",
            f"model={variant}",
            "model.size=tiny",
        )
    )
    assert 0 < values["val/set/ndcg_at_10"] <= 1


def test_echo_pooling_without_a_prompt_that_repeats_is_refused_before_the_model_loads(
    data: Path, tmp_path: Path
) -> None:
    config = configured(
        "eval", data, tmp_path / "run", "model=qwen-base", "model.size=tiny", "model/pooling=echo"
    )
    with pytest.raises(UserError, match=r"Echo looks at the second copy.*prompt=echo"):
        evaluate(config)


def test_a_comparison_of_dtypes_reports_both_and_how_far_they_agree(
    data: Path, tmp_path: Path
) -> None:
    evaluate(
        configured(
            "eval",
            data,
            tmp_path / "run",
            "model=qwen-base",
            "model.size=tiny",
            "evaluation.compare_dtype=bf16",
        )
    )
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())["sets"]["set"]
    assert set(metrics) == {"dense", "dense-bf16"}
    (found,) = json.loads((tmp_path / "run" / "dtype_comparison.json").read_text())["sets"]
    assert found["num_texts"] == 2 * len(QUERIES)
    assert 0.99 < found["smallest"] <= found["mean"] < 1 - 1e-7


def test_a_comparison_of_dtypes_is_refused_where_nothing_is_embedded(
    data: Path, tmp_path: Path
) -> None:
    config = configured(
        "eval", data, tmp_path / "run", "retriever=bm25", "evaluation.compare_dtype=bf16"
    )
    with pytest.raises(UserError, match=r"compare_dtype=bf16 has no effect with retriever=bm25"):
        evaluate(config)
