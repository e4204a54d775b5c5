"""Encoding: in the order given, whatever the windows and batches; the model is left as it was."""

from __future__ import annotations

import pytest
import torch

from helpers.models import letter_tokenizer, tiny_bi_encoder
from quarry.data.packing import pack
from quarry.data.prompts import Prompt
from quarry.data.tokenization import TextTokenizer
from quarry.errors import UserError
from quarry.models.bi_encoder import BiEncoder
from quarry.retrieval.encoder import Encoder
from quarry.types import Document, Query

# fp32 sums in another order; embeddings have length 1
TOLERANCE = 1e-5

TEXTS = ["abc", "", "zyxwvutsrqponmlk", "a", "hello world", "b", "abcabcabc", "queue"]
DOCUMENTS = [Document(document_id=f"d{i}", text=text) for i, text in enumerate(TEXTS)]
PROMPT = Prompt(query="Q:{text}", document="P:{text}")


def encoder(
    *, model: BiEncoder | None = None, max_tokens_per_batch: int = 1000, window: int = 1000
) -> Encoder:
    return Encoder(
        model=model or tiny_bi_encoder(),
        tokenizer=TextTokenizer(tokenizer=letter_tokenizer(), prompt=PROMPT),
        max_tokens_per_batch=max_tokens_per_batch,
        num_texts_per_window=window,
    )


@pytest.fixture(scope="module")
def expected() -> torch.Tensor:
    """One text at a time."""
    model = tiny_bi_encoder()
    tokenizer = TextTokenizer(tokenizer=letter_tokenizer(), prompt=PROMPT)
    with torch.inference_mode():
        return torch.cat([model(pack([ids])) for ids in tokenizer(DOCUMENTS, "document")])


@pytest.mark.parametrize("window", [1, 3, 8, 1000])
@pytest.mark.parametrize("max_tokens", [1, 20, 1000])
def test_order_windows_and_budgets(window: int, max_tokens: int, expected: torch.Tensor) -> None:
    embeddings = encoder(max_tokens_per_batch=max_tokens, window=window).encode(
        DOCUMENTS, "document"
    )
    assert embeddings.dtype == torch.float32
    torch.testing.assert_close(embeddings, expected, atol=TOLERANCE, rtol=0)
    # no two texts are so alike that an exchange would not show
    assert torch.pdist(expected).min() > 100 * TOLERANCE


def test_roles_have_their_own_prompt(expected: torch.Tensor) -> None:
    queries = [Query(query_id=f"q{i}", text=text) for i, text in enumerate(TEXTS)]
    as_queries = encoder().encode(queries, "query")
    assert ((as_queries - expected).norm(dim=1) > 1e-2).all()


def test_batches_keep_to_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_bi_encoder()
    sizes: list[tuple[int, int]] = []
    model.register_forward_pre_hook(
        lambda _, args: sizes.append((len(args[0]), args[0].num_tokens))
    )
    encoder(model=model, max_tokens_per_batch=24, window=5).encode(DOCUMENTS, "document")
    assert sum(num_texts for num_texts, _ in sizes) == len(TEXTS)
    assert all(num_tokens <= 24 for _, num_tokens in sizes)


def test_nothing_to_encode() -> None:
    assert encoder().encode([], "document").shape == (0, 32)


@pytest.mark.parametrize("is_training", [True, False])
def test_the_mode_is_restored_and_encoding_is_in_eval_mode(is_training: bool) -> None:
    model = tiny_bi_encoder()
    model.train(is_training)
    modes: list[bool] = []
    model.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    encoder(model=model).encode(DOCUMENTS, "document")
    assert modes == [False]
    assert model.training == model.backbone.training == is_training


def test_the_mode_is_restored_after_an_error() -> None:
    model = tiny_bi_encoder().train()
    with pytest.raises(UserError, match="max_tokens_per_batch=0"):
        encoder(model=model, max_tokens_per_batch=0).encode(DOCUMENTS, "document")
    assert model.training


def test_embeddings_carry_no_gradient_and_can_be_used_outside() -> None:
    embeddings = encoder().encode(DOCUMENTS[:2], "document")
    assert not embeddings.requires_grad
    assert not embeddings.is_inference()


def test_embeddings_of_a_half_precision_model_are_fp32() -> None:
    model = tiny_bi_encoder(dtype=torch.bfloat16)
    embeddings = encoder(model=model).encode(DOCUMENTS, "document")
    assert embeddings.dtype == torch.float32
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(len(TEXTS)), atol=1e-6, rtol=0)
