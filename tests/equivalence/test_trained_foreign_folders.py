"""A folder of sentence-transformers is trained further: its layers after the pooling with the rest.

The run, its export and sentence-transformers on that export then give one embedding. In fp32,
packed here and padded there: two orders of summation differ by far less than 1e-5, another token,
pooling or projection by far more.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from hydra import compose
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from config.configurations import composed, opened
from helpers.sentence_folders import bert, dense, qwen2, roberta, sentence_folder, word_tokenizer
from quarry.assembly import model_parts
from quarry.assembly.stored_model import open_stored_model
from quarry.data.packing import pack
from quarry.errors import Interrupted
from quarry.metrics.run_files import read_run
from quarry.models.building import build_bi_encoder
from quarry.models.projections import load_projections
from quarry.models.saved import PROJECTIONS_FILE
from quarry.retrieval.encoder import Encoder
from quarry.retrieval.export.loading import as_given, read_export
from quarry.tasks import build_training as task_train
from quarry.tasks.evaluate import evaluate
from quarry.tasks.export import export
from quarry.tasks.resume import resume
from quarry.tasks.train import train
from quarry.tasks.verify import verify
from quarry.training.trained_state import read_trained
from quarry.types import Document, Query

TEXTS = [
    "the quick brown fox",
    "x",
    "is a fox not an animal ?",
    "a quick fox of the query",
    "the quick brown fox is not an animal of x y z " * 8,
]
QUERIES = [Query(query_id=str(i), text=text) for i, text in enumerate(TEXTS)]
DOCUMENTS = [
    Document(document_id=f"{i}.{len(title)}", title=title, text=text)
    for i, text in enumerate(TEXTS)
    for title in ("", "a fox")
]
PROMPTS = {"query": "query : ", "document": "passage : "}
TITLED = "prompt.document='passage : {title} {text}'"
"""A title that is missing leaves a space: no prefix says that, so the export carries code."""

LORA = ("model/adapter=lora", "model.adapter.r=2", "model.adapter.dropout=0.0")
ENCODER_LORA = (*LORA, "model.adapter.target_modules=[query,value]")
DECODER_LORA = (*LORA, "model.adapter.target_modules=[q_proj,v_proj]")
INNER = {"is_normalized": False, "similarity_fn_name": "dot"}


def without_prompt(mode: str) -> dict[str, Any]:
    return {"pooling": {"pooling_mode": mode, "include_prompt": False}, "prompts": PROMPTS}


def kept(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """One that AutoTokenizer leaves as it is, instead of taking Qwen2's own class."""
    tokenizer._set_processor_class("PreTrainedTokenizerFast")
    return tokenizer


@dataclass(frozen=True, kw_only=True)
class Case:
    """A folder to begin with, and what the command line says.

    Attributes:
        folder: makes it.
        overrides: of the training.
    """

    folder: Callable[[Path], Path]
    overrides: tuple[str, ...] = ()


def case(*overrides: str, **folder: Any) -> Case:
    return Case(folder=lambda path: sentence_folder(path, **folder), overrides=overrides)


CASES = {
    "bert, three layers, lora": case(
        *ENCODER_LORA,
        denses=[
            dense(32, 48, nn.Tanh(), use_residual=True),
            dense(48, 48, nn.GELU(), use_residual=True),
            dense(48, 8, nn.Identity(), bias=False),
        ],
    ),
    "bert, mean without the prompt": case(
        denses=[dense(32, 16, nn.GELU())], **without_prompt("mean"), **INNER
    ),
    "bert, cls without the prompt": case(**without_prompt("cls")),
    "roberta, max without the prompt": case(
        denses=[dense(32, 16, nn.Identity())], **without_prompt("max"), **INNER, model=roberta()
    ),
    "a decoder that appends nothing, weighted mean without the prompt": case(
        *DECODER_LORA,
        denses=[dense(32, 16, nn.Tanh())],
        **without_prompt("weightedmean"),
        model=qwen2(),
        tokenizer=kept(word_tokenizer("$A")),
    ),
    "a decoder that appends a token, last token": case(
        denses=[dense(32, 32, nn.Tanh(), use_residual=True)],
        pooling={"pooling_mode": "lasttoken"},
        prompts={"query": "instruct : x\nquery : ", "document": ""},
        model=qwen2(),
        tokenizer=kept(word_tokenizer("$A [SEP]")),
    ),
    "code, mean_sqrt_len without the prompt": case(
        TITLED,
        denses=[dense(32, 16, nn.Identity())],
        **without_prompt("mean_sqrt_len_tokens"),
        **INNER,
    ),
}


