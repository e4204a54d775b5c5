"""Check the configuration keys of evaluation that concern embeddings and their storage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig

from quarry.errors import UserError
from quarry.metrics.trec import parse_measure
from quarry.models.dtypes import DTYPES
from quarry.retrieval.store.shelf import DTYPES as STORE_DTYPES


def evaluation_violations(evaluation: DictConfig) -> Iterator[str]:
    """Yield what is wrong with measures, dtypes of embeddings and `corpus_on_disk`."""
    for name in evaluation.measures:
        try:
            parse_measure(str(name))
        except UserError as error:
            yield f"evaluation.measures: {error}. Fix: evaluation.measures=[nDCG@10]"
    if evaluation.compare_dtype not in (None, *DTYPES):
        yield (
            f"evaluation.compare_dtype={evaluation.compare_dtype}: unknown value "
            f"({', '.join(DTYPES)}). Fix: evaluation.compare_dtype=bf16"
        )
    if evaluation.store_dtype not in STORE_DTYPES:
        yield (
            f"evaluation.store_dtype={evaluation.store_dtype}: unknown value "
            f"({', '.join(STORE_DTYPES)}). Fix: evaluation.store_dtype=float32"
        )
    elif evaluation.store_dtype != "float32" and not evaluation.store:
        yield (
            f"evaluation.store_dtype={evaluation.store_dtype}: has no effect with "
            "evaluation.store=false. Fix: evaluation.corpus_dtype=DTYPE, or leave it out"
        )
    yield from corpus_violations(evaluation)


def corpus_violations(evaluation: DictConfig) -> Iterator[str]:
    """Yield what is wrong with the values of `corpus_on_disk` and `corpus_dtype`."""
    on_disk, dtype = evaluation.corpus_on_disk, evaluation.corpus_dtype
    if not isinstance(on_disk, bool) and on_disk != "auto":
        yield (
            f"evaluation.corpus_on_disk={_shown(on_disk)}: unknown value (auto, true, false). "
            "Fix: evaluation.corpus_on_disk=auto"
        )
    if dtype not in STORE_DTYPES:
        yield (
            f"evaluation.corpus_dtype={_shown(dtype)}: unknown value ({', '.join(STORE_DTYPES)}). "
            "Fix: evaluation.corpus_dtype=float32"
        )


def effect_violations(evaluation: DictConfig) -> Iterator[str]:
    """Yield the keys that have no effect on task=evaluate, or none beside its embedding store."""
    if not evaluation.before_training:
        yield (
            "evaluation.before_training=false: no effect on task=evaluate, which trains nothing. "
            "Fix: leave it out"
        )
    if evaluation.store and evaluation.corpus_on_disk in (True, False):
        yield (
            f"evaluation.corpus_on_disk={_shown(evaluation.corpus_on_disk)}: no effect with "
            "evaluation.store=true, which keeps all embeddings on disk. Fix: leave it out, or "
            "evaluation.store=false"
        )
    if evaluation.store and evaluation.corpus_dtype == "float16":
        yield (
            f"evaluation.corpus_dtype={evaluation.corpus_dtype}: no effect with "
            "evaluation.store=true, which has a dtype of its own. Fix: "
            f"evaluation.store_dtype={evaluation.corpus_dtype}, or evaluation.store=false"
        )


def _shown(value: Any) -> str:
    """Return a value as it is written in YAML."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return str(value)
