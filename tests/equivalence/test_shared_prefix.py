"""A prefix that goes through the model once == the prefix in front of every text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers.architectures import tiny_backbone
from helpers.models import tiny_qwen
from helpers.prompts import promptreps
from helpers.replicas import VARIANTS, replica
from helpers.tokenizers import chat_tokenizer
from quarry.data.packing import pack
from quarry.data.prompts import Prompt
from quarry.data.tokenization import TextTokenizer
from quarry.models import attention_grid
from quarry.models.backbones.huggingface import load_backbone, load_tokenizer
from quarry.models.bi_encoder import BiEncoder
from quarry.models.compilation import compile_layers
from quarry.models.pooling.base import Pooling
from quarry.models.pooling.last_token import LastToken
from quarry.models.pooling.mean import Mean
from quarry.models.shared_prefix import can_share_prefix
from quarry.retrieval.encoder import Encoder
from quarry.types import Document, Query

INSTRUCTION = "Represent the passage in one word, for a search in the text: "
LONG = Prompt(query="find: {text}", document=INSTRUCTION + '"{text}". The word is: "')
WINDOW = {"sliding_window": 5, "num_key_value_heads": 2}
TEXTS = [
    "a brown fox", "", "x", "(quoted) text; and so on", ' "the" quick', "\n", "7", "é中",
    "the query and the passage of the retrieval task " * 30, "fox " * 3,
]  # fmt: skip


def documents(texts: Sequence[str] = TEXTS) -> list[Document]:
    return [Document(document_id=str(i), text=text) for i, text in enumerate(texts)]


def encoder_of(
    model: BiEncoder, *, prompt: Prompt = LONG, max_tokens_per_batch: int = 300
) -> Encoder:
    tokenizer = TextTokenizer(tokenizer=chat_tokenizer(), prompt=prompt)
    return Encoder(model=model, tokenizer=tokenizer, max_tokens_per_batch=max_tokens_per_batch)


def model_of(pooling: Pooling | None = None, *, is_causal: bool = True) -> BiEncoder:
    backbone = tiny_qwen(vocab_size=512)
    return BiEncoder(backbone=backbone, pooling=pooling or LastToken(), is_causal=is_causal).eval()


class Watched:
    """Counts the passes of a model with a prefix and without."""

    def __init__(self, model: BiEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
        self.num_shared, self.num_plain = 0, 0
        forward = model.forward

        def watched(tokens: object, prefix: object = None) -> Tensor:
            self.num_shared += prefix is not None
            self.num_plain += prefix is None
            return forward(tokens, prefix)  # type: ignore[arg-type]

        monkeypatch.setattr(model, "forward", watched)


def plain(encoder: Encoder, items: Sequence[Query | Document]) -> Tensor:
    """The embeddings with every text's own prefix."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("quarry.retrieval.pass_prefix.MIN_SHARED_TOKENS", 10**6)
        return encoder.encode(items, "document")


@pytest.mark.parametrize("texts", [TEXTS, TEXTS[:1], [""], ["x"] * 4, TEXTS * 20])
def test_embeddings_are_the_same(texts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = encoder_of(model_of())
    expected = plain(encoder, documents(texts))
    watched = Watched(encoder.model, monkeypatch)
    found = encoder.encode(documents(texts), "document")
    assert watched.num_shared > 1  # the first pass of each kind is a check
    assert watched.num_plain == 1
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("max_tokens", [1, 12, 10_000])
def test_any_budget_gives_the_same(max_tokens: int) -> None:
    encoder = encoder_of(model_of(), max_tokens_per_batch=max_tokens)
    expected = plain(encoder, documents())
    found = encoder.encode(documents(), "document")
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_a_text_that_begins_otherwise_is_encoded_with_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoder = encoder_of(model_of())
    ids = encoder.tokenizer.shared_prefixes["document"]
    expected = plain(encoder, documents())
    for wrong in (np.append(ids, [5]), np.append(ids[:-1], ids[-1] + 1)):
        encoder.tokenizer.shared_prefixes = {"query": ids[:0], "document": wrong}
        watched = Watched(encoder.model, monkeypatch)
        found = encoder.encode(documents(), "document")
        assert watched.num_plain > 1
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "model",
    [
        model_of(Mean()),
        model_of(is_causal=False),
        BiEncoder(backbone=tiny_backbone("mistral", **WINDOW), pooling=LastToken()),
    ],
    ids=["mean", "bidirectional", "sliding window"],
)
def test_models_that_cannot_share_it_do_not(model: BiEncoder) -> None:
    assert model.encode_prefix(pack([np.arange(3, 20)])) is None


GROUPED = {"num_key_value_heads": 2}
ALTERNATING = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 5}


