"""An ONNX file gives the model's embeddings in any batch, and its card's code feeds it rightly."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.architectures import tiny_backbone
from helpers.models import random_projections
from helpers.tokenizers import chat_tokenizer
from quarry.data.prompts import Prompt
from quarry.data.tokenization import TextTokenizer
from quarry.errors import UserError
from quarry.models.adapters.lora import LoRA
from quarry.models.bi_encoder import BiEncoder
from quarry.models.pooling.cls import Cls
from quarry.models.pooling.echo import Echo
from quarry.models.pooling.last_token import LastToken
from quarry.models.pooling.max import Max
from quarry.models.pooling.mean import Mean
from quarry.models.pooling.mean_sqrt_len import MeanSqrtLen
from quarry.models.pooling.weighted_mean import WeightedMean
from quarry.retrieval.encoder import Encoder
from quarry.retrieval.export.export_folder import pooling_mode
from quarry.retrieval.export.loading import read_export
from quarry.retrieval.export.onnx_folder import export_onnx, onnx_golden
from quarry.retrieval.export.onnx_graph import EmbeddingGraph
from quarry.retrieval.export.onnx_session import ONNX_FILE, OnnxSession
from quarry.retrieval.golden_texts import golden_embeddings
from quarry.types import Document, Query

LENGTHS: dict[str, Any] = {"max_query_length": 60, "max_document_length": 70}
PREFIX = Prompt(query="Query: {text}", document="Passage: {text}", **LENGTHS)
TAIL = Prompt(query='Q: "{text}" is', document='"{text}" is', length_counts="text", **LENGTHS)
CONTRACT = {"format": 2}


def model_of(architecture: str, **more: Any) -> BiEncoder:
    shape = {"vocab_size": 448, "num_key_value_heads": 2, "head_dim": 8}
    return BiEncoder(backbone=tiny_backbone(architecture, **shape), **more).eval()


def with_adapter(model: BiEncoder) -> BiEncoder:
    """In bfloat16, as a large model's weights are, with an adapter in float32."""
    lora = LoRA(r=4, alpha=8, dropout=0.0, target_modules=["q_proj", "up_proj"])
    for weight in model.backbone.parameters():  # not the rotary frequencies, as files have it
        weight.data = weight.data.to(torch.bfloat16)
    backbone = lora(model.backbone)
    torch.manual_seed(1)
    for name, parameter in backbone.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return BiEncoder(backbone=backbone, pooling=model.pooling).eval()


def case(name: str) -> tuple[BiEncoder, Prompt]:
    if name == "qwen2":
        return with_adapter(model_of("qwen2", pooling=LastToken())), PREFIX
    if name == "qwen3":
        model = model_of(
            "qwen3", pooling=Mean(), projections=random_projections(), embedding_dim=12
        )
        return model, TAIL
    return model_of("llama", pooling=WeightedMean(), is_causal=False, normalize=False), PREFIX


