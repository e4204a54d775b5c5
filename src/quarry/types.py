"""The nouns of the road from text to report: one small frozen type for every arrow.

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
"""What a corpus holds; BM25 cuts the two into words differently."""

Qrels = Mapping[str, Mapping[str, int]]
"""Judgements: query id -> document id -> grade (0 and below: not relevant)."""

MAX_GRADE = 1000
"""Grades lie between its negative and it: trec_eval keeps an array as long as the largest one."""

Run = dict[str, dict[str, float]]
"""Rankings: query id -> document id -> score. The order is that of the scores, ties by document
id descending, as trec_eval ranks."""


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
    """A query with the passages that answer it and passages that look like answers but are not.

    Attributes:
        positive_scores: a teacher's score of each positive; None: the data have none.
        hard_negative_scores: a teacher's score of each hard negative; None: the data have none.
    """

    query: Query
    positives: tuple[Document, ...]
    hard_negatives: tuple[Document, ...] = ()
    positive_scores: tuple[float, ...] | None = None
    hard_negative_scores: tuple[float, ...] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RetrievalSet:
    """Everything needed to evaluate retrieval on one test collection.

    `corpus` may be memory-mapped: iterate or index it, do not copy it. Every query is judged
    (its id is a key of `qrels`); a judged document may be missing from the corpus.

    Attributes:
        source: where the texts and judgements came from, for people: repository and commit, or
            folder, and split. None: not known.
        self_matches: query id -> the document that is the query itself and no result for it.
            Evaluation asks for one document more and takes it out of each ranking; who looks at
            other documents' places before that (fusion) takes it out first.
        caveats: what a reader of numbers on it must know, in plain sentences without a full stop:
            judged documents that are missing, empty documents, queries that were dropped.
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
        pool_starts: [num_texts] int32, where in the row each text begins behind its prompt, or its
            last copy where the prompt repeats it: what a pooling without the prompt begins with.
    """

    input_ids: Tensor
    position_ids: Tensor
    cu_seqlens: Tensor
    max_seqlen: int
    pool_starts: Tensor

    def __len__(self) -> int:
        """Number of texts."""
        return int(self.cu_seqlens.numel()) - 1

    @property
    def num_tokens(self) -> int:
        return int(self.input_ids.numel())

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> TokenBatch:
        return _mapped(self, lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> TokenBatch:
        """A copy that a device can read while the CPU goes on."""
        return _mapped(self, Tensor.pin_memory)


@dataclass(frozen=True, kw_only=True, slots=True)
class TextHashes:
    """Which texts of a contrast set are equal: int64 hashes, the same in every process.

    Attributes:
        queries: [num_queries], of each query's text.
        passages: [num_passages], of each passage's title and text.
        answered: [num_passages], of the query that a positive answers; 0 for a hard negative. Laid
            out as the passages are, it can be gathered with them.
    """

    queries: Tensor
    passages: Tensor
    answered: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class RetrievalBatch:
    """One contrast set for training: queries and passages in a single flat row of tokens.

    Attributes:
        tokens: the queries first, then the passages, grouped by query: positive, hard negatives.
        num_queries: how many of the texts are queries.
        positive_index: [num_queries] int64, the passage (counted from the first passage) that
            answers each query.
        hashes: of the texts; None where tokens were made without any.
        scores: [num_passages] float32, a teacher's score of each passage for its query; NaN where
            the data have none. None: they have none for any passage of the contrastive batch, on
            any rank.
    """

    tokens: TokenBatch
    num_queries: int
    positive_index: Tensor
    hashes: TextHashes | None = None
    scores: Tensor | None = None

    @property
    def num_passages(self) -> int:
        return len(self.tokens) - self.num_queries

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> RetrievalBatch:
        return _mapped(self, lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> RetrievalBatch:
        """A copy that a device can read while the CPU goes on."""
        return _mapped(self, Tensor.pin_memory)


@dataclass(frozen=True, kw_only=True, slots=True)
class LossOutput:
    """A scalar fp32 (or fp64) loss that carries the gradient, and detached numbers to log."""

    loss: Tensor
    metrics: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class SetResult:
    """What one retriever reached on one test collection.

    Attributes:
        name: the collection.
        metrics: report name of a measure ("nDCG@10") -> mean over all judged queries, 0..1.
        per_query: report name of a measure -> query id -> value.
        run: the ranking that was scored.
        num_queries, num_documents: size of the collection.
        convention: the rules that the numbers were made under, as plain data.
        group: what the collection is a part of, where parts count as one: the twelve forums of
            CQADupStack, the languages of CodeSearchNet.
        source: where the collection came from, see `RetrievalSet`.
        licence: of its data; None: not known.
        intervals: report name of a measure -> where 95 % of its bootstrapped means lie (low, high);
            empty until they are computed.
        corpus_dtype: in which the embeddings of the corpus were searched; None: there are none, or
            it was not recorded.
        term_tokenizer: what a lexical retriever cut the texts into terms with, in words; None: none
            did, or it was not recorded.
        caveats: of the collection, see `RetrievalSet`.
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
        contract: of a model: "parts", how texts were fed to it, each with value and source, and
            "notes"; empty for what has no model.
        training_caveats: what a reader must know of the data that the model was trained on.
    """

    retriever: str
    results: tuple[SetResult, ...]
    failures: Mapping[str, str] = field(default_factory=dict)
    contract: Mapping[str, Any] = field(default_factory=dict)
    training_caveats: tuple[str, ...] = ()

    def mean(self, measure: str) -> float:
        """Unweighted mean over the sets; those of a group count as one, with their mean."""
        groups: dict[str, list[float]] = {}
        for result in self.results:
            key = result.name if result.group is None else f"group {result.group}"
            groups.setdefault(key, []).append(result.metrics[measure])
        return fmean(fmean(values) for values in groups.values())


_Batch = TypeVar("_Batch")


def _mapped(batch: _Batch, function: Callable[[Tensor], Tensor]) -> _Batch:
    """A copy of a batch with each of its tensors, however deep, as `function` makes it."""
    values = {entry.name: getattr(batch, entry.name) for entry in fields(batch)}  # type: ignore[arg-type]
    changed = {
        name: function(value) if isinstance(value, Tensor) else _mapped(value, function)
        for name, value in values.items()
        if isinstance(value, Tensor) or is_dataclass(value)
    }
    return replace(batch, **changed)  # type: ignore[type-var]
