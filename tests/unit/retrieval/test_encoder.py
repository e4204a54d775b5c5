"""Encoding: in the order given, whatever the windows and batches; the model is left as it was."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from contextlib import closing

import pytest
import torch
from torch import Tensor

from helpers.models import letter_tokenizer, tiny_bi_encoder
from quarry.data.packing import pack
from quarry.data.prompts import Prompt
from quarry.data.tokenization import TextTokenizer, TokenizedText
from quarry.errors import UserError
from quarry.models.bi_encoder import BiEncoder
from quarry.retrieval import encoder as encoder_module
from quarry.retrieval.encoder import Encoder, plan_windows
from quarry.types import Document, Query, Role, TokenBatch

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


def test_windows_double_and_cover_all() -> None:
    assert list(plan_windows(0, largest=100)) == []
    assert list(plan_windows(7, largest=3)) == [range(3), range(3, 6), range(6, 7)]
    sizes = [len(window) for window in plan_windows(9000, largest=4096)]
    assert sizes == [1024, 2048, 4096, 1832]


class WatchedTokenizer(TextTokenizer):
    """Notes how many texts it has seen, and stumbles over one of them if told so."""

    def __init__(self, *, stumbles_over: str | None = None) -> None:
        super().__init__(tokenizer=letter_tokenizer(), prompt=PROMPT)
        self.stumbles_over = stumbles_over
        self.num_seen = 0
        self.has_seen_enough = threading.Event()

    def __call__(self, items: Sequence[Query | Document], role: Role) -> list[TokenizedText]:
        if any(item.text == self.stumbles_over for item in items):
            raise UserError(f"cannot read {self.stumbles_over!r}")
        self.num_seen += len(items)
        if self.num_seen >= 8:
            self.has_seen_enough.set()
        return super().__call__(items, role)


def watched(tokenizer: TextTokenizer, *, model: BiEncoder | None = None) -> Encoder:
    return Encoder(
        model=model or tiny_bi_encoder(),
        tokenizer=tokenizer,
        max_tokens_per_batch=1000,
        num_texts_per_window=4,
    )


def test_the_next_window_is_tokenized_while_the_model_works() -> None:
    tokenizer = WatchedTokenizer()
    model = tiny_bi_encoder()
    seen_in_time: list[bool] = []
    model.register_forward_pre_hook(
        lambda *_: seen_in_time.append(tokenizer.has_seen_enough.wait(5))
    )
    watched(tokenizer, model=model).encode(DOCUMENTS, "document")
    assert seen_in_time == [True, True]


@pytest.mark.parametrize("text", [TEXTS[0], TEXTS[5]])
def test_an_error_in_tokenizing_is_raised_as_it_is(text: str) -> None:
    model = tiny_bi_encoder().train()
    with pytest.raises(UserError, match=f"cannot read '{text}'"):
        watched(WatchedTokenizer(stumbles_over=text), model=model).encode(DOCUMENTS, "document")
    assert model.training


def test_an_interrupted_encode_leaves_no_thread_and_the_mode_restored() -> None:
    model = tiny_bi_encoder().train()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    model.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        encoder(model=model, window=2).encode(DOCUMENTS * 500, "document")
    assert model.training
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]


def test_batches_arrive_in_the_order_of_the_plan(expected: torch.Tensor) -> None:
    model = tiny_bi_encoder().train()
    seen: list[int] = []
    texts = encoder(model=model, max_tokens_per_batch=24, window=5)
    with (
        closing(texts.plan(DOCUMENTS, "document")) as plan,
        closing(texts.encode_batches(plan, "document", num_texts=8)) as batches,
    ):
        for batch, embeddings in batches:
            assert batch.start == len(seen)
            seen += batch.rows.tolist()
            torch.testing.assert_close(embeddings, expected[batch.rows], atol=TOLERANCE, rtol=0)
            assert not embeddings.is_inference()
            if len(seen) >= 6:
                break
    # longest first in the first five texts, then in the others
    assert seen[:5] == [2, 4, 0, 3, 1]
    assert model.training


def test_what_is_done_is_neither_tokenized_nor_planned() -> None:
    tokenizer = WatchedTokenizer()
    planned = list(watched(tokenizer).plan(DOCUMENTS, "document", is_done=lambda w: w.start == 0))
    assert tokenizer.num_seen == 4
    assert [(batch.start, batch.rows.tolist()) for batch in planned] == [(4, [4, 6, 7, 5])]


def test_any_batches_of_a_plan_are_encoded_as_they_would_be_among_all() -> None:
    texts = encoder(max_tokens_per_batch=24, window=5)
    whole = {
        batch.start: embeddings
        for batch, embeddings in texts.encode_batches(
            texts.plan(DOCUMENTS, "document"), "document", num_texts=8
        )
    }
    some = list(texts.plan(DOCUMENTS, "document"))[::-2]
    for batch, embeddings in texts.encode_batches(some, "document", num_texts=4):
        assert torch.equal(embeddings, whole[batch.start])


def with_memory_for(num_tokens: int) -> tuple[BiEncoder, list[int]]:
    """A model whose device holds so many tokens, and the sizes of the batches it has tried."""
    model = tiny_bi_encoder()
    sizes: list[int] = []

    def refuse(_: object, args: tuple[TokenBatch]) -> None:
        sizes.append(args[0].num_tokens)
        if args[0].num_tokens > num_tokens:
            raise torch.OutOfMemoryError("CUDA out of memory")

    model.register_forward_pre_hook(refuse)
    return model, sizes


def test_a_batch_that_does_not_fit_is_halved_and_said_so_once(
    expected: Tensor, caplog: pytest.LogCaptureFixture
) -> None:
    model, sizes = with_memory_for(25)
    with caplog.at_level(logging.WARNING, logger=encoder_module.__name__):
        embeddings = encoder(model=model, max_tokens_per_batch=40).encode(DOCUMENTS, "document")
    torch.testing.assert_close(embeddings, expected, atol=TOLERANCE, rtol=0)
    assert [size for size in sizes if size > 25] == [32, 37]
    assert max(size for size in sizes if size <= 25) <= 20
    assert [record.getMessage() for record in caplog.records] == [
        "A batch of 32 tokens did not fit the device's memory; continues with at most 16 at a time "
        "(a lower evaluation.max_tokens_per_batch saves the failed attempts)"
    ]


def test_a_text_that_does_not_fit_alone_is_an_error() -> None:
    model, _ = with_memory_for(18)
    message = r"A document of 19 tokens .* alone in its batch\. Shorten prompt\.max_document_length"
    with pytest.raises(UserError, match=message):
        encoder(model=model, max_tokens_per_batch=19).encode(DOCUMENTS, "document")


def test_a_batch_of_which_half_does_not_fit_is_an_error() -> None:
    model, _ = with_memory_for(5)
    with pytest.raises(UserError, match=r"=100 does not fit .* Set evaluation\.max_tokens"):
        encoder(model=model, max_tokens_per_batch=100).encode(DOCUMENTS, "document")
    assert not model.training


@pytest.mark.parametrize("compiles", [True, False])
def test_layers_are_compiled_once_before_a_long_pass(
    compiles: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[object] = []
    monkeypatch.setattr("quarry.retrieval.encoder.compile_layers", compiled.append)
    monkeypatch.setattr(
        "quarry.retrieval.encoder.repays_compilation", lambda num_texts, device: num_texts > 3
    )
    model = tiny_bi_encoder()
    made = Encoder(
        model=model,
        tokenizer=watched(WatchedTokenizer()).tokenizer,
        max_tokens_per_batch=1000,
        compiles_long_passes=compiles,
    )
    made.encode(DOCUMENTS[:2], "document")
    assert compiled == []
    for _ in range(2):
        made.encode(DOCUMENTS, "document")
    assert compiled == ([model.backbone] if compiles else [])
