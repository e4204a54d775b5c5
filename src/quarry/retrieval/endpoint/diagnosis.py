"""Find which rules of a model's contract a server breaks, by the vectors that it gave.

The vectors of each role are compared with those of the contract, of one broken rule, and then of
two and three rules of different steps. Texts that are cut come last, when the rest is known.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from quarry.data.tokenization import TokenizedText
from quarry.retrieval.endpoint.broken_rules import STEPS, Item, Rule
from quarry.retrieval.endpoint.replay import UNCUT, Cut, Replay, Rules
from quarry.types import Role

logger = logging.getLogger(__name__)

MAX_BROKEN = 3
"""Rules that are broken at once, at most. Of three one is the pooling, which needs no further
forward pass."""

EXACT = 1e-4
"""Largest 1 - cosine at which nothing better is looked for: two machines agree so in float32."""

BETTER = 4.0
"""Another explanation must be so much nearer to count, in 1 - cosine."""

LENGTHS = (32, 64, 128, 256, 384, 512, 1024, 2048, 4096, 8192)
"""Token limits that servers have."""

MAX_REPLAYED_TOKENS = 16384
"""A text that is cut to more tokens, or not at all, is not replayed beyond."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Explanation:
    """What a server does with the texts of a role.

    Attributes:
        candidates: broken rules that explain the vectors equally well, the likeliest first; a
            single empty one: the contract is kept.
        distance: largest 1 - cosine between the vectors and the first candidate's.
        is_found: the distance is small enough.
    """

    candidates: tuple[Rules, ...]
    distance: float
    is_found: bool

    @property
    def is_right(self) -> bool:
        """Return whether the contract is kept."""
        return self.is_found and self.candidates[0] == ()


def explain(
    replay: Replay,
    items: Sequence[Item],
    role: Role,
    *,
    found: Tensor,
    rules: Sequence[Rule],
    always: Rules = (),
    max_distance: float,
) -> Explanation:
    """Return the broken rules that reproduce the vectors of a role's texts.

    Args:
        items: texts that fit the lengths.
        found: [num_items, width], the server's vectors.
        rules: that may be broken.
        always: rules that are known to be broken.
        max_distance: largest 1 - cosine of vectors that count as equal.
    """
    width = found.shape[1]
    seen: set[tuple[object, ...]] = set()
    best: list[tuple[float, Rules]] = []
    for number in range(MAX_BROKEN + 1):
        if number > 1:
            logger.info(
                "No single rule explains the vectors of %s texts: trying %d at once", role, number
            )
        scored: list[tuple[float, Rules, Tensor]] = []
        for chosen in _combinations(rules, number):
            rows = replay.rows(items, role, chosen)
            identity = _identity(rows, chosen)
            if identity in seen:  # these texts do not tell it from one before
                continue
            seen.add(identity)
            vectors = replay.embeddings(rows, (*always, *chosen), width=width)
            if vectors.shape[1] == width:
                scored.append((distance(vectors, found), chosen, vectors))
        nearest = min((one for one, *_ in scored), default=2.0)
        if not best or nearest * BETTER < best[0][0]:
            best = _nearest(scored, within=max(nearest * BETTER, EXACT / 100))
        elif best[0][0] <= max_distance:
            break  # one more broken rule explains nothing better
        if best[0][0] <= EXACT:
            break
    return Explanation(
        candidates=tuple(chosen for _, chosen in best),
        distance=best[0][0],
        is_found=best[0][0] <= max_distance,
    )


def _nearest(
    scored: Sequence[tuple[float, Rules, Tensor]], *, within: float
) -> list[tuple[float, Rules]]:
    """Return the nearest explanations, in order; of those with equal vectors the first alone."""
    kept: list[tuple[float, Rules, Tensor]] = []
    for one in sorted(scored, key=lambda each: each[0]):
        is_new = all(not torch.allclose(one[2], each[2], atol=1e-6) for each in kept)
        if one[0] <= within and is_new:
            kept.append(one)
    return [(value, rules) for value, rules, _ in kept]


