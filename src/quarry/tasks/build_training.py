"""Build the parts of a training run from its configuration, as one typed object."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig
from pytorch_lightning.loggers import Logger

from quarry.assembly.evaluation_encoder import unique_encoder_builder
from quarry.assembly.evaluation_parts import build_baseline, build_evaluator, build_retriever
from quarry.assembly.mining_corpus import check_mining_corpus
from quarry.assembly.model_parts import ModelParts, build_model_parts
from quarry.assembly.origin import origin_of
from quarry.assembly.refreshing import prepare_refreshing, refreshing_of
from quarry.assembly.run_start import recorded_contract, stored_hyperparameters
from quarry.assembly.saving import ModelSaver
from quarry.assembly.strategy import build_optimizer
from quarry.assembly.train_examples import build_examples
from quarry.assembly.trainer import build_trainer, opened_loggers
from quarry.assembly.training_loss import build_loss, check_loss
from quarry.assembly.wandb_identity import identity_of
from quarry.config.contract import contract_terms
from quarry.config.instantiate import build, build_named
from quarry.config.resume_command import resume_command
from quarry.config.training_rules import num_mined
from quarry.config.world_size import zero_stage
from quarry.data.datamodule import RetrievalDataModule
from quarry.distributed import world
from quarry.evaluation.evaluator import Evaluator
from quarry.losses.base import Loss
from quarry.models.building import build_bi_encoder
from quarry.planning.step_fit import StepFit
from quarry.retrieval.golden_texts import golden_embeddings
from quarry.runtime.files import write_json
from quarry.runtime.run_directory import RunDirectory
from quarry.tasks.optimized_metric import check_optimized_metric
from quarry.tasks.training_reports import BEST, TRAINED, TrainingReports
from quarry.training.callbacks.best_model import BestModel
from quarry.training.callbacks.cost_meter import CostMeter
from quarry.training.callbacks.last_checkpoint import LastCheckpoint
from quarry.training.callbacks.loss_history import LossHistory
from quarry.training.callbacks.model_saving import ModelSaving
from quarry.training.callbacks.retrieval_evaluation import RetrievalEvaluation
from quarry.training.callbacks.rng_state import RNGState
from quarry.training.callbacks.training_progress import TrainingProgress
from quarry.training.evaluation_log import metric_names
from quarry.training.module import RetrievalModule
from quarry.training.monitors import check_monitors


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """The evaluation of a training run.

    Attributes:
        callback: evaluates the model before, during and after training.
        reports: collects its reports and the baseline's.
    """

    evaluator: Evaluator
    callback: RetrievalEvaluation
    reports: TrainingReports


@dataclass(frozen=True, kw_only=True)
class Training:
    """A training run that is built but not started; weights load in the Trainer's setup.

    Attributes:
        module: the LightningModule.
        saver: writes the trained model.
        saving: calls `saver` at the end of training.
        evaluated: None without a benchmark.
        meter, losses: callbacks that record cost and loss, for the summary and the plots.
        best: the callback that saves the best model, if it is configured.
        origin: digests of what the run begins with; on rank 0, where there are checkpoints.
        build_trainer: loggers -> Lightning's Trainer with all callbacks.
        open_loggers: returns a context that yields the loggers; ranks other than 0 have none.
    """

    run: RunDirectory
    module: RetrievalModule
    datamodule: RetrievalDataModule
    saver: ModelSaver
    saving: ModelSaving
    evaluated: Evaluated | None
    meter: CostMeter
    losses: LossHistory
    best: BestModel | None
    origin: Mapping[str, str]
    build_trainer: Callable[..., pl.Trainer]
    open_loggers: Callable[[], AbstractContextManager[list[Logger]]]


def build_training(config: DictConfig, run: RunDirectory) -> Training:
    """Seed all random numbers, then build the run; no weights are loaded.

    Args:
        run: the run directory, with the configuration stored in it.

    Raises:
        UserError: the tokenizer, the data or the benchmark cannot be used as configured.
    """
    pl.seed_everything(config.seed, workers=True, verbose=False)
    loss = build_loss(config)
    parts = build_model_parts(config)
    datamodule = build_datamodule(config, parts)
    width = parts.spec.embedding_dim(parts.spec.source.backbone_config())
    frames = parts.tokenizer.frames
    check_loss(loss, dataset=datamodule.dataset, embedding_dim=width, frames=frames)
    evaluator = build_evaluator(config)
    meter, losses = CostMeter(times=None if evaluator is None else evaluator.times), LossHistory()
    module = build_module(config, run, parts, datamodule, loss=loss)
    saver = ModelSaver(parts=parts, terms=contract_terms(config))
    evaluated = None
    if evaluator is not None:
        caveats = datamodule.dataset.caveats
        evaluated = build_evaluated(config, run, parts, evaluator, caveats=caveats)
    configured = build_callbacks(
        config, save_model=partial(save_best, saver=saver, module=module, evaluated=evaluated)
    )
    saving = ModelSaving(partial(saver.save, run.model))
    progress = TrainingProgress(times=meter.times, is_bar=config.trainer.get("enable_progress_bar"))
    own: list[pl.Callback] = [meter, losses, progress, RNGState()]
    if (refreshing := refreshing_of(configured)) is not None:
        prepare_refreshing(
            refreshing, config, parts, run, datamodule=datamodule, loss=loss, times=meter.times
        )
        configured.remove(refreshing)
        own.append(refreshing)  # after the meter, which would count it as training
    own += [*([] if evaluated is None else [evaluated.callback]), saving]
    return Training(
        run=run,
        module=module,
        datamodule=datamodule,
        saver=saver,
        saving=saving,
        evaluated=evaluated,
        meter=meter,
        losses=losses,
        best=next((each for each in configured if isinstance(each, BestModel)), None),
        origin=_tell_checkpoints(configured, config, parts, module=module, datamodule=datamodule),
        build_trainer=partial(
            build_trainer,
            config.trainer,
            run_dir=config.paths.run_dir,
            callbacks=[*configured, *own],
            accumulate_grad_batches=datamodule.num_batches_per_step,
        ),
        open_loggers=partial(
            opened_loggers,
            config.logger,
            identity=identity_of(config, run, job_type="train"),
            hyperparameters=partial(stored_hyperparameters, run),
        ),
    )


def _tell_checkpoints(
    callbacks: Sequence[pl.Callback],
    config: DictConfig,
    parts: ModelParts,
    *,
    module: RetrievalModule,
    datamodule: RetrievalDataModule,
) -> Mapping[str, str]:
    """Tell `LastCheckpoint`, if it is configured, what it stores and how it checks the end."""
    last = next((each for each in callbacks if isinstance(each, LastCheckpoint)), None)
    if last is None:
        return {}
    last.probe = lambda: golden_embeddings(module.model, parts.tokenizer)
    last.zero_stage = zero_stage(config)
    last.resume_command = resume_command(config, config.paths.run_dir)
    if world.is_launched_first():
        memo = Path(config.paths.cache_dir).expanduser() / "digests"
        last.origin = origin_of(parts, datamodule.dataset.examples, memo=memo)
    return last.origin


def build_module(
    config: DictConfig,
    run: RunDirectory,
    parts: ModelParts,
    datamodule: RetrievalDataModule,
    *,
    loss: Loss,
) -> RetrievalModule:
    """Build the LightningModule, with the number of optimizer steps."""
    num_steps = datamodule.num_training_steps(
        max_epochs=config.trainer.max_epochs, max_steps=config.trainer.max_steps
    )
    num_texts = round(num_steps * datamodule.num_texts_per_step)
    return RetrievalModule(
        build_model=partial(build_bi_encoder, parts.spec, num_texts=num_texts),
        loss=loss,
        optimizer=build_optimizer(config),
        scheduler=build(config.scheduler),
        num_training_steps=num_steps,
        settle_memory=StepFit(config, run, parts.spec),
    )


def build_datamodule(config: DictConfig, parts: ModelParts) -> RetrievalDataModule:
    """Build the data module, which yields contrastive batches."""
    data = config.data
    contrastive_batch_size = config.loss.get("contrastive_batch_size")
    return RetrievalDataModule(
        examples=build_examples(data),
        tokenizer=parts.tokenizer,
        num_hard_negatives=data.num_hard_negatives,
        global_batch_size=data.global_batch_size,
        contrastive_batch_size=contrastive_batch_size or data.global_batch_size,
        num_workers=data.num_workers,
        seed=config.seed,
        num_mined=num_mined(config),
    )


def build_evaluated(
    config: DictConfig,
    run: RunDirectory,
    parts: ModelParts,
    evaluator: Evaluator,
    *,
    caveats: tuple[str, ...],
) -> Evaluated:
    """Build the evaluation before, during and after training.

    Args:
        caveats: of the training data, for the reports of the trained model.
    """
    evaluation = config.evaluation
    reports = TrainingReports(
        evaluator=evaluator,
        run=run,
        baseline=build_baseline(config, beside=[TRAINED]),
        before_training=evaluation.before_training,
    )
    callback = RetrievalEvaluation(
        evaluator=evaluator,
        retriever=build_retriever(config),
        build_encoder=unique_encoder_builder(config, parts),
        every_n_steps=evaluation.every_n_steps,
        before_training=evaluation.before_training,
        on_report=reports.add,
        name=TRAINED,
        baseline=reports.baseline,
        num_examples=evaluation.num_examples,
        contract=recorded_contract(run),
        training_caveats=caveats,
    )
    return Evaluated(evaluator=evaluator, callback=callback, reports=reports)


def build_callbacks(
    config: DictConfig, *, save_model: Callable[[Path, Mapping[str, Any]], None]
) -> list[pl.Callback]:
    """Build the configured callbacks; one with `_partial_: true` receives `save_model`."""
    built = build_named(config.callbacks)
    return [each(save_model=save_model) if isinstance(each, partial) else each for each in built]


def check_callbacks(config: DictConfig) -> None:
    """Refuse callbacks and `optimized_metric` that need a metric no evaluation will have.

    Raises:
        UserError: a monitored metric or `optimized_metric` does not exist, or the baseline is
            invalid.
    """
    evaluator = build_evaluator(config)
    callbacks = build_callbacks(config, save_model=lambda folder, facts: None)
    if (refreshing := refreshing_of(callbacks)) is not None:
        check_mining_corpus(refreshing.corpus, key="callbacks.refresh_negatives.corpus")
    if evaluator is not None:
        build_baseline(config, beside=[TRAINED])
    names = [] if evaluator is None else metric_names(evaluator)
    check_optimized_metric(config.optimized_metric, names)
    check_monitors(
        callbacks,
        names=names,
        every_n_steps=config.evaluation.every_n_steps,
    )


def save_best(
    folder: Path,
    facts: Mapping[str, Any],
    *,
    saver: ModelSaver,
    module: RetrievalModule,
    evaluated: Evaluated | None,
) -> None:
    """Save the best model so far, its metric, and its report under the name "best".

    A collective operation: all ranks save, rank 0 writes.

    Args:
        folder: for the model.
        facts: monitor, step and value, written to a JSON file beside the folder.
    """
    assert evaluated is not None, "a monitored metric comes from an evaluation"
    report = evaluated.callback.last_report
    assert report is not None, "it is the last evaluation that was the best"
    saver.save(folder, model=module.model)
    if world.is_launched_first():
        write_json(folder.with_suffix(".json"), facts)
        evaluated.reports.write(replace(report, retriever=BEST))
