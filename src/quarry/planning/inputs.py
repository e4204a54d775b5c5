"""Turn a run's configuration into typed values, once; what plans a run takes nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from quarry.assembly.evaluation_parts import build_baseline, build_evaluator
from quarry.assembly.model_parts import ModelParts, build_model_parts, settle_contract
from quarry.assembly.strategy import planned_spread, settle_dtype
from quarry.assembly.train_examples import build_examples
from quarry.config.instantiate import build
from quarry.config.training_rules import num_mined
from quarry.config.world_size import world_size, zero_stage
from quarry.data.prompts import Prompt
from quarry.data.tokenization import TextTokenizer
from quarry.data.train_examples import ExampleSource
from quarry.errors import UserError
from quarry.evaluation.evaluator import Evaluator
from quarry.models.memory import Spread
from quarry.models.model_spec import ModelSpec
from quarry.planning.disk import SavedFiles
from quarry.planning.host import CorpusPlace
from quarry.planning.memory_fit import AskedChoice
from quarry.planning.zero_buffers import ZeroBuffers
from quarry.retrieval.reranked import RerankedRetriever, stages_of
from quarry.retrieval.retriever import Retriever
from quarry.runtime.devices import has_gpu

LoadTokenizer = Callable[[], TextTokenizer | None]
"""Returns None where there is no model, or its tokenizer is on a hub that cannot be reached."""

BuildEvaluator = Callable[[], Evaluator | None]
"""Returns None where there is no benchmark."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranks:
    """Describe the ranks of a run and how they share its states.

    Attributes:
        world_size: the world size.
        zero_stage: 0: not ZeRO.
        offloads_parameters, offloads_optimizer: see `ZeroStrategy`.
    """

    world_size: int
    num_nodes: int
    zero_stage: int
    spread: Spread
    offloads_parameters: bool
    offloads_optimizer: bool

    @property
    def per_node(self) -> int:
        return self.world_size // self.num_nodes

    @property
    def has_shards(self) -> bool:
        """Return whether weights are in shards: no prefix is shared (`Encoder.has_equal_steps`)."""
        return self.zero_stage == 3


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingData:
    """Describe the training set and how batches are made of it.

    Attributes:
        read_examples: reads the training set.
        num_hard_negatives: of a query; None: all that it has.
        num_mined: the most of a query once they are mined in training.
        max_steps, max_epochs: as the trainer takes them.
    """

    read_examples: Callable[[], ExampleSource]
    global_batch_size: int
    contrastive_batch_size: int
    num_hard_negatives: int | None
    num_mined: int
    seed: int
    max_steps: int
    max_epochs: int | None

    @property
    def num_batches_per_step(self) -> int:
        """Return the contrastive batches of an optimizer step."""
        return self.global_batch_size // self.contrastive_batch_size


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedStep:
    """Hold what decides the work and memory of an optimizer step.

    Attributes:
        precision: of the trainer, such as "bf16-mixed".
        zero: None: DDP, or one process.
        asked: memory options, with those left to `auto`.
    """

    spec: ModelSpec
    prompt: Prompt
    load_tokenizer: LoadTokenizer
    data: TrainingData
    ranks: Ranks
    precision: str
    zero: ZeroBuffers | None
    asked: AskedChoice


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedTraining:
    """Hold what decides the plan of a training run.

    Attributes:
        evaluates_before: there is an evaluation before the first optimizer step.
        every_n_steps: optimizer steps from one evaluation to the next; 0: only at the end.
        corpus: where its evaluations have embeddings of the corpus.
        saved: files that its callbacks write.
    """

    step: PlannedStep
    build_evaluator: BuildEvaluator
    evaluates_before: bool
    every_n_steps: int
    corpus: CorpusPlace
    saved: SavedFiles


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedEvaluation:
    """Hold what decides the plan of an evaluation.

    Attributes:
        retriever: its name.
        spec: None: the retriever embeds nothing.
        seed: of samples of texts.
        store_dtype: of the embedding store; None: there is none.
        num_passes: how often texts are encoded.
        reranked_depth: documents of a query that a reranker scores; None: there is none.
    """

    retriever: str
    spec: ModelSpec | None
    evaluator: Evaluator
    prompt: Prompt
    load_tokenizer: LoadTokenizer
    seed: int
    ranks: Ranks
    corpus: CorpusPlace
    store_dtype: str | None
    num_passes: int
    reranked_depth: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedJob:
    """Hold what decides the host memory of a job, whether it trains or evaluates."""

    spec: ModelSpec
    build_evaluator: BuildEvaluator
    ranks: Ranks
    corpus: CorpusPlace
    is_training: bool
    uses_gpu: bool