@pytest.mark.parametrize(
    ("model_type", "settings", "expected"),
    [
        ("llama", GROUPED, True),
        ("olmo2", GROUPED, True),
        ("qwen3", GROUPED, True),
        ("qwen2", {**GROUPED, "sliding_window": 5}, True),  # not used unless asked for
        ("qwen2", {**GROUPED, "sliding_window": 5, "use_sliding_window": True,
                   "max_window_layers": 1}, False),
        ("mistral", {**GROUPED, "sliding_window": None}, True),
        ("mistral", WINDOW, False),
        ("starcoder2", {**GROUPED, "sliding_window": None}, True),
        ("starcoder2", WINDOW, False),
        ("phi3", WINDOW, False),
        ("gemma3_text", {**GROUPED, **ALTERNATING, "head_dim": 16}, False),
        ("olmo3", {**GROUPED, **ALTERNATING}, False),
        ("olmo3", {**GROUPED, **ALTERNATING, "layer_types": ["full_attention"] * 2}, True),
    ],
)  # fmt: skip
def test_the_rule_says_what_the_layers_do(
    model_type: str, settings: dict[str, Any], expected: bool
) -> None:
    """Plans ask the rule, without weights."""
    backbone = tiny_backbone(model_type, **settings)
    states: dict[torch.nn.Module, tuple[Tensor, Tensor]] = {}
    model = BiEncoder(backbone=backbone, pooling=LastToken())
    model.token_states(pack([np.arange(3, 20)]), prefix_states=states)
    assert (len(states) == backbone.config.num_hidden_layers) == expected
    assert can_share_prefix(backbone.config, pooling=LastToken(), is_causal=True) == expected


def test_prompts_without_a_prefix_share_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for prompt in (
        Prompt(),
        Prompt(document="{text} " + INSTRUCTION),
        Prompt(document="to: {text}"),
    ):
        encoder = encoder_of(model_of(), prompt=prompt)
        watched = Watched(encoder.model, monkeypatch)
        encoder.encode(documents(TEXTS[:1]), "document")
        assert (watched.num_shared, watched.num_plain) == (0, 1)


def test_the_prefix_of_other_architectures(monkeypatch: pytest.MonkeyPatch) -> None:
    for model_type in ("llama", "qwen3", "olmo2"):
        backbone = tiny_backbone(model_type, vocab_size=512, num_key_value_heads=2)
        encoder = encoder_of(BiEncoder(backbone=backbone, pooling=LastToken()).eval())
        expected = plain(encoder, documents())
        watched = Watched(encoder.model, monkeypatch)
        found = encoder.encode(documents(), "document")
        assert watched.num_shared > 1
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_compiled_layers_take_it() -> None:
    torch._dynamo.reset()
    encoder = encoder_of(model_of(), max_tokens_per_batch=2_000)
    expected = plain(encoder, documents())
    compile_layers(encoder.model.backbone, backend="eager")
    found = encoder.encode(documents(), "document")
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    torch._dynamo.reset()


def test_weights_that_change_between_passes_make_it_anew() -> None:
    encoder = encoder_of(model_of())
    first = encoder.encode(documents(), "document")
    with torch.no_grad():
        for parameter in encoder.model.parameters():
            parameter.mul_(1.1)
    second = encoder.encode(documents(), "document")
    torch.testing.assert_close(second, plain(encoder, documents()), atol=1e-5, rtol=0)
    assert not torch.allclose(first, second)


def test_a_kernel_that_masks_otherwise_is_noticed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A causal mask that begins where the keys begin: the texts would see the prefix's first."""
    encoder = encoder_of(model_of())
    expected = plain(encoder, documents())
    right = attention_grid._mask

    def masked(queries: Tensor, keys: Tensor, **more: object) -> Tensor:
        found = right(queries, keys, **more)  # type: ignore[arg-type]
        is_shared = (keys > queries).any() and int(more["max_seqlen_q"]) > 1  # type: ignore[call-overload]
        return found.roll(-9, dims=-1) if is_shared else found

    monkeypatch.setattr(attention_grid, "_mask", masked)
    with caplog.at_level("WARNING"):
        found = encoder.encode(documents(), "document")
    assert "A shared prefix does not give the same embeddings" in caplog.text
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_eight_models_under_promptreps(
    name: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path_factory.getbasetemp() / "replicas"
    folder = str(replica(name, cache).folder())
    tokenizer = TextTokenizer(tokenizer=load_tokenizer(folder), prompt=promptreps())
    assert len(tokenizer.shared_prefixes["document"]) >= 8
    backbone = load_backbone(folder, dtype=torch.float32)
    model = BiEncoder(backbone=backbone, pooling=LastToken()).eval()
    encoder = Encoder(model=model, tokenizer=tokenizer, max_tokens_per_batch=2_000)
    expected = plain(encoder, documents())
    watched = Watched(model, monkeypatch)
    found = encoder.encode(documents(), "document")
    assert watched.num_shared > 1
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
