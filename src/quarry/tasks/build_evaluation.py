"""Build the parts of an evaluation from its configuration, as one typed object."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytorch_lightning as pl
from omegaconf import DictConfig

from quarry.assembly.evaluation_encoder import stored_encoder_builder, unique_encoder_builder
from quarry.assembly.evaluation_parts import build_baseline, build_evaluator, build_retriever
from quarry.assembly.model_parts import build_model_parts, settle_contract
from quarry.assembly.preflight import preflight
from quarry.assembly.run_start import share_run_directory
from quarry.assembly.strategy import planned_spread
from quarry.assembly.trainer import build_trainer
from quarry.config.instantiate import build
from quarry.config.overrides import warn_without_effect
from quarry.config.settled_contract import SettledContract
from quarry.distributed import world
from quarry.errors import UserError
from quarry.evaluation.evaluator import Evaluator
from quarry.models.bi_encoder import BiEncoder
from quarry.models.building import build_bi_encoder
from quarry.retrieval.embeddings import TextEncoder
from quarry.retrieval.reranked import stages_of
from quarry.retrieval.retriever import Retriever
from quarry.tasks.optimized_metric import check_optimized_metric
from quarry.training.callbacks.cost_meter import CostMeter
from quarry.training.evaluation_log import metric_names


@dataclass(frozen=True, kw_only=True)
class TestedModel:
    """A model that can be built and evaluated.

    Attributes:
        name: name of its report.
        build_model: loads it, see `build_bi_encoder`.
        build_encoder: bi-encoder -> encoder.
    """

    name: str
    build_model: Callable[..., BiEncoder]
    build_encoder: Callable[[BiEncoder], TextEncoder]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """An evaluation that is built but not started; no weights are loaded.

    Attributes:
        baseline: a retriever without a model, for comparison; None: there is none.
        meter: records the cost, for the summary.
        contract: how texts are fed to the model; None where the retriever needs no model.
        model: None where the retriever needs no model.
        reference: the same model in `reference_dtype`, whose embeddings are compared.
        num_examples: queries a set that W&B receives with their best documents.
        build_trainer: callbacks, loggers -> Lightning's Trainer.
    """

    retriever: Retriever
    baseline: Retriever | None
    evaluator: Evaluator
    meter: CostMeter
    contract: SettledContract | None
    model: TestedModel | None
    reference: TestedModel | None
    reference_dtype: str
    num_examples: int
    build_trainer: Callable[..., pl.Trainer]


def build_evaluation(config: DictConfig) -> Evaluation:
    """Check and build an evaluation; a collective operation, to be called on all ranks.

    Args:
        config: receives how texts are fed to the model, and rank 0's run directory.

    Raises:
        UserError: there is nothing to evaluate, or the model cannot be loaded or does not fit.
    """
    retriever = build_retriever(config)
    baseline = build_baseline(config, beside=[stage.name for stage in stages_of(retriever)])
    evaluator = build_evaluator(config)
    if evaluator is None:
        raise UserError("benchmark=none leaves nothing to evaluate: choose another, see --help.")
    # also refuses clashing names, before hours of encoding
    check_optimized_metric(config.optimized_metric, metric_names(evaluator))
    dtype = config.evaluation.compare_dtype
    contract = model = reference = None
    if retriever.uses_encoder:
        contract = settle_contract(config)
    else:
        _check_without_model(retriever.name, compare_dtype=dtype)
    share_run_directory(config)
    if retriever.uses_encoder:
        if world.is_launched_first():
            preflight(build(config.model), is_trained=False, spread=planned_spread(config))
        model = _tested_model(config, name=retriever.name)
        if dtype is not None:
            reference = _tested_model(
                in_plain_dtype(config, dtype), name=f"{retriever.name}-{dtype}"
            )
    return Evaluation(
        retriever=retriever,
        baseline=baseline,
        evaluator=evaluator,
        meter=CostMeter(times=evaluator.times),
        contract=contract,
        model=model,
        reference=reference,
        reference_dtype=str(dtype),
        num_examples=config.evaluation.num_examples,
        build_trainer=partial(build_trainer, config.trainer, run_dir=config.paths.run_dir),
    )


def _tested_model(config: DictConfig, *, name: str) -> TestedModel:
    parts = build_model_parts(config)
    if config.evaluation.store:
        build_encoder = stored_encoder_builder(config, parts)
    else:
        build_encoder = unique_encoder_builder(config, parts, compiles_long_passes=True)
    return TestedModel(
        name=name,
        build_model=partial(build_bi_encoder, parts.spec, is_trained=False),
        build_encoder=build_encoder,
    )


def in_plain_dtype(config: DictConfig, dtype: str) -> DictConfig:
    """Return the configuration of the same model in that dtype, without fp8."""
    other = copy.deepcopy(config)
    other.model.linear_precision = None
    other.model.dtype = dtype
    return other


def _check_without_model(retriever: str, *, compare_dtype: str | None) -> None:
    """Refuse or warn about keys that have no effect on a retriever without a model."""
    if compare_dtype is not None:
        raise UserError(
            f"evaluation.compare_dtype={compare_dtype} has no effect with retriever={retriever}, "
            "which embeds nothing. Leave it out."
        )
    names = ("store", "store_dtype", "corpus_on_disk", "corpus_dtype")
    warn_without_effect(
        ["paths.store_dir", *(f"evaluation.{name}" for name in names)],
        reason=f"retriever={retriever}, which embeds nothing",
    )
