"""Encode queries and documents with a bi-encoder, in batches counted in tokens."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
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
from quarry.models.backbones.text_model import text_model
from quarry.models.bi_encoder import BiEncoder
from quarry.models.compilation import compile_layers, is_compiled, repays_compilation
from quarry.models.shared_prefix import SharedPrefix
from quarry.retrieval.corpus_embeddings import CorpusEmbeddings, MemoryCorpus
from quarry.retrieval.download import Download, Downloader
from quarry.retrieval.embeddings import EmbeddingShare
from quarry.retrieval.encoding_plan import Dealer, PlannedBatch, own_batches, plan_windows
from quarry.retrieval.pass_prefix import PassPrefixes
from quarry.retrieval.window_tokens import (
    NUM_TEXTS_PER_CALL,
    Piece,
    WindowTokenizer,
    own_pieces,
)
from quarry.runtime.ahead import run_ahead
from quarry.runtime.progress import Progress
from quarry.types import Document, Query, Role

logger = logging.getLogger(__name__)

NUM_ROWS_PER_EXCHANGE = 8_192
"""Embeddings that ranks exchange at a time."""

NUM_BATCHES_AHEAD = 2
"""Batches by which the CPU may be ahead of a GPU: enough to hide it, with little memory."""


class Encoder:
    """Encoder of texts in their order, on any number of ranks.

    Texts are tokenized and sorted by length a window at a time, so a corpus larger than memory is
    read once, in order. The contents of a batch depend on the texts and the budget alone.

    A thread tokenizes the next window while the model encodes this one; ranks tokenize a share each
    and exchange the tokens. On CUDA the CPU is two batches ahead of the device, and results are
    downloaded on a separate stream. The prompt's prefix, which all texts share, runs through the
    model once a pass where that is exact (see `BiEncoder.encode_prefix`).

    Args:
        model: used in eval mode without gradients; its mode is restored.
        tokenizer: renders the prompt and limits the length.
        max_tokens_per_batch: tokens in one forward pass.
        num_texts_per_window: texts that are sorted together; the first windows are smaller.
        compiles_long_passes: compile the layers, once, before the first pass of so many texts that
            it repays (see `compilation.repays_compilation`). Not while the model is trained: other
            kernels would change the bits of what follows.
    """

    def __init__(
        self,
        *,
        model: BiEncoder,
        tokenizer: TextTokenizer,
        max_tokens_per_batch: int,
        num_texts_per_window: int = 16_384,
        compiles_long_passes: bool = False,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.max_tokens_per_batch = max_tokens_per_batch
        self.num_texts_per_window = num_texts_per_window
        self.compiles_long_passes = compiles_long_passes
        self._has_warned = False
        self._prefixes = PassPrefixes(model)
        self._prefix: SharedPrefix | None = None

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return next(iter(self.model.parameters())).device

    @property
    def has_equal_steps(self) -> bool:
        """Whether all ranks must run equally many forward passes, as with sharded weights."""
        return is_sharded(self.model)

    def encode(self, items: Sequence[Query | Document], role: Role, *, label: str = "") -> Tensor:
        """Return embeddings [num_texts, dim], fp32, on the CPU.

        Each rank encodes a share, and all ranks receive all embeddings.

        Args:
            role: decides about prompt and length of the texts.
            label: name of the progress, on a terminal and in the log.

        Raises:
            UserError: a text, or half a batch, does not fit the device's memory.
        """
        # numpy's zeros take no memory before something is written
        dim = self.model.embedding_dim
        embeddings = torch.from_numpy(np.zeros((len(items), dim), dtype=np.float32))
        with closing(self._encode_own(items, role, label=label)) as batches:
            for rows, encoded in batches:
                embeddings[torch.from_numpy(rows)] = encoded
        if world.size() > 1:  # rows that other ranks encode are 0 here
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
        """Return this rank's share of the embeddings; other arguments and errors as in `encode`.

        Args:
            place: empty storage for this corpus, which receives the embeddings. None: memory,
                float32.
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
        """Yield batches of a plan, each with its embeddings [num_texts, dim], fp32, on the CPU.

        Any batches in any order: each is encoded by itself. The model is in eval mode until the
        generator ends or is closed.

        Args:
            batches: batches of this rank.
            num_texts: approximate number of texts in all batches; decides whether compilation pays.
        """
        was_training = self.model.training
        self.model.eval()
        self._compile_if_repaid(num_texts)
        try:
            downloader = Downloader(self.device)
            num_ahead = NUM_BATCHES_AHEAD if self.device.type == "cuda" else 0
            on_the_way: deque[tuple[PlannedBatch, Download]] = deque()
            if not self.has_equal_steps:
                ids = self.tokenizer.shared_prefixes[role]
                self._prefix = self._prefixes.encode(ids, device=self.device)
            for batch in batches:
                if batch.is_idle:
                    self._forward(batch.texts)
                    continue
                on_the_way.append((batch, downloader.start(self._embed(batch.texts, role))))
                if len(on_the_way) > num_ahead:
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
        """Yield this rank's batches of these items, in order; tokenizes ahead of its consumer.

        The batches depend on the texts and the budget alone, not on the ranks. All ranks must call
        this with the same arguments, and consume it to the end.

        Args:
            is_done: whether texts (a range of them in the plan, a window or a batch) are all done.
                Completed windows are not tokenized, completed batches are not yielded.
        """
        windows = [
            window
            for window in plan_windows(len(items), largest=self.num_texts_per_window)
            if not is_done(window)
        ]
        tokenize = WindowTokenizer(
            lambda texts: self.tokenizer(items[texts.start : texts.stop], role)
        )
        dealer = Dealer(has_equal_steps=self.has_equal_steps)

        def dealt(piece: Piece) -> list[PlannedBatch]:
            tokens = tokenize(piece)
            if tokens is None:
                return []
            budget = self.max_tokens_per_batch
            return own_batches(
                piece.window, tokens, dealer=dealer, max_tokens_per_batch=budget, is_done=is_done
            )

        pieces = (piece for window in windows for piece in own_pieces(window))
        # each of N ranks holds its own batches only: N windows ahead take the memory of one
        num_ahead = -(-self.num_texts_per_window // NUM_TEXTS_PER_CALL)
        with closing(run_ahead(dealt, pieces, num_ahead=num_ahead)) as found:
            for batches in found:
                yield from batches
        yield from dealer.rest()

    def _embed(self, token_ids: Sequence[TokenizedText], role: Role) -> Tensor:
        """Return embeddings [num_texts, dim] on the device; halve the budget if memory runs out."""
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
                    "more memory or fewer ranks."
                ) from error
        # the memory of the failed pass is released only here, outside the handler
        torch.cuda.empty_cache()
        lengths = [len(ids) for ids in token_ids]
        budget = max(min(self.max_tokens_per_batch, sum(lengths)) // 2, 1)
        self._warn(sum(lengths), budget)
        try:
            # the batch is sorted already, longest first: the concatenated halves are in its order
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
        """Return the prefix of this pass if every text begins with it and is longer."""
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
        # weights that are gathered in inference mode could not be trained afterwards
        with torch.no_grad() if self.has_equal_steps else torch.inference_mode():
            embeddings: Tensor = self.model(tokens.to(device, non_blocking=True), prefix)
        return embeddings

    def _compile_if_repaid(self, num_texts: int) -> None:
        backbone = self.model.backbone
        if (
            self.compiles_long_passes
            and repays_compilation(num_texts, device=self.device)
            and not self.has_equal_steps
            and not is_compiled(backbone)
        ):
            self.compiles_long_passes = False  # once, also where compiling fails
            compile_layers(text_model(backbone))

    def _warn(self, num_tokens: int, budget: int) -> None:
        log = logger.debug if self._has_warned else logger.warning
        self._has_warned = True
        log(
            "A batch of %d tokens did not fit the device's memory; continues with at most %d at a "
            "time (a lower evaluation.max_tokens_per_batch saves the failed attempts)",
            num_tokens,
            budget,
        )


def _arrived(sent: tuple[PlannedBatch, Download]) -> tuple[PlannedBatch, Tensor]:
    batch, download = sent
    return batch, download.result()
