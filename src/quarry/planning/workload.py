"""Count the work of a run: examples, optimizer steps, and tokens of a sample or a bound."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from quarry.data.collation import CHARACTERS_PER_TOKEN
from quarry.data.datamodule import num_optimizer_steps
from quarry.data.msmarco import NotDownloadedError
from quarry.data.prompts import Prompt, joined_text
from quarry.data.sampler import TrainBatchSampler
from quarry.data.tokenization import TextTokenizer
from quarry.data.train_dataset import TrainDataset
from quarry.errors import MissingPathError, UserError
from quarry.planning.group_sizes import GroupSizes
from quarry.planning.inputs import PlannedStep, TrainingData
from quarry.runtime.hub_access import from_cache_alone
from quarry.types import TrainExample

NUM_SAMPLED = 256
"""Examples that are tokenized."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """Hold the size of the training data, and the work that follows from it.

    Attributes:
        num_examples, num_steps: None: not known.
        num_batches_per_step: contrastive batches of an optimizer step.
        group_sizes: passages of a query; all examples are counted where they are here.
        tokens_per_query: of a query with its passages, on average.
        tokens_per_passage: on average; where tokens are stated, as if queries had none.
        deviation: of `tokens_per_query` from query to query, apart from what the number of
            passages explains.
        is_bound: the number is the most that the prompt lets through.
        tokens_from, examples_from: where the numbers come from, for people.
        num_missing_bytes: of a training set that is still to be downloaded.
    """

    num_examples: int | None
    num_steps: int | None
    global_batch_size: int
    num_batches_per_step: int
    group_sizes: GroupSizes
    tokens_per_query: float
    tokens_per_passage: float
    deviation: float
    is_bound: bool
    tokens_from: str
    examples_from: str
    num_missing_bytes: int

    @property
    def num_texts_per_step(self) -> float:
        """Return the queries and passages of an optimizer step, on average."""
        return self.global_batch_size * (1 + self.group_sizes.mean)

    @property
    def tokens_per_step(self) -> float:
        return self.tokens_per_query * self.global_batch_size

    @property
    def num_tokens(self) -> float | None:
        """Return the tokens of the complete run; None: not known."""
        return None if self.num_steps is None else self.num_steps * self.tokens_per_step

    @property
    def tokens_per_epoch(self) -> float | None:
        return None if self.num_examples is None else self.num_examples * self.tokens_per_query


@dataclass(frozen=True, kw_only=True, slots=True)
class _Lengths:
    """Hold tokens of queries with their passages, and where the numbers come from."""

    mean: float
    per_passage: float
    deviation: float = 0.0
    is_bound: bool = False
    source: str


def planned_workload(
    step: PlannedStep, *, num_examples: int | None, tokens_per_query: float | None
) -> Workload:
    """Count the work of a run, in its training data where they are here.

    Args:
        num_examples: of the training set; None: counted.
        tokens_per_query: of a query with its passages, on average; None: counted in a sample.
            With both the data are not read.

    Raises:
        UserError: the data are invalid, or too few for an optimizer step.
    """
    for key, value in (("num_examples", num_examples), ("tokens_per_query", tokens_per_query)):
        if value is not None and not value > 0:
            raise UserError(f"task.{key}={value} must be above 0, or null: counted in the data.")
    data = step.data
    dataset, found, reason, missing = None, num_examples, "stated", 0
    if num_examples is None or tokens_per_query is None:
        dataset, known, why, missing = _read(data)
        if num_examples is None:
            found, reason = known, why
    num_steps = _num_steps(data, found)
    sizes = _group_sizes(data, dataset, num_examples=found, num_steps=num_steps)
    lengths = _lengths(step, dataset, sizes, tokens_per_query)
    return Workload(
        num_examples=found,
        num_steps=num_steps,
        global_batch_size=data.global_batch_size,
        num_batches_per_step=data.num_batches_per_step,
        group_sizes=sizes,
        tokens_per_query=lengths.mean,
        tokens_per_passage=lengths.per_passage,
        deviation=lengths.deviation,
        is_bound=lengths.is_bound,
        tokens_from=lengths.source,
        examples_from=reason,
        num_missing_bytes=missing,
    )


def _read(data: TrainingData) -> tuple[TrainDataset | None, int | None, str, int]:
    """Return the training set, its size, the source of that, and bytes still to download."""
    try:
        with from_cache_alone():
            examples = data.read_examples()
    except NotDownloadedError as error:
        return None, error.num_examples, "as published; not downloaded yet", error.num_bytes
    except MissingPathError as error:
        return None, None, f"not known: {error}", 0
    dataset = TrainDataset(
        examples=examples,
        num_hard_negatives=data.num_hard_negatives,
        seed=data.seed,
        num_mined=data.num_mined,
    )
    return dataset, len(dataset), "counted", 0


def _group_sizes(
    data: TrainingData,
    dataset: TrainDataset | None,
    *,
    num_examples: int | None,
    num_steps: int | None,
) -> GroupSizes:
    if dataset is None or num_examples is None or num_steps is None:
        return GroupSizes.stated(data.num_hard_negatives)
    return GroupSizes.counted(
        dataset, _sampler(data, num_examples), num_batches=num_steps * data.num_batches_per_step
    )


def _lengths(
    step: PlannedStep,
    dataset: TrainDataset | None,
    sizes: GroupSizes,
    tokens_per_query: float | None,
) -> _Lengths:
    if tokens_per_query is not None:
        return _Lengths(
            mean=tokens_per_query,
            per_passage=tokens_per_query / sizes.mean,
            source=f"stated{_assumption(sizes)}",
        )
    if dataset is None:
        prompt = step.prompt
        return _Lengths(
            mean=prompt.max_query_length + sizes.mean * prompt.max_document_length,
            per_passage=prompt.max_document_length,
            is_bound=True,
            source=f"the most that the prompt lets through{_assumption(sizes)}",
        )
    return _sampled(step, dataset, sizes)


def _sampled(step: PlannedStep, dataset: TrainDataset, sizes: GroupSizes) -> _Lengths:
    """Return the lengths by a sample of the examples, tokenized where the tokenizer is here."""
    number = min(NUM_SAMPLED, len(dataset))
    chosen = np.random.default_rng(step.data.seed).choice(len(dataset), number, replace=False)
    sample = [dataset[0, int(index)] for index in chosen]
    tokenizer = step.load_tokenizer()
    if tokenizer is None:
        tokens = [_by_characters(example, step.prompt) for example in sample]
        source = (
            f"{number} examples at {CHARACTERS_PER_TOKEN} characters a token: the hub's tokenizer "
            "is not here"
        )
    else:
        tokens, source = _counted(sample, tokenizer), f"{number} examples, tokenized"
    return _from_sample(tokens, sizes, source=source)


def _assumption(sizes: GroupSizes) -> str:
    if not sizes.is_assumed:
        return ""
    return (
        f", assuming {sizes.largest - 1} hard negatives a query (data.num_hard_negatives=null, and "
        "they are not counted)"
    )


def _from_sample(tokens: Sequence[_GroupTokens], sizes: GroupSizes, *, source: str) -> _Lengths:
    """Return the lengths of all queries with their passages, from those of some.

    The number of passages is known of all examples: it corrects the sample's mean, and the
    deviation is that of the rest, which no number of passages explains.
    """
    num_passages = [each.num_passages for each in tokens]
    per_passage = sum(each.passages for each in tokens) / sum(num_passages)
    mean_passages = statistics.fmean(num_passages)
    rest = [each.total - per_passage * (each.num_passages - mean_passages) for each in tokens]
    return _Lengths(
        mean=statistics.fmean(each.total for each in tokens)
        + per_passage * (sizes.mean - mean_passages),
        per_passage=per_passage,
        deviation=statistics.pstdev(rest),
        source=source,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _GroupTokens:
    """Hold the tokens of one query, and of its passages together."""

    query: int
    passages: int
    num_passages: int

    @property
    def total(self) -> int:
        return self.query + self.passages


def _counted(sample: Sequence[TrainExample], tokenizer: TextTokenizer) -> list[_GroupTokens]:
    passages = [(*example.positives, *example.hard_negatives) for example in sample]
    queries = tokenizer([example.query for example in sample], "query")
    return [
        _GroupTokens(
            query=len(query.ids),
            passages=sum(len(text.ids) for text in tokenizer(group, "document")),
            num_passages=len(group),
        )
        for query, group in zip(queries, passages, strict=True)
    ]


def _by_characters(example: TrainExample, prompt: Prompt) -> _GroupTokens:
    def tokens(text: str, longest: int) -> int:
        return min(1 + len(text) // CHARACTERS_PER_TOKEN, longest)

    texts = [joined_text(each) for each in (*example.positives, *example.hard_negatives)]
    return _GroupTokens(
        query=tokens(example.query.text, prompt.max_query_length),
        passages=sum(tokens(text, prompt.max_document_length) for text in texts),
        num_passages=len(texts),
    )


def _num_steps(data: TrainingData, num_examples: int | None) -> int | None:
    if num_examples is None:
        return None if data.max_steps == -1 else int(data.max_steps)
    return num_optimizer_steps(
        len(_sampler(data, num_examples)) // data.num_batches_per_step,
        max_epochs=data.max_epochs,
        max_steps=data.max_steps,
    )


def _sampler(data: TrainingData, num_examples: int) -> TrainBatchSampler:
    return TrainBatchSampler(
        num_examples=num_examples,
        batch_size=data.contrastive_batch_size,
        num_batches_per_step=data.num_batches_per_step,
        seed=data.seed,
    )
