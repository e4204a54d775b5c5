"""Each rank gets its own queries of a contrastive batch, with about as many tokens as others."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from helpers.joint_training import TOKENIZER, examples
from quarry.data.collation import RetrievalCollator

NUM_SHARES = 3


@pytest.mark.parametrize("is_ragged", [False, True])
def test_the_shares_are_the_contrastive_batch(is_ragged: bool) -> None:
    chosen = examples(20, is_ragged=is_ragged)
    whole = RetrievalCollator(TOKENIZER)(chosen)
    shares = [
        RetrievalCollator(TOKENIZER, rank=rank, num_shares=NUM_SHARES)(chosen)
        for rank in range(NUM_SHARES)
    ]
    assert sum(share.num_queries for share in shares) == whole.num_queries
    assert sum(share.tokens.num_tokens for share in shares) == whole.tokens.num_tokens
    assert whole.hashes is not None
    for name in ("queries", "passages", "answered"):
        found = torch.cat([getattr(share.hashes, name) for share in shares])
        expected = getattr(whole.hashes, name)
        assert torch.equal(found.sort().values, expected.sort().values)
    for share in shares:  # each positive answers its own query
        assert share.hashes is not None
        answered = share.hashes.answered[share.positive_index]
        assert torch.equal(answered, share.hashes.queries)


def test_scores_stay_with_their_passages_in_every_share() -> None:
    chosen = examples(20, is_ragged=True)
    whole = RetrievalCollator(TOKENIZER)(chosen)
    assert whole.scores is not None
    assert whole.hashes is not None
    expected = sorted(zip(whole.hashes.passages.tolist(), whole.scores.tolist(), strict=True))
    found = []
    for rank in range(NUM_SHARES):
        share = RetrievalCollator(TOKENIZER, rank=rank, num_shares=NUM_SHARES)(chosen)
        assert share.scores is not None
        assert share.hashes is not None
        found += zip(share.hashes.passages.tolist(), share.scores.tolist(), strict=True)
        assert (share.scores[share.positive_index] >= 0).all()  # those of positives, here
    assert sorted(found) == expected


def test_all_ranks_have_scores_or_none_has() -> None:
    """A loss that gathers scores would wait for those of a rank that has none."""
    with_scores, *others = examples(4, is_ragged=True)
    chosen = [
        with_scores,
        *(replace(each, positive_scores=None, hard_negative_scores=None) for each in others),
    ]
    shares = [RetrievalCollator(TOKENIZER, rank=rank, num_shares=4)(chosen) for rank in range(4)]
    assert sum(share.scores is not None for share in shares) == 4
    known = [share.scores.isfinite().any().item() for share in shares if share.scores is not None]
    assert sum(known) == 1


@pytest.mark.parametrize("is_ragged", [False, True])
def test_the_shares_are_balanced_in_tokens(is_ragged: bool) -> None:
    chosen = examples(40, is_ragged=is_ragged)
    tokens = [
        RetrievalCollator(TOKENIZER, rank=rank, num_shares=NUM_SHARES)(chosen).tokens.num_tokens
        for rank in range(NUM_SHARES)
    ]
    assert max(tokens) <= 1.03 * min(tokens)
    in_turn = [chosen[rank::NUM_SHARES] for rank in range(NUM_SHARES)]
    in_order = [RetrievalCollator(TOKENIZER)(part).tokens.num_tokens for part in in_turn]
    assert max(in_order) > 1.03 * min(in_order)  # dealt in turn they would not be


def test_text_that_is_cut_counts_as_far_as_it_is_read() -> None:
    """Two endless passages weigh no more than what the prompt lets through."""
    collator = RetrievalCollator(TOKENIZER, rank=0, num_shares=2)
    assert collator._cost(_with_text("a" * 100_000)) == collator._cost(_with_text("a" * 50_000))
    assert collator._cost(_with_text("a" * 20)) < collator._cost(_with_text("a" * 40))


def _with_text(text: str):  # type: ignore[no-untyped-def]
    example = examples(2)[1]
    return replace(example, positives=(replace(example.positives[0], text=text),))
