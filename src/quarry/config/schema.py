"""Declare the keys and types at the top level of both primary configurations.

They make a misspelt key in an experiment file an error at composition. Groups that name a class
are checked by that class's signature (see `validation`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, SI

from quarry.config.resolvers import register_resolvers


@dataclass
class PathsConfig:
    cache_dir: str = MISSING
    store_dir: str = MISSING
    runs_dir: str = MISSING
    run_dir: str = MISSING
    max_cache_gib: float | None = None  # of cache and store together; None: no limit


@dataclass
class RecipeConfig:
    """Training defaults of a model, from its file; other groups read them."""

    learning_rate: float = MISSING
    temperature: float = MISSING
    num_epochs: int = MISSING
    num_warmup_steps: int = MISSING
    precision: str = MISSING


@dataclass
class DataConfig:
    """A training set (`examples`) and how optimizer steps are formed from it."""

    examples: Any = MISSING
    path: str | None = None
    corpus_path: str | None = None
    split: str | None = None
    subset: str | None = None  # a configuration of a data set on the hub
    revision: str | None = None
    columns: Any = None  # see conf/data/file.yaml
    max_examples: int | None = None  # the first of the training set; None: all
    num_hard_negatives: int | None = None  # a query; None: all that each example has
    global_batch_size: int = MISSING  # queries an optimizer step, over all ranks
    # tokens in one forward pass (GradCache); None: no chunks; auto: what fits the GPU
    grad_cache_chunk_tokens: Any = "auto"
    num_workers: int = SI("${on_gpu:4,0}")  # data loader workers, which tokenize ahead


@dataclass
class EvaluationConfig:
    measures: list[str] = field(default_factory=list)
    top_k: int = MISSING
    max_tokens_per_batch: int = MISSING
    every_n_steps: int = MISSING
    before_training: bool = True
    corpus_on_disk: Any = "auto"  # auto, true or false
    corpus_dtype: str = "float32"
    num_examples: int = MISSING
    compare_dtype: str | None = None
    store: bool = False
    store_dtype: str = "float32"


@dataclass
class StudyConfig:
    """The study that a run belongs to; a sweep passes `name` and `job` to its jobs."""

    name: str | None = None  # of the study; of a plain multirun its folder's name
    job: str | None = None  # by what is swept: model-qwen-coder_seed-1
    resume: bool = False  # continue a study: finished jobs are not run again


@dataclass
class CommonSchema:
    """The top level that conf/train.yaml and conf/eval.yaml share."""

    task: Any = MISSING
    paths: PathsConfig = field(default_factory=PathsConfig)
    model: Any = MISSING
    recipe: RecipeConfig = field(default_factory=RecipeConfig)
    prompt: Any = MISSING
    trainer: Any = MISSING
    logger: Any = MISSING
    benchmark: Any = MISSING
    convention: Any = MISSING
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    retriever: Any = MISSING
    baseline: Any = MISSING
    seed: int = MISSING
    run: str | None = None
    tags: list[str] = field(default_factory=list)  # words to find the run by
    trusted_packages: list[str] = field(default_factory=list)  # that stored files may name
    debug: str | None = None  # set by the options of the group: fast, overfit, profile
    study: StudyConfig = field(default_factory=StudyConfig)
    optimized_metric: str | None = None  # for sweepers: SET/MEASURE or mean/MEASURE


@dataclass
class EvalSchema(CommonSchema):
    """Top level of conf/eval.yaml."""

    runs: list[str] = field(default_factory=list)


@dataclass
class TrainSchema(CommonSchema):
    """Top level of conf/train.yaml."""

    data: DataConfig = field(default_factory=DataConfig)
    loss: Any = MISSING
    optimizer: Any = MISSING
    scheduler: Any = MISSING
    callbacks: Any = MISSING


def register_schemas() -> None:
    """Register `train_schema`, `eval_schema` and our resolvers with Hydra."""
    register_resolvers()
    store = ConfigStore.instance()
    store.store(name="train_schema", node=TrainSchema)
    store.store(name="eval_schema", node=EvalSchema)
