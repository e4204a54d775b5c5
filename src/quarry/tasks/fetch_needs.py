"""Determine what a configuration reads from the hub, from the objects that it builds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from quarry.config.instantiate import build
from quarry.config.validation import validate
from quarry.evaluation.benchmark import Benchmark
from quarry.models.model_downloads import model_hub_files
from quarry.models.model_spec import ModelSpec
from quarry.retrieval.reranked import RerankedRetriever
from quarry.retrieval.retriever import Retriever
from quarry.runtime.devices import planned_for_gpu
from quarry.runtime.hub_files import HubFiles, files_read_by


def hub_files_of(config: DictConfig) -> tuple[HubFiles, ...]:
    """Return the files that a configuration's training or evaluation reads from the hub.

    The run may be for another machine, so devices are not checked.

    Raises:
        UserError: the configuration is invalid, or a request to the hub about a model failed.
    """
    is_training = OmegaConf.select(config, "data") is not None
    on_gpu = config.trainer.accelerator != "cpu"
    with planned_for_gpu() if on_gpu else nullcontext():
        validate(config, primary="train" if is_training else "eval", is_planned=True)
        return tuple(_needs(config, is_training=is_training))


def _needs(config: DictConfig, *, is_training: bool) -> Iterator[HubFiles]:
    retriever: Retriever = build(config.retriever)
    if is_training or retriever.uses_encoder:
        spec: ModelSpec = build(config.model)
        yield from model_hub_files(spec.source)
    if isinstance(retriever, RerankedRetriever):
        yield from retriever.reranker.hub_files()
    if is_training:
        yield from _examples(config.data.examples)
    benchmark: Benchmark | None = build(config.benchmark)
    for each in () if benchmark is None else benchmark.sets:
        yield from each.hub_files


def _examples(node: DictConfig) -> tuple[HubFiles, ...]:
    """Return the files that the reader of a training set declares; it is not called."""
    plain = OmegaConf.to_container(node, resolve=True)
    assert isinstance(plain, dict)
    arguments = {str(key): value for key, value in plain.items() if not str(key).startswith("_")}
    return files_read_by(get_object(node["_target_"]), **arguments)
