"""Define the frozen types that pass between the stages, from text to report.

Text and judgements (`Query`, `Document`, `TrainExample`, `Qrels`, `RetrievalSet`) become token
batches (`TokenBatch`, `RetrievalBatch`), a loss (`LossOutput`), rankings (`Run`) and a `Report`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from statistics import fmean
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

Role = Literal["query", "document"]
ROLES: tuple[Role, ...] = ("query", "document")

Content = Literal["text", "code"]
"""Kind of a corpus: BM25 splits text and code into words differently."""

Qrels = Mapping[str, Mapping[str, int]]
"""Judgements: query id -> document id -> grade (0 and below: not relevant)."""

MAX_GRADE = 1000
"""Bound of grades, -MAX_GRADE..MAX_GRADE: trec_eval allocates an array as long as the largest."""

Run = dict[str, dict[str, float]]
"""Rankings: query id -> document id -> score. Documents rank by score; ties are broken by
descending document id, as in trec_eval."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """A search request."""

    query_id: str
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """A unit of the corpus; in training, a passage. `title` may be empty, and so may `text`."""

    document_id: str
    text: str
    title: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainExample:
    """A query with its positives, which answer it, and hard negatives, which only seem to.

    Attributes:
        positive_scores: a teacher's score of each positive; None: the data have none.
        hard_negative_scores: a teacher's score of each hard negative; None: the data have none.
        weight: above 0, how much the query counts in the loss; None: the data have none.
    """

    query: Query
    positives: tuple[Document, ...]
    hard_negatives: tuple[Document, ...] = ()
    positive_scores: tuple[float, ...] | None = None
    hard_negative_scores: tuple[float, ...] | None = None
    weight: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RetrievalSet:
    """Everything needed to evaluate retrieval on one test collection.

    `corpus` may be memory-mapped: iterate or index it, do not copy it. Every query is judged
    (its id is a key of `qrels`); a judged document may be missing from the corpus.

    Attributes:
        source: provenance of texts and judgements, for people: repository and commit, or folder,
            and split. None: not known.
        self_matches: query id -> the document that is the query itself, which is no result for it.
            Evaluation retrieves one document more and removes it from each ranking. Whatever uses
            the ranks of other documents before that (fusion) removes it first.
        caveats: what a reader of metrics on this set must know, as plain sentences without a full
            stop: judged documents that are missing, empty documents, queries that were dropped.
    """

    name: str
    queries: Sequence[Query]
    corpus: Sequence[Document]
    qrels: Qrels
    content: Content = "text"
    source: str | None = None
    self_matches: Mapping[str, str] = field(default_factory=dict)
    caveats: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenBatch:
    """Texts as one flat row of tokens, without padding (decision 1 of docs/architecture.md).

    Attributes:
        input_ids: [num_tokens] int64, the texts one after another.
        position_ids: [num_tokens] int64, counting from 0 within each text.
        cu_seqlens: [num_texts + 1] int32, where each text begins; the last entry is num_tokens.
        max_seqlen: tokens in the longest text.
        pool_starts: [num_texts] int32, index of each text's first token behind its prompt, or
            behind the text's earlier copies where the prompt repeats it. A pooling that leaves out
            the prompt begins there.
    """

    input_ids: Tensor
    position_ids: Tensor
    cu_seqlens: Tensor
    max_seqlen: int
    pool_starts: Tensor

    def __len__(self) -> int:
        """Return the number of texts."""
        return int(self.cu_seqlens.numel()) - 1

    @property
    def num_tokens(self) -> int:
        return int(self.input_ids.numel())

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> TokenBatch:
        return _mapped(self, lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> TokenBatch:
        """Return a copy in pinned memory, which a device can read while the CPU continues."""
        return _mapped(self, Tensor.pin_memory)


@dataclass(frozen=True, kw_only=True, slots=True)
class TextHashes:
    """Hashes that tell which texts of a contrastive batch are equal: int64, the same on every rank.

    Attributes:
        queries: [num_queries], hash of each query's text.
        passages: [num_passages], hash of each passage's title and text.
        answered: [num_passages], hash of the query that a positive answers; 0 for a hard negative.
            It has the layout of the passages, so it can be gathered with them.
    """

    queries: Tensor
    passages: Tensor
    answered: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class RetrievalBatch:
    """A contrastive batch: queries and passages for training in one flat row of tokens.

    Attributes:
        tokens: the queries first, then the passages, grouped by query: positive, hard negatives.
        num_queries: how many of the texts are queries.
        positive_index: [num_queries] int64, the passage (counted from the first passage) that
            answers each query.
        hashes: hashes of the texts; None if they were not computed.
        scores: [num_passages] float32, a teacher's score of each passage for its query; NaN where
            the data have none. None: the data have none for any passage of the contrastive batch,
            on any rank.
        weights: [num_queries] float32 above 0, how much each query counts; None: the data have no
            weights.
    """

    tokens: TokenBatch
    num_queries: int
    positive_index: Tensor
    hashes: TextHashes | None = None
    scores: Tensor | None = None
    weights: Tensor | None = None

    @property
    def num_passages(self) -> int:
        return len(self.tokens) - self.num_queries

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> RetrievalBatch:
        return _mapped(self, lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> RetrievalBatch:
        """Return a copy in pinned memory, which a device can read while the CPU continues."""
        return _mapped(self, Tensor.pin_memory)


@dataclass(frozen=True, kw_only=True, slots=True)
class LossOutput:
    """A scalar fp32 (or fp64) loss that carries the gradient, and detached numbers to log."""

    loss: Tensor
    metrics: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class SetResult:
    """The results of one retriever on one test collection.

    Attributes:
        name: the collection.
        metrics: measure name in reports ("nDCG@10") -> mean over all judged queries, 0..1.
        per_query: measure name in reports -> query id -> value.
        run: the ranking that was scored.
        num_queries, num_documents: size of the collection.
        convention: the evaluation rules behind the numbers, as plain data.
        group: the group that the collection belongs to, where a group counts as one: the twelve
            forums of CQADupStack, the languages of CodeSearchNet.
        source: where the collection came from, see `RetrievalSet`.
        licence: license of its data; None: not known.
        intervals: measure name in reports -> 95 % bootstrap confidence interval of the mean (low,
            high); empty until computed.
        corpus_dtype: dtype in which the corpus embeddings were searched; None: there are none, or
            it was not recorded.
        term_tokenizer: description of what a lexical retriever split texts into terms with; None:
            not a lexical retriever, or not recorded.
        caveats: see `RetrievalSet`.
    """

    name: str
    metrics: Mapping[str, float]
    per_query: Mapping[str, Mapping[str, float]]
    run: Run
    num_queries: int
    num_documents: int
    convention: Mapping[str, object] = field(default_factory=dict)
    group: str | None = None
    source: str | None = None
    licence: str | None = None
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    corpus_dtype: str | None = None
    term_tokenizer: str | None = None
    caveats: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """The results of one retriever over a benchmark, in the order of its sets.

    Attributes:
        failures: collection -> why there is no result for it.
        contract: a model's contract: "parts", how texts are fed to it, each with value and source,
            and "notes"; empty for a retriever without a model.
        training_caveats: what a reader must know of the model's training data.
    """

    retriever: str
    results: tuple[SetResult, ...]
    failures: Mapping[str, str] = field(default_factory=dict)
    contract: Mapping[str, Any] = field(default_factory=dict)
    training_caveats: tuple[str, ...] = ()

    def mean(self, measure: str) -> float:
        """Return the unweighted mean over the sets; a group counts as one set, with its mean."""
        groups: dict[str, list[float]] = {}
        for result in self.results:
            key = result.name if result.group is None else f"group {result.group}"
            groups.setdefault(key, []).append(result.metrics[measure])
        return fmean(fmean(values) for values in groups.values())


_Batch = TypeVar("_Batch")


def _mapped(batch: _Batch, function: Callable[[Tensor], Tensor]) -> _Batch:
    """Return a copy of a batch with `function` applied to each of its tensors, nested ones too."""
    values = {entry.name: getattr(batch, entry.name) for entry in fields(batch)}  # type: ignore[arg-type]
    changed = {
        name: function(value) if isinstance(value, Tensor) else _mapped(value, function)
        for name, value in values.items()
        if isinstance(value, Tensor) or is_dataclass(value)
    }
    return replace(batch, **changed)  # type: ignore[type-var]