@pytest.mark.parametrize("name", ["qwen2", "qwen3", "llama"])
def test_the_folder_gives_the_embeddings_of_the_model(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "llama":  # weights beside the file, as of a large model
        monkeypatch.setattr("quarry.retrieval.export.onnx_graph.MAX_FILE_BYTES", 0)
    model, prompt = case(name)
    tokenizer = TextTokenizer(tokenizer=chat_tokenizer(), prompt=prompt)
    model.float()
    expected = golden_embeddings(model, tokenizer)
    encoder = Encoder(model=model, tokenizer=tokenizer, max_tokens_per_batch=500)
    text = "the quick brown fox, and so on: " * 30
    given = {
        "queries": encoder.encode([Query(query_id="", text="what is a dense retriever?")], "query"),
        "documents": encoder.encode(
            [Document(document_id="", text=t) for t in ("a fox", text)], "document"
        ),
    }
    folder = tmp_path / "runs" / "onnx"
    export = export_onnx(folder, model=model, tokenizer=tokenizer, contract=CONTRACT)
    assert min(export.cosines) > 1 - 1e-6
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["onnx"], "nothing else is left"
    names = {path.name for path in folder.iterdir()}
    assert (f"{ONNX_FILE}.data" in names) == (name == "llama")
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o644}
    assert read_export(folder) == export
    for way in onnx_golden(folder, tokenizer):
        torch.testing.assert_close(way, expected, atol=1e-5, rtol=1e-4)
    # the code of the card, with a text that is cut
    monkeypatch.chdir(tmp_path / "runs")
    card = (folder / "README.md").read_text(encoding="utf-8")
    code = card.split("```python\n")[1].split("```")[0]
    code = code.replace('["It ranks documents by their embeddings."]', repr(["a fox", text]))
    names_of: dict[str, Any] = {}
    exec(code, names_of)
    for key, ours in given.items():
        theirs = torch.from_numpy(names_of[key])
        torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "pooling", [LastToken(), Cls(), Mean(), Max(), MeanSqrtLen(), WeightedMean()]
)
@pytest.mark.parametrize("is_causal", [True, False])
def test_the_graph_computes_every_pooling_with_padding_on_either_side(
    pooling: Any, is_causal: bool
) -> None:
    from quarry.data.packing import pack

    model = model_of("qwen2", pooling=pooling, is_causal=is_causal)
    backbone = model_of("qwen2", pooling=pooling).backbone
    backbone.set_attn_implementation("eager")
    vars(backbone.layers[-1]).pop("forward", None)
    graph = EmbeddingGraph(backbone=backbone, model=model, mode=pooling_mode(pooling)).eval()
    rows = [np.arange(3, 3 + length) for length in (1, 4, 9)]
    for pads_left in (False, True):
        ids, mask = torch.full((3, 9), 7), torch.zeros(3, 9, dtype=torch.long)
        for place, row in enumerate(rows):
            span = slice(9 - len(row), 9) if pads_left else slice(0, len(row))
            ids[place, span], mask[place, span] = torch.from_numpy(row), 1
        with torch.no_grad():
            torch.testing.assert_close(graph(ids, mask), model(pack(rows)), atol=1e-5, rtol=1e-4)


def test_what_an_onnx_file_cannot_do_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    tokenizer = TextTokenizer(tokenizer=chat_tokenizer(), prompt=PREFIX)
    for pooling, name in ((Echo(), "Echo"), (Mean(include_prompt=False), "Mean")):
        model = model_of("qwen2", pooling=pooling)
        with pytest.raises(UserError, match=f"{name} pools what stands behind the prompt"):
            export_onnx(tmp_path / "onnx", model=model, tokenizer=tokenizer, contract=CONTRACT)
    model = model_of("qwen2", pooling=Mean())
    model.backbone.config.sliding_window = 16
    model.backbone.config.layer_types = ["full_attention", "sliding_attention"]
    with pytest.raises(UserError, match=r"a sliding window of 16 tokens, and texts have up to 70"):
        export_onnx(tmp_path / "onnx", model=model, tokenizer=tokenizer, contract=CONTRACT)
    assert list(tmp_path.iterdir()) == []


def test_an_onnx_file_that_computes_something_else_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = TextTokenizer(tokenizer=chat_tokenizer(), prompt=PREFIX)

    def wrong(self: OnnxSession, rows: list[Any], **_: Any) -> torch.Tensor:
        return torch.ones(len(rows), 32)

    monkeypatch.setattr("quarry.retrieval.export.onnx_folder.write_graph", lambda graph, file: None)
    monkeypatch.setattr(OnnxSession, "__init__", lambda self, folder: None)
    monkeypatch.setattr(OnnxSession, "embed", wrong)
    with pytest.raises(UserError, match=r"golden text 'question' has a cosine of .*nothing was"):
        export_onnx(
            tmp_path / "onnx", model=model_of("qwen2", pooling=Mean()), tokenizer=tokenizer,
            contract=CONTRACT,
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_export_is_refused(tmp_path: Path) -> None:
    (tmp_path / ONNX_FILE).write_bytes(b"nothing of ONNX")
    with pytest.raises(UserError, match=r"onnxruntime cannot load .*model\.onnx"):
        OnnxSession(tmp_path)