def distance(vectors: Tensor, found: Tensor) -> float:
    """Return the largest 1 - cosine of two sets of vectors, 2 for invalid numbers."""
    cosines = cosine_similarity(vectors.double(), found.double(), dim=-1)
    return float((1 - cosines).nan_to_num(nan=2.0).max().clamp(min=0))


def _combinations(rules: Sequence[Rule], number: int) -> Iterator[Rules]:
    """Yield the ways to break a number of rules, each of another step."""
    by_step = {step: [rule for rule in rules if rule.step == step] for step in STEPS}
    for steps in combinations([step for step in STEPS if by_step[step]], number):
        if number == MAX_BROKEN and "pooling" not in steps:
            continue
        yield from product(*(by_step[step] for step in steps))


def _identity(rows: Sequence[TokenizedText], rules: Rules) -> tuple[object, ...]:
    """Return what the vectors depend on."""
    ids = tuple((row.ids.tobytes(), row.pool_start) for row in rows)
    pooling = next((id(rule.pooling) for rule in rules if rule.pooling is not None), None)
    flips = any(rule.flips_attention for rule in rules)
    skips = any(rule.without_projections for rule in rules)
    return ids, pooling, flips, skips, any(rule.without_adapter for rule in rules)


def order_of(expected: Tensor, found: Tensor, *, max_distance: float) -> list[int] | None:
    """Return which text each vector belongs to, where they come in another order; else None."""
    if expected.shape != found.shape:
        return None
    first, second = (torch.nn.functional.normalize(each.double(), dim=1) for each in
                     (found, expected))  # fmt: skip
    nearest = (first @ second.T).max(dim=1)
    order: list[int] = nearest.indices.tolist()
    is_mixed = sorted(order) == list(range(len(order))) and order != sorted(order)
    return order if is_mixed and float(1 - nearest.values.min()) <= max_distance else None


def explain_cut(
    replay: Replay,
    item: Item,
    role: Role,
    *,
    found: Tensor,
    rules: Rules,
    max_distance: float,
) -> str | None:
    """Return what a server does with a text that is too long, as the end of a sentence.

    Args:
        found: [width], its vector.
        rules: that are broken, as the shorter texts tell; see `Explanation`.

    Returns:
        "": it is cut as the contract says. None: no way to cut explains the vector.
    """
    (own,) = replay.tokenizer([item], role)
    right, width = len(own), len(found)
    if any(rule.text or rule.prompt or rule.ids for rule in rules):
        (own,) = replay.rows([item], role, rules, Cut(length=right))
    kept = distance(replay.embeddings([own], rules, width=width), found[None])
    if kept <= EXACT / 100:
        return ""
    best, seen = (kept, ""), {own.ids.tobytes()}
    for cut, finding in _cuts(replay.tokenizer.prompt.max_length(role), right):
        (row,) = replay.rows([item], role, rules, cut)
        if row.ids.tobytes() in seen or len(row) > MAX_REPLAYED_TOKENS:
            continue
        seen.add(row.ids.tobytes())
        value = distance(replay.embeddings([row], rules, width=width), found[None])
        if value * BETTER < best[0]:
            best = (value, finding)
        if value <= EXACT / 100:
            break
    return best[1] if best[0] <= max_distance else None


def _cuts(limit: int, right: int) -> Iterator[tuple[Cut, str]]:
    """Yield ways to cut a text that is too long, each with a finding.

    Args:
        limit: of the contract.
        right: tokens of the text, cut as the contract says.
    """
    yield (
        Cut(length=right, keeps_specials=False),
        "the end token is cut off of texts that are too long",
    )
    yield Cut(length=right, side="left"), "texts are cut from their beginning on"
    near = {limit + more for more in range(-2, 3)} | {right - 1, right + 1}
    for length in sorted({*near, *LENGTHS} - {right}):
        if length < 3:
            continue
        what = f"texts are cut to {length} tokens, and the contract says {limit}"
        yield Cut(length=length), what
        yield Cut(length=length, keeps_specials=False), f"{what}; the end token is cut off, too"
    yield UNCUT, f"texts are not cut, and the contract says {limit} tokens"
