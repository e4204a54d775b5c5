"""Score pairs of query and document with a reranker, in batches counted in tokens."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import logsigmoid

from quarry.data.packing import pack, plan_batches
from quarry.data.pair_tokenization import Pair, PairTokenizer, TokenizedPair
from quarry.data.prompts import joined_text
from quarry.distributed import world
from quarry.errors import SharedError, UserError
from quarry.models.rerankers.reranker_files import Activation
from quarry.models.rerankers.reranker_models import PackedReranker, Reranker
from quarry.retrieval.rerankers.score_cache import ScoreCache
from quarry.retrieval.unique_texts import ChosenItems, UniqueTexts, unique_texts
from quarry.runtime.ahead import run_ahead
from quarry.runtime.progress import Progress

logger = logging.getLogger(__name__)

NUM_PAIRS_PER_BLOCK = 256
"""Pairs that are sorted by length together, and stored together: what a kill may cost."""

Block = NDArray[np.float32]
"""[2, num_pairs]: the logit of each pair, and 1 where it was cut."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PairScores:
    """Scores of pairs.

    Attributes:
        scores: [num_pairs] float32, higher is more relevant.
        num_unique: different pairs.
        num_cut: different pairs that were longer than allowed.
    """

    scores: NDArray[np.float32]
    num_unique: int
    num_cut: int


class Scorer(Protocol):
    """A way to score pairs."""

    def score(self, pairs: Sequence[Pair], *, label: str) -> PairScores: ...


