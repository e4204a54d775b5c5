"""Plan the evaluations of a training run: how often, what each encodes, and how fast."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from quarry.errors import MissingPathError
from quarry.planning.encoding_rate import planned_encoding_rate
from quarry.planning.encoding_work import EncodingWork
from quarry.planning.inputs import PlannedTraining
from quarry.planning.local_lengths import LocalLengths
from quarry.planning.machine import Machine
from quarry.planning.prefix_tokens import PrefixTokens
from quarry.planning.rate import Rate
from quarry.planning.step_memory import TrainingSetup


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluations:
    """Hold the evaluations before, during and after training.

    Attributes:
        number: how often; None: not known.
        num_before: of these, before the first optimizer step.
        num_texts: queries and documents of the sets whose size is known; those of a corpus that
            consecutive sets search once.
        num_tokens: of these texts.
        num_computed_tokens, prefix_tokens: see `EncodingWork`.
        largest_corpus: documents of the largest one.
        unknown_sets: the sets whose size is not known.
        rate: of encoding, of one device; None: not known.
        hours: of all of them, of the known sets; None: not known.
    """

    number: int | None
    num_before: int
    num_texts: int
    num_tokens: float
    largest_corpus: int
    unknown_sets: tuple[str, ...]
    num_computed_tokens: float
    prefix_tokens: PrefixTokens | None
    rate: Rate | None = None
    hours: float | None = None

    @property
    def is_limit(self) -> bool:
        """Return whether they take longer than `hours` says."""
        if self.prefix_tokens is None:  # for all that is known, less
            return False
        return bool(self.unknown_sets) or (self.rate is not None and self.rate.is_limit)

    @property
    def num_after_start(self) -> int:
        """Return how many follow an optimizer step; each may save a checkpoint."""
        return max(0, (self.number or self.num_before) - self.num_before)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Encoding:
    """Hold what a benchmark takes to encode, and what is missing here."""

    work: EncodingWork = field(default_factory=lambda: EncodingWork(sets=()))
    missing: tuple[str, ...] = ()


def planned_evaluations(
    inputs: PlannedTraining,
    *,
    num_steps: int | None,
    setup: TrainingSetup,
    machine: Machine,
    shares_prefix: bool,
) -> Evaluations | None:
    """Plan them without weights and network; None: there is no benchmark.

    Args:
        num_steps: optimizer steps of the run; None: not known.
        setup: of the training.
        shares_prefix: of the model, see `PlannedModel`.
    """
    num_before = int(inputs.evaluates_before)
    encoding = _encoding(inputs, shares_prefix=shares_prefix)
    if encoding is None:
        return None
    number = None
    if num_steps is not None:
        number = num_before + _num_after(num_steps, every_n_steps=inputs.every_n_steps)
    work, rate = encoding.work, _rate(inputs.step.spec.options.linear_precision, setup, machine)
    hours = None
    if rate is not None and number is not None and not (encoding.missing or work.is_unknown):
        hours = number * work.hours(tokens_per_s=rate.tokens_per_s, num_devices=setup.world_size)
    return Evaluations(
        number=number,
        num_before=num_before,
        num_texts=work.num_texts,
        num_tokens=work.num_tokens,
        largest_corpus=work.largest_corpus,
        unknown_sets=work.unknown_sets + encoding.missing,
        num_computed_tokens=work.num_computed_tokens,
        prefix_tokens=work.prefix_tokens,
        rate=rate,
        hours=hours,
    )


def _num_after(num_steps: int, *, every_n_steps: int) -> int:
    """Count those during and after training; the last one may be both."""
    is_last_due = every_n_steps > 0 and num_steps % every_n_steps == 0
    return (num_steps // every_n_steps if every_n_steps else 0) + (not is_last_due)


def _encoding(inputs: PlannedTraining, *, shares_prefix: bool) -> _Encoding | None:
    try:
        evaluator = inputs.build_evaluator()
    except MissingPathError as error:  # on the machine of the run it may be there
        return _Encoding(missing=(str(error),))
    if evaluator is None:
        return None
    step = inputs.step
    count = LocalLengths(
        evaluator=evaluator,
        prompt=step.prompt,
        tokenizer=step.load_tokenizer(),
        seed=step.data.seed,
    )
    shares_prefix = shares_prefix and not step.ranks.has_shards
    return _Encoding(work=count.work(is_stored=False, shares_prefix=shares_prefix))


def _rate(linear_precision: str | None, setup: TrainingSetup, machine: Machine) -> Rate | None:
    """Return the rate with the model in training, whose adapter is not merged."""
    if setup.stage == 3:
        return None
    slower = [] if setup.kept.trains_backbone else ["without LoRA"]
    if not setup.kept.is_compiled:
        slower.append("compiled")
    return planned_encoding_rate(
        num_linear=setup.num_linear,
        dtype=torch.bfloat16 if setup.kept.itemsize == 2 else torch.float32,
        linear_precision=linear_precision,
        card=machine.card,
        slower=tuple(slower),
    )
