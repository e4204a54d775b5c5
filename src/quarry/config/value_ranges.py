"""Check every number of a configuration against the range of its key; NaN and inf never fit."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from quarry.types import MAX_GRADE

_OTHER_KEY = re.compile(r"\$\{[A-Za-z_][\w.]*\}")
"""An interpolation of a key, which has a range of its own; one of a resolver has none."""

_INNER_LOSS = re.compile(r"^loss(\.loss|\.losses\.[^.]+)+(?=\.)")
"""Start of a key of a loss inside other losses, which has the ranges of the loss itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Range:
    """Numbers that a key may have.

    Attributes:
        low, high: bounds, both allowed unless `is_above` or `is_below`; None: no bound.
        or_minus_one: what -1 means; None: nothing, so it is allowed only within the bounds.
        usual: a value that works, for the message; None: the default does.
        why: what the number is, or what a wrong one does.
    """

    usual: float | str | None = None
    low: float | None = None
    high: float | None = None
    is_above: bool = False
    is_below: bool = False
    or_minus_one: str | None = None
    why: str | None = None

    def has(self, value: float) -> bool:
        """Return whether a finite number is in the range."""
        if self.or_minus_one is not None and value == -1:
            return True
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        if (self.is_above and value == low) or (self.is_below and value == high):
            return False
        return low <= value <= high

    def __str__(self) -> str:
        low = "" if self.low is None else f"{'above' if self.is_above else 'at least'} {self.low:,}"
        high = (
            "" if self.high is None else f"{'below' if self.is_below else 'at most'} {self.high:,}"
        )
        words = [bounds] if (bounds := ", ".join(filter(None, [low, high]))) else []
        words += [] if self.or_minus_one is None else [f"or -1: {self.or_minus_one}"]
        words += [] if self.why is None else [self.why]
        return "; ".join(words)


def _at_least(low: float, usual: float | str | None = None, why: str | None = None) -> Range:
    return Range(low=low, usual=usual, why=why)


_SEED = Range(low=0, high=2**32 - 1, usual=42)
_SHARE = Range(low=0, high=1, is_below=True, usual=0.9)
_STEPS = _at_least(1, 50, "optimizer steps")
_LEVEL = Range(low=1, high=MAX_GRADE, usual="null", why="the lowest relevant grade")
_LEARNING_RATE = Range(low=0, is_above=True, usual="1e-4")
_TEMPERATURE = Range(low=1e-6, high=1000, usual=0.05, why="0.01 to 0.1 is usual")
_ABOVE_0 = Range(low=0, is_above=True, usual=1)

