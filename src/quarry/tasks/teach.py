"""Score a training set with a teacher, or encode it, for losses that distill."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from quarry.assembly.loaded_encoder import LoadedEncoder, prepare_encoder
from quarry.assembly.run_start import record_start
from quarry.assembly.train_examples import build_examples
from quarry.config.contract import explicit_keys
from quarry.config.overrides import (
    KEYS_OF_BATCHES,
    refuse_other_overrides,
    warn_without_effect,
)
from quarry.config.validation import validate
from quarry.distributed import world
from quarry.errors import UserError
from quarry.mining.teaching import Taught, write_scores, write_vectors
from quarry.models.backbones.huggingface import resolve_source
from quarry.models.rerankers.reranker_files import is_bi_encoder
from quarry.retrieval.rerankers.inner_products import InnerProducts
from quarry.retrieval.rerankers.reranker_spec import RerankerSpec
from quarry.runtime.failed_start import removes_failed_start
from quarry.runtime.files import write_json
from quarry.runtime.logging import logs_to, quiet_libraries
from quarry.runtime.own_command import own_command
from quarry.runtime.task_output import show
from quarry.tasks.continued_run import begun_or_continued_run
from quarry.types import TrainExample

logger = logging.getLogger(__name__)

TEACH_FILE = "teach.json"
"""File that says what the teacher has written; it is written last."""

KEY = "task.teacher"
BI_ENCODER = "bi_encoder"
WRITES = ("scores", "vectors")

ALLOWED = ("task", "data", "paths", "tags", "evaluation.max_tokens_per_batch", "hydra")
OF_BI_ENCODERS = ("model", "prompt", "trusted_packages")


def teach(config: DictConfig, *, teacher: RerankerSpec, writes: str) -> dict[str, float]:
    """Write scores or vectors of the training set into a run directory; return the counts.

    Args:
        teacher: a reranker; of a bi-encoder, `path` and `revision` alone.
        writes: "scores" or "vectors".

    Raises:
        UserError: the teacher is none, the data are malformed, or a score is not finite.
    """
    quiet_libraries()
    if writes not in WRITES:
        raise UserError(
            f"task.writes={writes}: unknown ({', '.join(WRITES)}). Fix: task.writes=scores"
        )
    has_bi_encoder = _has_bi_encoder(teacher)
    _refuse_without_effect(has_bi_encoder=has_bi_encoder)
    if has_bi_encoder:
        _put_model(config, teacher)
    elif writes == "vectors":
        raise UserError(
            f"task.writes=vectors: {KEY}.path={teacher.path} scores pairs and has no vectors of "
            f"texts. Fix: task.writes=scores, or {KEY}.path=DIR of a bi-encoder"
        )
    else:
        teacher.check(key=KEY)
    validate(config, primary="train")
    if not world.is_launched_first():  # rank 0 does it for all
        return {}
    examples = build_examples(config.data)
    prepared = prepare_encoder(config) if has_bi_encoder else None  # settles it in the config
    with (
        begun_or_continued_run(config, result=TEACH_FILE) as run,
        removes_failed_start(run) as begins,
        logs_to(run.log),
    ):
        encoder = None if prepared is None else prepared.load(config)
        record_start(config, run, contract=None if encoder is None else encoder.contract)
        if encoder is not None:
            begins()
            taught = _by_bi_encoder(config, encoder, examples, writes=writes, folder=run.path)
            about = None
        else:
            scorer = teacher.load(key=KEY)
            begins()
            taught = write_scores(examples, scorer, folder=run.path)
            about = scorer.description
        model = None if encoder is None else encoder.parts.spec.source.location()
        facts = _facts(config, teacher, taught, examples, model=model, reranker=about)
        write_json(run.path / TEACH_FILE, facts)
    show(
        "\n".join(f"{name.replace('_', ' ')}: {value}" for name, value in taught.counts.items()),
        f"Train with: {_next_command(taught, examples)}",
        f"Run directory: {run.path}",
        result_line=_result_line(taught),
    )
    return {f"teach/{name}": float(value) for name, value in taught.counts.items()}


def _has_bi_encoder(teacher: RerankerSpec) -> bool:
    if teacher.kind != "auto" or teacher.path is None:
        return teacher.kind == BI_ENCODER
    source = resolve_source(teacher.path, key=f"{KEY}.path")
    return is_bi_encoder(source, revision=teacher.revision)


def _refuse_without_effect(*, has_bi_encoder: bool) -> None:
    more = OF_BI_ENCODERS if has_bi_encoder else ()
    refuse_other_overrides(
        (*ALLOWED, *more),
        why="has no effect on task=teach, which scores data with task.teacher"
        + ("" if has_bi_encoder else f" (model and prompt are those of {KEY}.kind={BI_ENCODER})")
        + ". Fix: leave it out",
    )
    warn_without_effect(
        KEYS_OF_BATCHES, reason="task=teach, which scores all passages of each example"
    )
    if has_bi_encoder:
        names = ("max_length", "activation", "dtype", "frame", "instruction", "yes_token",
                 "no_token")  # fmt: skip
        refused = [key for name in names if (key := f"{KEY}.{name}") in explicit_keys()]
        if refused:
            raise UserError(
                f"{', '.join(refused)}: no effect on a bi-encoder, which embeds texts apart. Fix: "
                "leave it out; model.KEY and prompt.KEY say how it does"
            )


def _put_model(config: DictConfig, teacher: RerankerSpec) -> None:
    """Set the bi-encoder as the configured model."""
    if teacher.path is None:
        return  # model=NAME, or model.path=DIR
    if "model.path" in explicit_keys():
        raise UserError(
            f"model.path={config.model.path}: {KEY}.path={teacher.path} names another model (one "
            "of the two). Fix: leave out model.path"
        )
    config.model.path = teacher.path
    if teacher.revision is not None:
        config.model.revision = teacher.revision


def _by_bi_encoder(
    config: DictConfig,
    encoder: LoadedEncoder,
    examples: Sequence[TrainExample],
    *,
    writes: str,
    folder: Path,
) -> Taught:
    stored = encoder.stored(config)
    if writes == "vectors":
        return write_vectors(examples, stored, folder=folder)
    return write_scores(examples, InnerProducts(stored), folder=folder)


def _facts(
    config: DictConfig,
    teacher: RerankerSpec,
    taught: Taught,
    examples: Sequence[TrainExample],
    *,
    model: str | None,
    reranker: dict[str, object] | None,
) -> dict[str, Any]:
    """Return the content of teach.json.

    Args:
        model: location of a bi-encoder.
        reranker: what a reranker is and how it scores.
    """
    return {
        "teacher": teacher.path if model is None else model,
        "reranker": reranker,
        "data": config.data.path,
        "caveats": list(getattr(examples, "caveats", ())),
        "file": taught.file.name,
        **taught.counts,
    }


def _next_command(taught: Taught, examples: Sequence[TrainExample]) -> str:
    file = shlex.quote(str(taught.file))
    if "dim" in taught.counts:
        return (
            f"{own_command('train')} loss=embedding_distillation loss.vectors={file} and the same "
            "data"
        )
    weight = " data.columns.weight=weight" if examples[0].weight is not None else ""
    return f"{own_command('train')} loss=kl_distillation data=file data.path={file}{weight}"


def _result_line(taught: Taught) -> str:
    numbers = {k.removeprefix("num_"): v for k, v in taught.counts.items() if k[:4] == "num_"}
    return " ".join(["teach", *(f"{name}={value}" for name, value in numbers.items())])
