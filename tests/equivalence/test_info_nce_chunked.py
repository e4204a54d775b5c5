"""InfoNCE in chunks of rows == the plain formula on the whole matrix, loss and gradients."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from helpers.losses import output_of
from quarry.losses import info_nce
from quarry.losses.chunked_cross_entropy import chunked_cross_entropy
from quarry.losses.info_nce import InfoNCE
from quarry.types import TextHashes

NUM_QUERIES = 7
TEMPERATURE = 0.05
MASKS = [(False, False), (True, False), (False, True), (True, True)]


def embeddings(num_texts: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(num_texts, 16, dtype=dtype, generator=generator), dim=1)


def text_hashes(group_size: int) -> TextHashes:
    """Few texts, so that there are equal ones: queries of three, passages of five."""
    generator = torch.Generator().manual_seed(2)
    queries = torch.randint(1, 4, (NUM_QUERIES,), generator=generator)
    passages = torch.randint(1, 6, (NUM_QUERIES * group_size,), generator=generator)
    answered = torch.zeros(NUM_QUERIES, group_size, dtype=torch.int64)
    answered[:, 0] = queries
    return TextHashes(queries=queries, passages=passages, answered=answered.flatten())


def plain(
    queries: Tensor, passages: Tensor, positive_index: Tensor, *, removed: Tensor | None
) -> Tensor:
    logits = queries @ passages.T / TEMPERATURE
    if removed is not None:
        logits = logits.masked_fill(removed, -torch.inf)
    return cross_entropy(logits, positive_index)


def removed_by_hand(
    positive_index: Tensor, hashes: TextHashes, same_passage: bool, same_query: bool
) -> Tensor:
    """One comparison at a time, over queries and passages."""
    index, of_passages = positive_index.tolist(), hashes.passages.tolist()
    of_queries = hashes.queries.tolist()
    removed = torch.zeros(len(index), len(of_passages), dtype=torch.bool)
    for i, own in enumerate(index):
        for j in range(len(of_passages)):
            is_same_passage = of_passages[j] == of_passages[own]
            is_same_query = j in index and of_queries[index.index(j)] == of_queries[i]
            hit = (same_passage and is_same_passage) or (same_query and is_same_query)
            removed[i, j] = hit and j != own
    return removed


def with_gradients(queries: Tensor, passages: Tensor, loss: object) -> list[Tensor]:
    leaves = [queries.clone().requires_grad_(), passages.clone().requires_grad_()]
    value = loss(*leaves)  # type: ignore[operator]
    (3 * value).backward()  # a factor that must reach the gradients
    return [value.detach(), *(leaf.grad for leaf in leaves)]


@pytest.fixture(params=[1, 20, 61, 1000], ids=lambda size: f"max_{size}")
def max_similarities(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(info_nce, "MAX_SIMILARITIES", request.param)
    return int(request.param)


@pytest.mark.usefixtures("max_similarities")
@pytest.mark.parametrize(("same_passage", "same_query"), MASKS)
@pytest.mark.parametrize("num_hard_negatives", [0, 3])
def test_loss_and_gradients_equal_the_plain_formula(
    num_hard_negatives: int, same_passage: bool, same_query: bool
) -> None:
    group = 1 + num_hard_negatives
    queries, passages = embeddings(NUM_QUERIES, 0), embeddings(NUM_QUERIES * group, 1)
    positive_index, hashes = torch.arange(NUM_QUERIES) * group, text_hashes(group)
    removed = removed_by_hand(positive_index, hashes, same_passage, same_query)
    assert removed.any() == (same_passage or same_query)
    loss = InfoNCE(
        temperature=TEMPERATURE, masks_same_passage=same_passage, masks_same_query=same_query
    )
    found = with_gradients(
        queries, passages, lambda q, p: output_of(loss, q, p, positive_index, hashes).loss
    )
    expected = with_gradients(
        queries, passages, lambda q, p: plain(q, p, positive_index, removed=removed)
    )
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("max_similarities")
def test_rows_of_one_process_against_the_passages_of_all() -> None:
    queries, passages = embeddings(3, 0), embeddings(29, 1)
    positive_index = torch.tensor([20, 7, 28])
    loss = InfoNCE(temperature=TEMPERATURE)
    found = with_gradients(
        queries, passages, lambda q, p: output_of(loss, q, p, positive_index).loss
    )
    expected = with_gradients(
        queries, passages, lambda q, p: plain(q, p, positive_index, removed=None)
    )
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("max_similarities")
def test_metrics_do_not_depend_on_the_chunks() -> None:
    queries, passages = embeddings(NUM_QUERIES, 0), embeddings(NUM_QUERIES, 1)
    index = torch.arange(NUM_QUERIES)
    metrics = output_of(InfoNCE(temperature=1.0), queries, passages, index).metrics
    similarities = queries @ passages.T
    accuracy = (similarities.argmax(dim=1) == index).float().mean()
    torch.testing.assert_close(metrics["accuracy"], accuracy)
    torch.testing.assert_close(metrics["positive_similarity"], similarities.diag().mean())


def test_a_masked_copy_of_the_positive_does_not_take_its_place() -> None:
    queries = torch.eye(2)
    passages = queries[[0, 0, 1]]  # the first is a copy of the first query's positive
    hashes = TextHashes(
        queries=torch.tensor([1, 2]),
        passages=torch.tensor([5, 5, 6]),
        answered=torch.tensor([0, 1, 2]),
    )
    loss = InfoNCE(temperature=0.1, masks_same_passage=True)
    found = output_of(loss, queries, passages, torch.tensor([1, 2]), hashes)
    assert found.metrics["accuracy"] == 1.0


def test_a_query_without_any_negative_left_costs_nothing() -> None:
    same = TextHashes(**dict.fromkeys(("queries", "passages", "answered"), torch.ones(4).long()))
    loss = InfoNCE(temperature=TEMPERATURE, masks_same_query=True)
    found = with_gradients(
        embeddings(4, 0),
        embeddings(4, 1),
        lambda q, p: output_of(loss, q, p, torch.arange(4), same).loss,
    )
    assert all(not value.any() for value in found)


@pytest.fixture
def _low_precision() -> Iterator[None]:
    torch.set_float32_matmul_precision("medium")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        yield
    torch.set_float32_matmul_precision("highest")


@pytest.mark.usefixtures("_low_precision")
def test_similarities_stay_fp32_under_autocast_and_fast_products() -> None:
    queries, passages = (embeddings(NUM_QUERIES, seed, torch.float32) for seed in (0, 1))
    index = torch.arange(NUM_QUERIES)
    loss = InfoNCE(temperature=TEMPERATURE)
    found = with_gradients(queries, passages, lambda q, p: output_of(loss, q, p, index).loss)
    assert torch.get_float32_matmul_precision() == "medium"  # as it was found
    expected = with_gradients(
        queries.double(),
        passages.double(),
        # einsum of fp64 is no product that autocast knows
        lambda q, p: cross_entropy((q[:, None] * p).sum(dim=2) / TEMPERATURE, index),
    )
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == torch.float32
        # fp32 has 24 bits; bf16, with 8, would be off by 1e-3
        assert (ours - theirs).norm() <= 1e-5 * theirs.norm()


def test_half_precision_embeddings_are_widened_first() -> None:
    queries, passages = (embeddings(4, seed, torch.bfloat16) for seed in (0, 1))
    loss = InfoNCE(temperature=TEMPERATURE)
    found = output_of(loss, queries, passages, torch.arange(4)).loss
    assert torch.equal(
        found, output_of(loss, queries.float(), passages.float(), torch.arange(4)).loss
    )


def test_a_small_loss_beside_large_logits_keeps_its_digits() -> None:
    queries = torch.eye(4)
    passages = queries * 0.995 + 0.005
    losses, _ = chunked_cross_entropy(queries, passages, torch.arange(4), temperature=0.12)
    wide, _ = chunked_cross_entropy(
        queries.double(), passages.double(), torch.arange(4), temperature=0.12
    )
    assert wide.max() < 1e-3
    torch.testing.assert_close(losses.double(), wide, rtol=1e-4, atol=0)


def test_the_matrix_is_never_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            out = func(*args, **(kwargs or {}))
            sizes.extend(t.numel() for t in [out] if isinstance(t, Tensor))
            return out

    monkeypatch.setattr(info_nce, "MAX_SIMILARITIES", 300)
    queries, passages = embeddings(90, 0), embeddings(90, 1)
    loss = InfoNCE(temperature=TEMPERATURE)
    with Sizes():
        with_gradients(queries, passages, lambda q, p: output_of(loss, q, p, torch.arange(90)).loss)
    assert max(sizes) == 90 * 16  # the embeddings; the matrix would have 8,100
