"""Encodes queries and documents with a bi-encoder, in batches counted in tokens."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from quarry.data.packing import pack, plan_batches
from quarry.data.tokenization import TextTokenizer, TokenizedText
from quarry.distributed import world
from quarry.distributed.zero import is_sharded
from quarry.errors import UserError
from quarry.models.bi_encoder import BiEncoder
from quarry.models.shared_prefix import SharedPrefix
from quarry.retrieval.corpus_embeddings import CorpusEmbeddings, MemoryCorpus
from quarry.retrieval.download import Download, Downloader
from quarry.retrieval.embeddings import EmbeddingShare
from quarry.retrieval.pass_prefix import PassPrefixes
from quarry.retrieval.plan import PlannedBatch, own_batches, plan_windows
from quarry.runtime.ahead import run_ahead
from quarry.runtime.progress import Progress
from quarry.types import Document, Query, Role

logger = logging.getLogger(__name__)

NUM_TEXTS_PER_CALL = 256
"""Texts that are tokenised at a time: few enough that the model's launches never wait for long."""

NUM_ROWS_PER_EXCHANGE = 8_192
"""Embeddings that processes exchange at a time."""

NUM_BATCHES_AHEAD = 2
"""Batches the CPU may be ahead of the device: enough to hide it, and no more memory than that."""