class PairScorer:
    """Scorer of pairs on any number of ranks, which share the blocks; equal pairs are scored once.

    The contents of a batch depend on the pairs and the budget alone, so that the scores do not
    depend on the number of ranks, nor on an interruption.

    Args:
        model: in eval mode, on its device.
        tokenizer: of pairs.
        activation: applied to logits.
        max_tokens_per_batch: tokens in one forward pass, with padding where there is some.
        cache: of finished blocks; None: nothing is stored.
        description: what the reranker is and how it scores, as plain data, for reports.
    """

    def __init__(
        self,
        *,
        model: Reranker,
        tokenizer: PairTokenizer,
        activation: Activation,
        max_tokens_per_batch: int,
        cache: ScoreCache | None = None,
        description: Mapping[str, object] | None = None,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.activation = activation
        self.max_tokens_per_batch = max_tokens_per_batch
        self.cache = cache
        self.description = dict(description or {})

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return next(iter(self.model.parameters())).device

    def score(self, pairs: Sequence[Pair], *, label: str) -> PairScores:
        """Return the scores of pairs, in their order, on every rank.

        Args:
            pairs: may be read lazily; they are read twice.
            label: name of the progress, and in messages.

        Raises:
            UserError: a pair does not fit the device's memory, or a score is not finite.
        """
        unique = unique_texts(pairs, text_of_pair)
        starts = range(0, len(unique), NUM_PAIRS_PER_BLOCK)
        own = [s for number, s in enumerate(starts) if number % world.size() == world.rank()]
        found: list[tuple[int, Block]] = []
        failure: Exception | None = None
        try:
            found += self._blocks(pairs, unique, own, label=label)
        except Exception as error:
            if world.size() == 1:
                raise
            failure = error
        rows = np.zeros((2, len(unique)), dtype=np.float32)
        for start, block in _of_all(found, failure):
            rows[:, start : start + block.shape[1]] = block
        logits = rows[0][unique.text_of]
        refuse_infinite(logits, pairs, label=label)
        num_cut = int(rows[1].sum())
        if num_cut:
            logger.warning(
                "%s: %d of %d pairs are longer than max_length=%d, and their documents were cut",
                label, num_cut, len(unique), self.tokenizer.max_length,
            )  # fmt: skip
        return PairScores(
            scores=activated(logits, self.activation), num_unique=len(unique), num_cut=num_cut
        )

    def _blocks(
        self, pairs: Sequence[Pair], unique: UniqueTexts, starts: Sequence[int], *, label: str
    ) -> Iterator[tuple[int, Block]]:
        """Yield the blocks of this rank; tokenizes ahead of the model."""
        chosen = ChosenItems(pairs, unique.first)

        def known_or_tokenized(start: int) -> Block | list[TokenizedPair]:
            part = slice(start, start + NUM_PAIRS_PER_BLOCK)
            known = None if self.cache is None else self.cache.read(unique.hashes[part])
            return self.tokenizer(chosen[part]) if known is None else known

        total = sum(min(NUM_PAIRS_PER_BLOCK, len(unique) - start) for start in starts)
        work = run_ahead(known_or_tokenized, starts, num_ahead=1)
        with (
            closing(work) as found,
            Progress(
                label=label, total=total * world.size(), units="pairs", num_ranks=world.size()
            ) as progress,
        ):
            for start, known in zip(starts, found, strict=True):
                if not isinstance(known, list):
                    progress.add(known.shape[1])
                    yield start, known
                    continue
                block = self._scored(known)
                if self.cache is not None and np.isfinite(block).all():
                    self.cache.write(unique.hashes[start : start + len(known)], block)
                progress.add(len(known), num_tokens=sum(map(len, known)))
                yield start, block

    def _scored(self, texts: Sequence[TokenizedPair]) -> Block:
        block = np.empty((2, len(texts)), dtype=np.float32)
        block[1] = [text.is_cut for text in texts]
        is_packed = isinstance(self.model, PackedReranker)
        plan = plan_batches if is_packed else _padded_batches
        forward = self._packed if is_packed else self._padded
        lengths = np.array([len(text) for text in texts], dtype=np.int64)
        for rows in plan(lengths, max_tokens_per_batch=self.max_tokens_per_batch):
            try:
                # cached scores must not depend on the autocast of a training
                with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
                    block[0, rows] = forward([texts[row] for row in rows]).cpu().numpy()
            except torch.OutOfMemoryError as error:
                raise UserError(
                    f"max_tokens_per_batch={self.max_tokens_per_batch}: {len(rows)} pairs of up to "
                    f"{lengths.max()} tokens do not fit the device's memory. Fix: "
                    f"evaluation.max_tokens_per_batch={max(self.max_tokens_per_batch // 2, 1)}, or "
                    "a smaller max_length"
                ) from error
        return block

    def _packed(self, texts: list[TokenizedPair]) -> Tensor:
        rows = [_without_padding(text.ids, self.model.padding_id) for text in texts]
        logits: Tensor = self.model(pack(rows).to(self.device))
        return logits

    def _padded(self, texts: list[TokenizedPair]) -> Tensor:
        longest = max(map(len, texts))
        ids = np.full((len(texts), longest), self.model.padding_id, dtype=np.int64)
        mask, types = np.zeros_like(ids), np.zeros_like(ids)
        for row, text in enumerate(texts):
            ids[row, : len(text)] = text.ids
            mask[row, : len(text)] = 1
            if text.type_ids is not None:
                types[row, : len(text)] = text.type_ids
        inputs = [torch.from_numpy(each).to(self.device) for each in (ids, mask, types)]
        logits: Tensor = self.model(*inputs)
        return logits


def activated(logits: NDArray[np.float32], activation: Activation) -> NDArray[np.float32]:
    """Apply an activation in fp32."""
    if activation == "identity":
        return logits
    values = torch.from_numpy(logits)
    result: NDArray[np.float32]
    result = (torch.sigmoid(values) if activation == "sigmoid" else logsigmoid(values)).numpy()
    return result


def _without_padding(ids: NDArray[np.int64], padding_id: int | None) -> NDArray[np.int64]:
    """Return a pair without the padding tokens at its end; its first token stays."""
    others = np.flatnonzero(ids != padding_id) if padding_id is not None else [len(ids) - 1]
    return ids[: int(others[-1]) + 1] if len(others) else ids[:1]


def _padded_batches(
    lengths: NDArray[np.int64], *, max_tokens_per_batch: int
) -> list[NDArray[np.int64]]:
    """Group pairs, longest first; the budget counts each with the length of its batch's longest."""
    order = np.argsort(-lengths, kind="stable")
    batches, start = [], 0
    while start < len(order):
        size = max(1, max_tokens_per_batch // int(lengths[order[start]]))
        batches.append(order[start : start + size])
        start += size
    return batches


def text_of_pair(pair: Pair) -> str:
    """Return a text that is equal for pairs of equal texts alone."""
    query, document = pair
    return f"{len(query.text)}:{query.text}{joined_text(document)}"


def _of_all(own: list[tuple[int, Block]], failure: Exception | None) -> Iterator[tuple[int, Block]]:
    """Yield the blocks of all ranks; raise on each what failed on one."""
    reason = None
    if failure is not None:
        is_users = isinstance(failure, UserError)
        reason = is_users, str(failure) if is_users else f"{type(failure).__name__}: {failure}"
    for rank, (blocks, of_rank) in enumerate(world.gathered((own, reason))):
        if of_rank is not None:
            is_users, message = of_rank
            if is_users:
                raise SharedError(message) from failure
            raise RuntimeError(f"On rank {rank}: {message}") from failure
        yield from blocks


def refuse_infinite(logits: NDArray[np.float32], pairs: Sequence[Pair], *, label: str) -> None:
    """Refuse scores that are NaN or infinite, with the first pair."""
    wrong = np.flatnonzero(~np.isfinite(logits))
    if len(wrong):
        query, document = pairs[int(wrong[0])]
        raise UserError(
            f"{label}: the model gives {logits[wrong[0]]} to query {query.query_id!r} and "
            f"document {document.document_id!r} ({len(wrong)} of {len(logits)} pairs). Fix: a "
            "model with finite weights, or dtype=float32"
        )