RANGES = {
    "seed": _SEED,
    "recipe.learning_rate": _LEARNING_RATE,
    "recipe.temperature": _TEMPERATURE,
    "recipe.num_epochs": _at_least(1, 1),
    "recipe.num_warmup_steps": _at_least(0, 100),
    "data.global_batch_size": _at_least(1, 128, "queries"),
    "data.num_hard_negatives": _at_least(0, "null", "null: all that each example has"),
    "data.num_workers": Range(low=0, high=1024, usual=4, why="processes on each rank"),
    "loss.temperature": _TEMPERATURE,
    "loss.teacher_temperature": Range(low=1e-6, high=1e6, usual=1, why="divides the scores"),
    "loss.margin": Range(low=-2, high=2, usual=-0.1, why="similarities are from -1 to 1"),
    "loss.hardness": Range(low=0, high=1000, usual=9, why="0: as InfoNCE"),
    "loss.dims": _at_least(1, "[64,32]", "widths"),
    "loss.dim_weights": _at_least(0, "null", "null: 1 for each"),
    "loss.weights.*": _at_least(0, 1, "0: not computed"),
    "loss.contrastive_batch_size": _at_least(1, "null", "queries"),
    "optimizer.lr": _LEARNING_RATE,
    "optimizer.weight_decay": _at_least(0, 0.01),
    "optimizer.betas": Range(low=0, high=1, is_below=True, usual="[0.9,0.999]"),
    "optimizer.momentum": _SHARE,
    "optimizer.dampening": _SHARE,
    "optimizer.eps": _at_least(0, "1e-8"),
    "optimizer.beta2_decay": Range(high=0, usual=-0.8),
    "optimizer.d": _at_least(1, 1.0),
    "scheduler.num_warmup_steps": _at_least(0, 100),
    "trainer.max_steps": Range(low=1, or_minus_one="no limit", usual=-1, why="0 trains nothing"),
    "trainer.max_epochs": Range(low=1, or_minus_one="no limit", usual=1, why="0 trains nothing"),
    "trainer.min_steps": _at_least(0, "null"),
    "trainer.min_epochs": _at_least(0, "null"),
    "trainer.log_every_n_steps": _at_least(1, 10, "optimizer steps"),
    "trainer.gradient_clip_val": _at_least(0, 1.0, "0: no clipping"),
    "trainer.fast_dev_run": _at_least(0, "false"),
    "trainer.strategy.stage": Range(low=1, high=3, usual=2),
    "trainer.strategy.timeout_s": Range(low=0, is_above=True, usual=7200),
    "trainer.strategy.*_size": _at_least(1, 200_000_000, "elements"),
    "trainer.strategy.param_persistence_threshold": _at_least(0, 100_000, "elements"),
    "trainer.strategy.max_live_parameters": _at_least(1, 1_000_000_000, "elements"),
    "model.adapter.alpha": Range(low=0, is_above=True, usual=64),
    "model.replica.vocab_size": _at_least(257, 4096, "256 bytes and an end token"),
    "model.replica.seed": _SEED,
    "model.replica.embedding_std": Range(low=0, is_above=True, usual=0.4),
    "model.replica.rope_theta": Range(low=0, is_above=True, usual=10_000),
    "model.replica.*": _at_least(1),
    "model.card.max_*_length": _at_least(1, 512, "tokens"),
    "prompt.max_*_length": _at_least(1, 512, "tokens"),
    "callbacks.*.every_n_steps": _STEPS,
    "callbacks.*.seed": _SEED,
    "callbacks.*.patience": _at_least(1, 3, "evaluations"),
    "callbacks.*.min_delta": _at_least(0, 0.0),
    "callbacks.*.save_top_k": _at_least(-1, 3, "-1: all"),
    "callbacks.loss_falls.fraction": Range(low=0, high=1, is_above=True, is_below=True, usual=0.1),
    "evaluation.top_k": _at_least(1, 100, "documents"),
    "evaluation.num_examples": _at_least(0, 0, "0: none"),
    "evaluation.max_tokens_per_batch": _at_least(1, 16384, "tokens in one forward pass"),
    "evaluation.every_n_steps": _at_least(0, 0, "0: only before and after training"),
    "convention.relevance_level": _LEVEL,
    "task.conventions.*.relevance_level": _LEVEL,
    "retriever*.k1": _at_least(0, 0.9),
    "retriever*.b": Range(low=0, high=1, usual=0.4),
    "retriever*.fusion.k": _at_least(0, 60),
    "retriever*.fusion.weights": _at_least(0, "[0.5,0.5]"),
    "retriever*.depth": _at_least(1, "null", "documents"),
    "retriever.reranker.max_length": _at_least(16, "null", "tokens of a pair"),
    "retriever.reranker.max_tokens_per_batch": _at_least(1, 16384, "tokens in one forward pass"),
    "retriever*.num_*_per_chunk": _at_least(1, 8192),
    "logger.wandb.max_artifact_gib": _at_least(0, 1, "0: nothing is uploaded"),
    "task.teacher.max_length": _at_least(16, "null", "tokens of a pair"),
    "task.teacher.max_tokens_per_batch": _at_least(1, 16384, "tokens in one forward pass"),
    "task.alpha": Range(low=0, high=1, is_above=True, is_below=True, usual=0.05),
    "task.num_recall_queries": _at_least(0, 200, "0: not measured"),
    "task.index.num_rescored": _at_least(0, "null", "documents a query"),
    "task.num_*": _at_least(1, 1),
    "*.top_k": _at_least(1, 100, "candidates"),
    "*.rank_range": _at_least(1, "[10,50]", "first and last rank"),
    "*.num_negatives": _at_least(1, 7),
    "*.filter.absolute_margin": Range(low=-1e6, high=1e6, usual=0.1, why="of scores"),
    "*.filter.relative_margin": Range(low=0, high=1, usual=0.05, why="of the positive's score"),
    "*.filter.percentile": Range(low=0, high=100, usual=5, why="of all positives' scores"),
    "*.filter.max_score": Range(usual="null", why="any finite number"),
    "task.splitter.overlap": _at_least(0, "null", "null: a tenth of size"),
    "task.port": Range(low=0, high=65_535, usual=8000, why="0: a free one"),
    "task.max_*": _at_least(1),
    "task.client_timeout_s": Range(low=0.1, high=3600, usual=30, why="seconds"),
    "task.grace_s": Range(low=0, high=3600, usual=15, why="seconds"),
    "task.min_cosine": Range(low=0.5, high=1, is_below=True, usual=0.99),
    "task.timeout_s": Range(low=0, high=3600, is_above=True, usual=60, why="seconds"),
    "task.older_than_days": _at_least(0, 30, "days"),
    "paths.max_cache_gib": _at_least(0, "null", "null: no limit"),
    "task.*": _ABOVE_0,
}
"""Key, or a pattern of keys -> its range; the first that fits counts, those of `retriever` also for
`baseline`. Of a list each number is checked."""