class Encoder:
    """Texts in, embeddings out, in the order of the texts, in any number of processes.

    Texts are tokenised and sorted by length a window at a time, so a corpus larger than memory is
    read once, in order. What is in a batch depends on the texts and the budget alone.

    A thread tokenises the next window while the model works on this one. On CUDA the CPU is two
    batches ahead of the device, and results leave it on a stream of their own. What the prompt puts
    in front of every text goes through the model once a pass, where that is exact (see
    `BiEncoder.encode_prefix`).

    Args:
        model: used in eval mode without gradients, left in the mode it was in.
        tokenizer: prompt and lengths.
        max_tokens_per_batch: tokens in one forward pass.
        num_texts_per_window: texts that are sorted together; the first windows are smaller.
    """

    def __init__(
        self,
        *,
        model: BiEncoder,
        tokenizer: TextTokenizer,
        max_tokens_per_batch: int,
        num_texts_per_window: int = 16_384,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.max_tokens_per_batch = max_tokens_per_batch
        self.num_texts_per_window = num_texts_per_window
        self._has_warned = False
        self._prefixes = PassPrefixes(model)
        self._prefix: SharedPrefix | None = None

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(iter(self.model.parameters())).device

    @property
    def has_equal_steps(self) -> bool:
        """Whether all processes have to run as many forward passes: weights are in shards."""
        return is_sharded(self.model)

    def encode(self, items: Sequence[Query | Document], role: Role, *, label: str = "") -> Tensor:
        """Embeddings [num_texts, dim], fp32, on the CPU. Several processes encode a share each, and
        all of them get the whole.

        Args:
            role: which prompt and length the texts get.
            label: names the progress, on a terminal and in the log.

        Raises:
            UserError: a text, or half a batch, does not fit the device's memory.
        """
        # numpy's zeros take no memory before something is written
        dim = self.model.embedding_dim
        embeddings = torch.from_numpy(np.zeros((len(items), dim), dtype=np.float32))
        with closing(self._encode_own(items, role, label=label)) as batches:
            for rows, encoded in batches:
                embeddings[torch.from_numpy(rows)] = encoded
        if world.size() > 1:  # what others have encoded is 0 here
            for piece in embeddings.split(NUM_ROWS_PER_EXCHANGE):
                piece.copy_(world.total(piece.to(self.device)))
        return embeddings

    def encode_share(
        self,
        items: Sequence[Query | Document],
        role: Role,
        *,
        label: str = "",
        place: CorpusEmbeddings | None = None,
    ) -> EmbeddingShare:
        """Return what this rank has encoded of it; other arguments and errors as in `encode`.

        Args:
            place: empty, for this corpus; it gets the embeddings. None: memory, in float32.
        """
        if place is None:
            place = MemoryCorpus(
                num_texts=len(items),
                dim=self.model.embedding_dim,
                dtype="float32",
                what=label or role,
            )
        with closing(self._encode_own(items, role, label=label)) as batches:
            for rows, encoded in batches:
                place.add(rows, encoded)
        return place.share()

    def _encode_own(
        self, items: Sequence[Query | Document], role: Role, *, label: str
    ) -> Generator[tuple[NDArray[np.int64], Tensor]]:
        """Yield items of this rank and their embeddings, a batch at a time."""
        with (
            closing(self.plan(items, role)) as plan,
            closing(self.encode_batches(plan, role, num_texts=len(items))) as batches,
            Progress(
                label=label or role, total=len(items), units="texts", num_ranks=world.size()
            ) as progress,
        ):
            for batch, encoded in batches:
                yield batch.rows, encoded
                progress.add(len(batch.rows), num_tokens=sum(map(len, batch.texts)))

    def encode_batches(
        self, batches: Iterable[PlannedBatch], role: Role, *, num_texts: int
    ) -> Generator[tuple[PlannedBatch, Tensor]]:
        """Embeddings [num_texts of the batch, dim], fp32, on the CPU, of batches of a plan.

        Any batches of it in any order: each is encoded for itself. Several processes hand in the
        same ones, and each encodes its share. The model is in eval mode until the generator ends
        or is closed.

        Args:
            num_texts: in all batches, or so; whether compiling the model pays depends on it.
        """
        was_training = self.model.training
        self.model.eval()
        self.model.prepare(num_texts=num_texts)
        try:
            downloader = Downloader(self.device)
            on_the_way: deque[tuple[PlannedBatch, Download]] = deque()
            has_equal_steps = self.has_equal_steps
            if not has_equal_steps:
                ids = self.tokenizer.shared_prefixes[role]
                self._prefix = self._prefixes.encode(ids, device=self.device)
            for batch in own_batches(batches, has_equal_steps=has_equal_steps):
                if batch.is_idle:
                    self._forward(batch.texts)
                    continue
                on_the_way.append((batch, downloader.start(self._embed(batch.texts, role))))
                if len(on_the_way) > NUM_BATCHES_AHEAD:
                    yield _arrived(on_the_way.popleft())
            yield from map(_arrived, on_the_way)
        finally:
            self._prefix = None
            self.model.train(was_training)

    def plan(
        self,
        items: Sequence[Query | Document],
        role: Role,
        *,
        is_done: Callable[[range], bool] = lambda _: False,
    ) -> Generator[PlannedBatch]:
        """All batches of these items, in order; tokenises a window ahead of its reader.

        Args:
            is_done: whether the batches of a window (the range of their texts in the plan) are all
                done; what is done is neither tokenised nor planned again.
        """
        windows = [
            window
            for window in plan_windows(len(items), largest=self.num_texts_per_window)
            if not is_done(window)
        ]
        calls = (call for window in windows for call in _cut(window, NUM_TEXTS_PER_CALL))
        num_ahead = -(-self.num_texts_per_window // NUM_TEXTS_PER_CALL)

        def tokenise(call: range) -> list[TokenizedText]:
            return self.tokenizer(items[call.start : call.stop], role)

        with closing(run_ahead(tokenise, calls, num_ahead=num_ahead)) as tokenised:
            for window in windows:
                texts: list[TokenizedText] = []
                while len(texts) < len(window):
                    texts += next(tokenised)
                start = window.start
                lengths = [len(text) for text in texts]
                for rows in plan_batches(lengths, max_tokens_per_batch=self.max_tokens_per_batch):
                    yield PlannedBatch(
                        start=start, rows=window.start + rows, texts=[texts[row] for row in rows]
                    )
                    start += len(rows)

    def _embed(self, token_ids: Sequence[TokenizedText], role: Role) -> Tensor:
        """Embeddings [num_texts, dim] on the device; halves the budget if memory runs out."""
        try:
            return self._forward(token_ids)
        except torch.OutOfMemoryError as error:
            if self.has_equal_steps:  # the others would wait for the second half
                raise UserError(
                    f"max_tokens_per_batch={self.max_tokens_per_batch} does not fit the device's "
                    f"memory. Set evaluation.max_tokens_per_batch={self.max_tokens_per_batch // 2}."
                ) from error
            if len(token_ids) == 1:
                raise UserError(
                    f"A {role} of {len(token_ids[0])} tokens does not fit the device's memory, "
                    f"alone in its batch. Shorten prompt.max_{role}_length, or use a device with "
                    "more memory or fewer processes."
                ) from error
        # only here, outside the handler, is what the failed pass had allocated given back
        torch.cuda.empty_cache()
        lengths = [len(ids) for ids in token_ids]
        budget = max(min(self.max_tokens_per_batch, sum(lengths)) // 2, 1)
        self._warn(sum(lengths), budget)
        try:
            # longest first, as the batch is sorted already: the halves end to end are in its order
            halves = plan_batches(lengths, max_tokens_per_batch=budget)
            return torch.cat([self._forward([token_ids[row] for row in rows]) for rows in halves])
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"max_tokens_per_batch={self.max_tokens_per_batch} does not fit the device's "
                f"memory, nor do {budget} tokens at a time (longest text: {max(lengths)} tokens). "
                f"Set evaluation.max_tokens_per_batch={max(budget // 2, 1)} or less, or shorten "
                f"prompt.max_{role}_length."
            ) from error

    def _prefix_of(self, texts: Sequence[TokenizedText]) -> SharedPrefix | None:
        """Return the prefix of this pass if every text begins with it and has more."""
        prefix = self._prefix
        if prefix is None:
            return None
        ids = prefix.ids
        begin = all(len(t) > len(ids) and np.array_equal(t.ids[: len(ids)], ids) for t in texts)
        return prefix if begin else None

    def _forward(self, token_ids: Sequence[TokenizedText]) -> Tensor:
        device = self.device
        prefix = self._prefix_of(token_ids)
        tokens = pack(token_ids, num_shared=0 if prefix is None else len(prefix))
        if device.type == "cuda":
            tokens = tokens.pin_memory()
        # weights that are fetched in inference mode could not be trained after
        with torch.no_grad() if self.has_equal_steps else torch.inference_mode():
            embeddings: Tensor = self.model(tokens.to(device, non_blocking=True), prefix)
        return embeddings

    def _warn(self, num_tokens: int, budget: int) -> None:
        log = logger.debug if self._has_warned else logger.warning
        self._has_warned = True
        log(
            "A batch of %d tokens did not fit the device's memory; it goes on at most %d at a time "
            "(a lower evaluation.max_tokens_per_batch saves the failed attempts)",
            num_tokens,
            budget,
        )


def _arrived(sent: tuple[PlannedBatch, Download]) -> tuple[PlannedBatch, Tensor]:
    batch, download = sent
    return batch, download.result()


def _cut(whole: range, size: int) -> Iterator[range]:
    return (whole[start : start + size] for start in range(0, len(whole), size))