def planned_step(config: DictConfig, spec: ModelSpec) -> PlannedStep:
    """Read what decides an optimizer step.

    Args:
        config: of a training whose contract and dtype are settled.
        spec: of its model.
    """
    data, ranks = config.data, _ranks(config)
    batch_size = int(data.global_batch_size)
    return PlannedStep(
        spec=spec,
        prompt=build(config.prompt),
        load_tokenizer=partial(_local_tokenizer, partial(build_model_parts, config), spec),
        data=TrainingData(
            read_examples=partial(build_examples, data),
            global_batch_size=batch_size,
            contrastive_batch_size=config.loss.get("contrastive_batch_size") or batch_size,
            num_hard_negatives=data.num_hard_negatives,
            num_mined=num_mined(config),
            seed=config.seed,
            max_steps=config.trainer.max_steps,
            max_epochs=config.trainer.max_epochs,
        ),
        ranks=ranks,
        precision=str(config.trainer.precision),
        zero=ZeroBuffers.of(config.trainer.strategy) if ranks.zero_stage else None,
        asked=asked_choice(config),
    )


def asked_choice(config: DictConfig) -> AskedChoice:
    """Read the memory options of a training.

    What a configuration of an earlier version, or a model of another class, has no key for is off.
    """
    return AskedChoice(
        gradient_checkpointing=config.model.get("gradient_checkpointing", False),
        grad_cache_chunk_tokens=config.data.get("grad_cache_chunk_tokens"),
    )


def planned_training(config: DictConfig) -> PlannedTraining:
    """Read what decides the plan of a training.

    Args:
        config: its contract and dtype are settled.
    """
    return PlannedTraining(
        step=planned_step(config, build(config.model)),
        build_evaluator=partial(build_evaluator, config),
        evaluates_before=bool(config.evaluation.get("before_training", True)),
        every_n_steps=config.evaluation.every_n_steps,
        corpus=CorpusPlace.of(config.evaluation),
        saved=SavedFiles.of(config.callbacks),
    )


def planned_evaluation(config: DictConfig) -> PlannedEvaluation:
    """Read what decides the plan of an evaluation.

    Args:
        config: its contract is settled here.

    Raises:
        UserError: there is nothing to evaluate, or the baseline cannot be had.
    """
    retriever: Retriever = build(config.retriever)  # a reranker may be on another machine
    build_baseline(config, beside=[stage.name for stage in stages_of(retriever)])
    if retriever.uses_encoder:
        settle_contract(config)
    evaluator = build_evaluator(config)
    if evaluator is None:
        raise UserError(
            "benchmark=none: there is nothing to evaluate. Fix: choose another, see --help."
        )
    is_stored = bool(config.evaluation.store)
    spec = build(config.model) if retriever.uses_encoder else None
    return PlannedEvaluation(
        retriever=retriever.name,
        spec=spec,
        evaluator=evaluator,
        prompt=build(config.prompt),
        load_tokenizer=partial(_local_tokenizer, partial(build_model_parts, config), spec),
        seed=config.seed,
        ranks=_ranks(config),
        corpus=CorpusPlace.of(config.evaluation, is_stored=is_stored),
        store_dtype=str(config.evaluation.store_dtype) if is_stored else None,
        num_passes=1 if config.evaluation.compare_dtype is None else 2,
        reranked_depth=retriever.depth if isinstance(retriever, RerankedRetriever) else None,
    )


def planned_job(config: DictConfig) -> PlannedJob | None:
    """Read what decides the host memory of a job; None: it is not known.

    It is not known of retrievers without a model, and of replicas that are built on the spot.

    Args:
        config: of a training or an evaluation; its dtype is settled here.
    """
    if not build(config.retriever).uses_encoder:
        return None
    settle_dtype(config)
    spec: ModelSpec = build(config.model)
    if spec.source.path is None and spec.source.hub_id is None:
        return None
    return PlannedJob(
        spec=spec,
        build_evaluator=partial(build_evaluator, config),
        ranks=_ranks(config),
        corpus=CorpusPlace.of(config.evaluation, is_stored=bool(config.evaluation.store)),
        is_training=OmegaConf.select(config, "data") is not None,
        uses_gpu=has_gpu() and config.trainer.accelerator != "cpu",
    )


def _ranks(config: DictConfig) -> Ranks:
    stage, strategy = zero_stage(config), config.trainer.get("strategy")
    return Ranks(
        world_size=world_size(config),
        num_nodes=int(config.trainer.get("num_nodes", 1)),
        zero_stage=stage,
        spread=planned_spread(config),
        offloads_parameters=stage > 0 and strategy.get("offload_parameters", False),
        offloads_optimizer=stage > 0 and strategy.get("offload_optimizer", False),
    )


def _local_tokenizer(
    build_parts: Callable[[], ModelParts], spec: ModelSpec | None
) -> TextTokenizer | None:
    """Load the tokenizer of a model; None: there is no model, or its hub cannot be reached."""
    if spec is None:
        return None
    try:
        return build_parts().tokenizer
    except UserError:
        if Path(spec.source.tokenizer_path or spec.source.location()).expanduser().exists():
            raise
        return None
