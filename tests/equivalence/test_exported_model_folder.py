"""An exported folder is a model folder here, too: same frames, same tokens, same embeddings.

In fp32, packed here and padded in sentence-transformers: two orders of summation differ by far less
than 1e-5, another token by far more.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from sentence_transformers import SentenceTransformer
from torch import Tensor

from helpers.replicas import replica
from helpers.saved_runs import FULL, LORA, PROMPT_NAMES, prompt_settings, saved_run
from quarry.assembly.stored_model import open_stored_model
from quarry.data.prompts import Prompt
from quarry.data.rendering import build_frames
from quarry.models.backbones.huggingface import load_tokenizer
from quarry.models.building import build_bi_encoder
from quarry.retrieval.encoder import Encoder
from quarry.retrieval.export.loading import read_export
from quarry.tasks.export import export
from quarry.tasks.verify import verify
from quarry.types import ROLES, Document, Query

POOLING = "quarry.models.pooling"
LAST, MEAN, WEIGHTED = "last_token.LastToken", "mean.Mean", "weighted_mean.WeightedMean"
LENGTHS = {"max_query_length": 120, "max_document_length": 150}
"""Some of the documents below are cut."""

CASES: list[tuple[str, str, str, dict[str, Any]]] = [
    # prompt, replica, pooling, what is not as usual; qwen-r1 puts a BOS in front of texts
    ("none", "qwen-r1", MEAN, {"is_causal": False}),
    ("short", "qwen-base", LAST, {"adapter": LORA, "is_normalized": False}),
    ("repllama", "qwen-r1", LAST, {"adapter": LORA}),
    ("repllama_vl", "qwen-vl", LAST, {"adapter": LORA}),
    ("repllama", "qwen-vl", WEIGHTED, {}),
    ("promptreps", "qwen-r1", LAST, {}),
    ("prompteol", "qwen-math", WEIGHTED, {"is_causal": False}),
    ("e5_instruct", "qwen-r1", LAST, {}),
    ("qwen3_instruct", "qwen-instruct", LAST, {"adapter": LORA}),
    ("echo", "qwen-r1", "echo.Echo", {"adapter": LORA}),
]
TEXTS = ["", "a fox", " outer\n", "def f(x):\n    return x ** 2\n", "a fox, quick and brown: " * 30]
QUERIES = [Query(query_id=str(i), text=text) for i, text in enumerate(TEXTS)]
DOCUMENTS = [
    Document(document_id=f"{i}{title}", title=title, text=text)
    for i, text in enumerate(TEXTS)
    for title in ("", "A fox", " outer\t")
]


def settings_of(name: str) -> dict[str, Any]:
    return {k: v for k, v in (prompt_settings(name) | LENGTHS).items() if k != "_target_"}


def ours(folder: Path) -> list[Tensor]:
    parts = open_stored_model(str(folder), base_path=None).parts
    model = build_bi_encoder(parts.spec, is_trained=False)
    encoder = Encoder(model=model, tokenizer=parts.tokenizer, max_tokens_per_batch=500)
    return [encoder.encode(QUERIES, "query"), encoder.encode(DOCUMENTS, "document")]


def theirs(folder: Path, *, has_code: bool) -> list[Tensor]:
    """As the model card says."""
    model = SentenceTransformer(str(folder), device="cpu", trust_remote_code=has_code)
    documents: list[Any] = [
        {"title": d.title, "text": d.text}
        if has_code and d.title
        else " ".join(part for part in (d.title, d.text) if part)
        for d in DOCUMENTS
    ]
    queries = [query.text for query in QUERIES]
    more: dict[str, Any] = {"batch_size": 4, "convert_to_tensor": True}
    return [model.encode_query(queries, **more), model.encode_document(documents, **more)]


def test_every_prompt_has_a_case() -> None:
    assert {name for name, *_ in CASES} == set(PROMPT_NAMES)


@pytest.mark.parametrize(("name", "variant", "pooling", "more"), CASES, ids=lambda v: str(v)[:20])
def test_run_export_and_sentence_transformers_agree(
    tmp_path: Path, name: str, variant: str, pooling: str, more: dict[str, Any]
) -> None:
    base = replica(variant, tmp_path / "cache", hidden_size=32, intermediate_size=64).folder()
    run = saved_run(
        tmp_path / "run",
        base=base,
        prompt=settings_of(name),
        pooling=f"{POOLING}.{pooling}",
        **({"adapter": FULL} | more),
    )
    folder = run / "export"
    export(OmegaConf.create({"run": str(run)}), dtype="float32", folder=None)
    expected = ours(run)
    has_code = read_export(folder).has_code
    for found in (ours(folder), theirs(folder, has_code=has_code)):
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
    verified = verify(OmegaConf.create({"run": str(folder)}), export=None)
    assert len(verified) == 2
    assert min(verified.values()) > 1 - 1e-6
    was, now = (load_tokenizer(str(path)) for path in (run / "model", folder))
    for other_name in PROMPT_NAMES:  # as in eval.py model.path=RUN/export prompt=OTHER
        prompt = Prompt(**settings_of(other_name) | {"end_token": "eos"})
        assert build_frames(now, prompt) == build_frames(was, prompt)
    assert set(build_frames(now, Prompt())) == set(ROLES)