def range_of(key: str) -> Range | None:
    """Return the range of a key, such as `trainer.max_steps`; None: any finite number fits."""
    if key.partition(".")[0] == "baseline":
        key = f"retriever{key.removeprefix('baseline')}"
    key = _INNER_LOSS.sub("loss", key)
    return next((each for pattern, each in RANGES.items() if fnmatchcase(key, pattern)), None)


def range_violations(config: DictConfig) -> Iterator[str]:
    """Yield each number that is NaN, infinite or out of its range, and replicas without a shape."""
    for key, values in _numbers(config, OmegaConf.to_container(config, resolve=False)):
        allowed = range_of(key)
        wrong = [each for each in values if not _fits(each, allowed)]
        if not wrong:
            continue
        shown = list(values) if len(values) > 1 else values[0]
        rule = allowed or "a finite number"
        usual = None if allowed is None else allowed.usual
        fix = "leave it out" if usual is None else f"{key}={usual}"
        yield f"{key}={shown}: out of range ({rule}). Fix: {fix}"
    yield from _replica_violations(config)


def _fits(value: float, allowed: Range | None) -> bool:
    is_finite = isinstance(value, int) or math.isfinite(value)
    return is_finite and (allowed is None or allowed.has(value))


def _numbers(node: Any, raw: Any, path: str = "") -> Iterator[tuple[str, list[float]]]:
    """Yield key and numbers of each number and each list of numbers below a node.

    Args:
        raw: the node with unresolved interpolations.
    """
    for name in node:
        key = f"{path}.{name}" if path else str(name)
        value, written = node[name], raw[name]
        if isinstance(written, str) and _OTHER_KEY.fullmatch(written):
            continue
        if isinstance(value, DictConfig) and isinstance(written, dict):
            yield from _numbers(value, written, key)
        elif isinstance(value, ListConfig) and isinstance(written, list):
            nodes = {str(i): each for i, each in enumerate(value) if isinstance(each, DictConfig)}
            yield from _numbers(nodes, {name: written[int(name)] for name in nodes}, key)
            if numbers := [each for each in value if _is_number(each)]:
                yield key, numbers
        elif _is_number(value):
            yield key, [value]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _replica_violations(config: DictConfig) -> Iterator[str]:
    """Yield shapes of a replica whose parts do not divide each other."""
    replica = OmegaConf.select(config, "model.replica")
    if not isinstance(replica, DictConfig):
        return
    width, heads = replica.get("hidden_size"), replica.get("num_heads")
    groups = replica.get("num_key_value_heads", heads)
    if not all(isinstance(each, int) and each >= 1 for each in (width, heads, groups)):
        return  # another rule says so
    if width % (2 * heads):
        yield (
            f"model.replica.num_heads={heads}: hidden_size={width} is no multiple of two numbers a "
            "head (rotary positions turn pairs). Fix: model.replica.num_heads=2"
        )
    elif heads % groups:
        yield (
            f"model.replica.num_key_value_heads={groups}: num_heads={heads} is no multiple of it. "
            "Fix: model.replica.num_key_value_heads=1"
        )