@pytest.fixture(scope="module", autouse=True)
def _conf() -> Iterator[None]:
    with opened():
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs to train on, and a test collection."""
    folder = tmp_path_factory.mktemp("data")
    pairs = [{"query": text, "positive": f"{text} animal"} for text in TEXTS[:4]]
    write_lines(folder / "train.jsonl", pairs)
    (folder / "set" / "qrels").mkdir(parents=True)
    corpus = [{"_id": d.document_id, "title": d.title, "text": d.text} for d in DOCUMENTS]
    write_lines(folder / "set" / "corpus.jsonl", corpus)
    write_lines(
        folder / "set" / "queries.jsonl", [{"_id": q.query_id, "text": q.text} for q in QUERIES]
    )
    rows = "".join(f"{i}\t{i}.0\t1\n" for i in range(len(QUERIES)))
    header = "query-id\tcorpus-id\tscore\n"
    (folder / "set" / "qrels" / "test.tsv").write_text(header + rows, encoding="utf-8")
    return folder


def write_lines(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def configured(folder: Path, run: Path, data: Path, *overrides: str) -> DictConfig:
    return compose(
        "train",
        overrides=[
            f"paths.run_dir={run}", f"paths.cache_dir={data / 'cache'}", "logger=none",
            "model=local", f"model.path={folder}", "model.dtype=float32", "data=jsonl",
            f"data.path={data / 'train.jsonl'}", "data.global_batch_size=2", "benchmark=none",
            "callbacks=none", "scheduler=constant", "scheduler.num_warmup_steps=0",
            "optimizer.lr=0.01", "trainer.accelerator=cpu", "trainer.max_steps=2",
            "trainer.enable_progress_bar=false", *overrides,
        ],
    )  # fmt: skip


def trained(folder: Path, run: Path, data: Path, *overrides: str) -> Path:
    """Train as a command does that names these overrides."""
    with pytest.MonkeyPatch.context() as patch:
        named = [override.partition("=")[0] for override in overrides]
        patch.setattr(model_parts, "explicit_keys", lambda: named)
        train(configured(folder, run, data, *overrides))
    return run


def of(run: Path) -> DictConfig:
    return OmegaConf.create({"run": str(run)})


def ours(folder: Path) -> list[Tensor]:
    parts = open_stored_model(str(folder), base_path=None).parts
    model = build_bi_encoder(parts.spec, is_trained=False)
    encoder = Encoder(model=model, tokenizer=parts.tokenizer, max_tokens_per_batch=100)
    return [encoder.encode(QUERIES, "query"), encoder.encode(DOCUMENTS, "document")]


def theirs(folder: Path) -> list[Tensor]:
    """As the model card says."""
    has_code = read_export(folder).has_code
    frames = open_stored_model(str(folder), base_path=None).parts.tokenizer.frames
    model = SentenceTransformer(str(folder), device="cpu", trust_remote_code=has_code)
    more: dict[str, Any] = {"batch_size": 3, "convert_to_tensor": True, "show_progress_bar": False}
    documents = [as_given(item, frames["document"], has_code=has_code) for item in DOCUMENTS]
    return [
        model.encode_query([query.text for query in QUERIES], **more),
        model.encode_document(documents, **more),
    ]


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
    rankings = [(q @ d.T).round(decimals=4).argsort(stable=True) for q, d in (found, expected)]
    assert torch.equal(*rankings)


def projections_of(folder: Path) -> dict[str, Tensor]:
    chain = open_stored_model(str(folder), base_path=None).parts.spec.source.projections()
    return load_projections(chain).state_dict()


def scored(model: Path, run: Path, data: Path) -> dict[str, dict[str, float]]:
    """What eval.py ranks, with an embedding store for all."""
    overrides = [
        f"paths.run_dir={run}", f"paths.cache_dir={data / 'cache'}", f"model.path={model}",
        f"paths.store_dir={run.parent / 'store'}", "benchmark=folder", "logger=none",
        f"benchmark.path={data / 'set'}", "trainer.accelerator=cpu",
        "trainer.enable_progress_bar=false",
    ]  # fmt: skip
    evaluate(compose("eval", overrides=overrides))
    (file,) = (run / "runs").iterdir()
    return dict(read_run(file))


@pytest.mark.parametrize("name", CASES)
def test_run_export_and_sentence_transformers_agree(name: str, tmp_path: Path, data: Path) -> None:
    start, overrides = CASES[name].folder(tmp_path / "start"), CASES[name].overrides
    run = trained(start, tmp_path / "run", data, *overrides)
    before = [load_file(file) for file in sorted(start.glob("*_Dense/model.safetensors"))]
    after = projections_of(run)
    assert len(after) == sum(map(len, before))
    for number, weights in enumerate(before):
        for key, weight in weights.items():
            assert not torch.equal(after[f"{number}.{key}"], weight), "trained with the rest"
    export(of(run), dtype="float32", folder=None)
    assert read_export(run / "export").has_code == (TITLED in overrides)
    expected = ours(run)
    assert_same(ours(run / "export"), expected)
    assert_same(theirs(run / "export"), expected)


@pytest.mark.parametrize(
    "name", ["bert, mean without the prompt", "roberta, max without the prompt"]
)
def test_gradients_are_those_of_sentence_transformers(name: str, tmp_path: Path) -> None:
    """Of every weight, in fp64: only the order of sums differs."""
    folder = CASES[name].folder(tmp_path / "start")
    config = composed("train", "model=local", f"model.path={folder}", "model.dtype=float32")
    model_parts.settle_contract(config)
    parts = model_parts.build_model_parts(config)
    model = build_bi_encoder(parts.spec, is_trained=True).double().eval()
    direction = torch.randn(len(TEXTS), model.embedding_dim, dtype=torch.float64)
    (model(pack(parts.tokenizer(QUERIES, "query"))) * direction).sum().backward()
    reference = SentenceTransformer(str(folder), device="cpu").double().eval()
    features = reference.preprocess(TEXTS, prompt=PROMPTS["query"])
    (reference(features)["sentence_embedding"] * direction).sum().backward()
    expected = {
        **{f"backbone.{n}": p for n, p in reference[0].model.named_parameters()},
        **{f"projections.0.{n}": p for n, p in reference[2].named_parameters()},
    }
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        gradient = expected[key].grad
        assert gradient is not None
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-9, atol=1e-9)
    assert sum(key.startswith("projections.") for key, _ in model.named_parameters()) == 2


def test_half_precision_and_an_export_of_an_export(tmp_path: Path, data: Path) -> None:
    no_dropout = bert(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    denses = [dense(32, 16, nn.GELU())]
    start = sentence_folder(
        tmp_path / "start", model=no_dropout, denses=denses, **without_prompt("mean"), **INNER
    )
    run = trained(start, tmp_path / "run", data)
    export(of(run), dtype="bfloat16", folder=str(tmp_path / "half"))
    weights = load_file(tmp_path / "half" / "2_Dense" / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}
    assert verify(of(run), export=str(tmp_path / "half"))["verify/quarry"] > 1 - 1e-6
    assert min(verify(of(tmp_path / "half"), export=None).values()) > 0.99

    export(of(run), dtype="float32", folder=None)
    assert min(verify(of(run), export=None).values()) > 1 - 1e-6
    scores = scored(run, tmp_path / "of_run", data)
    for query_id, found in scored(run / "export", tmp_path / "of_export", data).items():
        assert found == pytest.approx(scores[query_id], abs=1e-4)  # inner products of about 10
    export(of(run / "export"), dtype="float32", folder=str(tmp_path / "again"))
    assert_same(theirs(tmp_path / "again"), ours(run))
    second = trained(run / "export", tmp_path / "second", data)
    other = trained(run, tmp_path / "other", data)
    for key, weight in projections_of(second).items():
        assert torch.equal(weight, projections_of(other)[key])
    export(of(second), dtype="float32", folder=None)
    assert_same(theirs(second / "export"), ours(other))


class StopAfter(pl.Callback):
    """Ask the run to stop after an optimizer step, as a scheduler of jobs does."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("adapter", [ENCODER_LORA], ids=["lora"])
