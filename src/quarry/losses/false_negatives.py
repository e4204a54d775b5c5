"""Tell which passages are left out of a query's negatives: by their text, or by a margin."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from quarry.losses.chunked_cross_entropy import Excluded
from quarry.losses.loss_inputs import LossInputs

MarginKind = Literal["absolute", "relative"]


def same_texts(inputs: LossInputs, *, same_passage: bool, same_query: bool) -> Excluded | None:
    """Return which of `all_passages` are false negatives by their text; None: nothing is asked.

    Args:
        same_passage: those with the text of the query's positive.
        same_query: positives of queries with the same text.
    """
    if not (same_passage or same_query):
        return None
    hashes, every = inputs.hashes, inputs.all_hashes
    assert hashes is not None, "the masks compare texts by their hashes"
    assert every is not None
    own_queries, passages, answered = hashes.queries, every.passages, every.answered
    positives = hashes.passages[inputs.positive_index]

    def excluded(rows: slice) -> Tensor:
        mask = torch.zeros((), dtype=torch.bool, device=positives.device)
        if same_passage:
            mask = mask | (positives[rows, None] == passages)
        if same_query:
            mask = mask | (own_queries[rows, None] == answered)
        return mask

    return excluded


def same_pairs(inputs: LossInputs, *, same_passage: bool, same_query: bool) -> Excluded:
    """Return which of all pairs (query, its positive) are this rank's own, or equal it in a text.

    Args:
        same_passage: pairs whose positive has the same text.
        same_query: pairs whose query has the same text.
    """
    num_queries, start = len(inputs.queries), inputs.of_queries.start
    own = torch.arange(start, start + num_queries, device=inputs.queries.device)
    every = torch.arange(len(inputs.all_positive_index), device=own.device)
    hashes = inputs.all_hashes if same_passage or same_query else None

    def excluded(rows: slice) -> Tensor:
        mask = own[rows, None] == every
        if same_query:
            assert hashes is not None, "the masks compare texts by their hashes"
            mask |= hashes.queries[own[rows], None] == hashes.queries
        if same_passage:
            assert hashes is not None, "the masks compare texts by their hashes"
            positives = hashes.passages[inputs.all_positive_index]
            mask |= positives[own[rows], None] == positives
        return mask

    return excluded


def beyond_margin(
    queries: Tensor, passages: Tensor, positive_index: Tensor, *, margin: float, kind: MarginKind
) -> Excluded:
    """Return which passages are more similar to a query than its positive less a margin.

    Args:
        queries: [num_queries, dim].
        passages: [num_passages, dim].
        positive_index: [num_queries], the row of `passages` that answers each query.
        margin: of cosine if the kind is absolute, else part of the positive's similarity.
        kind: "absolute" or "relative".
    """
    queries, passages = queries.detach(), passages.detach()
    positive = (queries * passages[positive_index]).sum(dim=1)
    width = margin if kind == "absolute" else margin * positive.abs()
    threshold = positive - width

    def excluded(rows: slice) -> Tensor:
        return queries[rows] @ passages.T > threshold[rows, None]

    return excluded


def any_of(*masks: Excluded | None) -> Excluded | None:
    """Return a mask of what any of the masks leaves out."""
    given = [mask for mask in masks if mask is not None]
    if len(given) < 2:
        return given[0] if given else None

    def excluded(rows: slice) -> Tensor:
        found = given[0](rows)
        for mask in given[1:]:
            found = found | mask(rows)
        return found

    return excluded
