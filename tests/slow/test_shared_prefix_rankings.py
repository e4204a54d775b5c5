"""Rankings of SciFact with the shared prefix and the pooled last layer == those without."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest
import torch

from encode_prefix import PLAIN, SHARED, encoding_in
from helpers.prompts import promptreps
from helpers.real_sets import ndcg_by_query, real_set
from helpers.replicas import replica
from quarry.data.tokenization import TextTokenizer
from quarry.models.backbones.huggingface import load_backbone, load_tokenizer
from quarry.models.bi_encoder import BiEncoder
from quarry.models.pooling.last_token import LastToken
from quarry.retrieval.dense import DenseRetriever
from quarry.retrieval.encoder import Encoder
from quarry.retrieval.index.exact import ExactIndex
from quarry.types import RetrievalSet, Run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

NEAR_TIE = 2e-6
"""Cosines move by less than 1e-6 in fp32; two documents move towards each other by twice that."""


def encoder_of(name: str, *, tokenizer_folder: Path, cache_dir: Path) -> Encoder:
    """A replica with the published tokenizer, under PromptReps."""
    made = replica(name, cache_dir, tokenizer_path=str(tokenizer_folder))
    folder = str(made.folder())
    backbone = load_backbone(folder, dtype=torch.float32)
    return Encoder(
        model=BiEncoder(backbone=backbone, pooling=LastToken()).eval(),
        tokenizer=TextTokenizer(tokenizer=load_tokenizer(folder), prompt=promptreps()),
        max_tokens_per_batch=16_384,
    )


def ranked(encoder: Encoder, data: RetrievalSet, *, way: str) -> tuple[Run, int]:
    """The 100 best documents of each query, and how many batches came without a prefix."""
    num_full = 0

    def count(_: object, given: tuple[object, ...]) -> None:
        nonlocal num_full
        num_full += given[1:] in ((), (None,))

    hook = encoder.model.register_forward_pre_hook(count)
    with encoding_in(way, encoder.model):
        run = DenseRetriever(index=ExactIndex()).retrieve(data, top_k=100, encoder=encoder)
    hook.remove()
    return run, num_full


def largest_swap(plain: dict[str, float], found: dict[str, float]) -> float:
    """The largest difference, in plain scores, between the documents of one rank.

    A document that the plain run lacks has its own score: it came in at the end.
    """
    scores = [plain.get(document, score) for document, score in found.items()]
    return max(abs(a - b) for a, b in zip(plain.values(), scores, strict=True))


@pytest.mark.parametrize("name", ["qwen-base", "qwen-instruct"])
def test_rankings_of_scifact(name: str, qwen_tokenizer_folder: Path, tmp_path: Path) -> None:
    data = real_set("scifact")
    encoder = encoder_of(name, tokenizer_folder=qwen_tokenizer_folder, cache_dir=tmp_path)
    plain, _ = ranked(encoder, data, way=PLAIN)
    found, num_full = ranked(encoder, data, way=SHARED)
    assert num_full == 1  # the check
    swaps = {query: largest_swap(plain[query], found[query]) for query in plain}
    assert max(swaps.values()) < NEAR_TIE
    num_identical = sum(list(plain[query]) == list(found[query]) for query in plain)
    assert num_identical >= 0.9 * len(plain)  # the rest has near ties
    for cut in (10, 100):  # random weights have next to nothing among the first ten
        expected = statistics.mean(ndcg_by_query(data, plain, cut=cut).values())
        value = statistics.mean(ndcg_by_query(data, found, cut=cut).values())
        assert value == pytest.approx(expected, abs=1e-4)
    assert expected > 0