def test_resumed_equals_uninterrupted(
    adapter: tuple[str, ...], tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, dropout included; and what is saved on the way has the projections, too."""
    start = CASES["bert, three layers, lora"].folder(tmp_path / "start")
    overrides = (
        *adapter, "trainer.max_steps=4", "benchmark=folder", f"benchmark.path={data / 'set'}",
        "evaluation.every_n_steps=2", "callbacks=best_model", "baseline=none",
    )  # fmt: skip
    whole = trained(start, tmp_path / "whole", data, *overrides)
    stop, build = StopAfter(1), task_train.build_callbacks
    monkeypatch.setattr(
        task_train, "build_callbacks", lambda *a, **more: [*build(*a, **more), stop]
    )
    with pytest.raises(Interrupted):
        trained(start, tmp_path / "stopped", data, *overrides)
    stop.step = 0
    assert not (tmp_path / "stopped" / "model").exists()
    resume(of(tmp_path / "stopped"), chooses_memory_anew=False)
    names = [PROJECTIONS_FILE, "adapter_model.safetensors" if adapter else "model.safetensors"]
    for name in names:
        found, expected = (load_file(run / "model" / name) for run in (tmp_path / "stopped", whole))
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], weight) for key, weight in expected.items())
    stored = read_trained(whole / "checkpoints" / "last.ckpt")
    trained_keys = {
        key.partition("model.projections.")[2] for key in stored if ".projections." in key
    }
    assert trained_keys == set(projections_of(whole))
    if adapter:
        assert all("lora_" in key for key in stored if ".projections." not in key)
    assert projections_of(whole / "checkpoints" / "best").keys() == projections_of(whole).keys()
    assert min(verify(of(whole / "checkpoints" / "best"), export=None).values()) > 1 - 1e-6
