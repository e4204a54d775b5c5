"""Encode a corpus to vectors with ids, in one process, in shards or by Ray."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig

from quarry.config.overrides import refuse_other_overrides, warn_of_run_directory
from quarry.config.validation import validate
from quarry.data.document_places import Kind
from quarry.data.document_reader import DocumentColumns
from quarry.data.source_part import SourcePart
from quarry.data.text_splitter import TextSplitter
from quarry.encoding.manifest import FileFormat, VectorDtype
from quarry.errors import UserError
from quarry.runtime.logging import quiet_libraries
from quarry.runtime.task_output import show
from quarry.types import Role

EngineName = Literal["local", "ray"]


def encode(
    config: DictConfig,
    *,
    corpus: str | None,
    output: str | None,
    role: Role,
    format: FileFormat,
    dtype: VectorDtype,
    kind: Kind,
    subset: str | None,
    split: str | None,
    revision: str | None,
    columns: DocumentColumns,
    splitter: TextSplitter,
    shard: str | int | None,
    block_size: int,
    overwrite: bool,
    status: bool,
    engine: EngineName,
    address: str | None,
    num_workers: int | None,
    cpus_per_worker: int,
) -> dict[str, float]:
    """Encode `task.corpus` into `task.output`, or show what of that is done.

    Returns:
        `encode/num_texts` and the like; of `task.status` the number of folders in each state.

    Raises:
        UserError: see `encoding.encode.encode_corpus`; a key has a value that cannot be.
    """
    quiet_libraries()
    _refuse_without_effect()
    validate(config, primary="eval")
    warn_of_run_directory(config, task="encode")
    if output is None:
        raise UserError("task.output is not set (a folder for the vectors). Fix: task.output=DIR")
    path = Path(output).expanduser()
    if status:
        from quarry.encoding.status import shown_status, status_of

        states = status_of(path)
        show(shown_status(path, states), result_line=states.result_line)
        return dict(states.counts)
    part = None if shard is None else SourcePart.parsed(str(shard))
    if corpus is None:
        raise UserError(
            "task.corpus is not set (a BEIR folder, a table, a folder of text files, or a data set "
            "of the hub). Fix: task.corpus=PATH_OR_ID"
        )
    _refuse_contradictions(config.evaluation, dtype=dtype)
    if engine != "ray":
        _refuse_keys_of_ray(
            address=address,
            num_workers=num_workers,
            cpus_per_worker=None if cpus_per_worker == 1 else cpus_per_worker,
        )
    # heavy imports only now: a refusal is quick
    from quarry.data.document_source import find_source
    from quarry.encoding.encode import Output, counts_of, encode_corpus
    from quarry.encoding.one_process import in_one_process

    run: Any = in_one_process
    if engine == "ray":
        from quarry.encoding.ray_engine import by_ray

        run = partial(
            by_ray, address=address, num_workers=num_workers, cpus_per_worker=cpus_per_worker
        )
    reader = find_source(
        corpus, splitter=splitter, columns=columns, role=role, kind=kind, subset=subset,
        split=split, revision=revision, part=part,
    )  # fmt: skip
    encoded = encode_corpus(
        config,
        reader,
        Output(
            path=path, role=role, file_format=format, dtype=dtype, block_size=block_size,
            overwrite=overwrite,
        ),
        engine=run,
    )  # fmt: skip
    manifest = encoded.manifest
    show(
        f"{encoded.folder}: {manifest.num_texts:,} texts x {manifest.dim} {manifest.dtype} "
        f"({manifest.file_format}), {encoded.num_encoded:,} of them encoded now",
        *(["\n".join(f"- {caveat}" for caveat in manifest.caveats)] if manifest.caveats else []),
        result_line=f"texts={manifest.num_texts} folder={encoded.folder}",
    )
    return dict(counts_of(encoded))


def _refuse_without_effect() -> None:
    refuse_other_overrides(
        (
            "task", "model", "prompt", "evaluation.max_tokens_per_batch", "evaluation.store",
            "evaluation.store_dtype", "paths", "trusted_packages", "seed", "tags", "hydra",
        ),
        why="has no effect on task=encode, which encodes task.corpus with the model as it is. Fix: "
        "leave it out.",
    )  # fmt: skip


def _refuse_keys_of_ray(**given: object) -> None:
    for key, value in given.items():
        if value is not None:
            raise UserError(
                f"task.{key}={value}: has no effect in one process. Fix: task.engine=ray, or leave "
                "it out"
            )


def _refuse_contradictions(evaluation: DictConfig, *, dtype: VectorDtype) -> None:
    if evaluation.store and evaluation.store_dtype == "float16" and dtype == "float32":
        raise UserError(
            "task.dtype=float32: evaluation.store_dtype=float16 rounds the vectors before. Fix: "
            "task.dtype=float16, evaluation.store_dtype=float32 or evaluation.store=false"
        )
