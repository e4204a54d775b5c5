"""Encode a corpus into a folder of vectors: from a configuration to the finished output."""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import transformers
from omegaconf import DictConfig

import quarry
from quarry.assembly.loaded_encoder import PreparedEncoder, prepare_encoder
from quarry.data.document_reader import DocumentReader
from quarry.data.document_source import Documents, read_source
from quarry.encoding.encode_job import (
    EncodeJob,
    label_of,
    segments_of,
    terms_of,
    worker_config,
)
from quarry.encoding.manifest import FileFormat, Manifest, StoredBlock, VectorDtype, read_manifest
from quarry.encoding.one_process import in_one_process
from quarry.encoding.work_folder import WorkFolder, finished_block, forget_block, has_record
from quarry.errors import UserError
from quarry.runtime.disk_errors import Place, check_place
from quarry.types import Role

logger = logging.getLogger(__name__)

Engine = Callable[[EncodeJob, list[int], PreparedEncoder], Iterable[tuple[int, StoredBlock]]]
"""Encodes blocks of a job, in any order, and yields each when it is finished."""

NUM_SAMPLED = 1000
"""Texts that are looked at for their length, evenly from all of the corpus."""

_BYTES_PER_ID = 64


@dataclass(frozen=True, kw_only=True)
class Output:
    """What is asked for.

    Attributes:
        path: folder of the vectors, or of the shards.
        overwrite: replace vectors, or unfinished work, of another command.
    """

    path: Path
    role: Role
    file_format: FileFormat
    dtype: VectorDtype
    block_size: int
    overwrite: bool


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """The finished folder.

    Attributes:
        num_encoded: texts of the blocks that this call has finished.
    """

    folder: Path
    manifest: Manifest
    num_encoded: int


def encode_corpus(
    config: DictConfig, reader: DocumentReader, output: Output, *, engine: Engine = in_one_process
) -> Encoded:
    """Make the folder of vectors of a corpus, or of the reader's part of it.

    An output that exists already with the same model, corpus and settings is left as it is, and
    no weights are loaded.

    Args:
        config: settled in place.

    Raises:
        UserError: the output, or unfinished work beside it, is of another command, another process
            works on it, the disk is full, or the model or the corpus cannot be read.
    """
    prepared = prepare_encoder(config)
    terms = terms_of(
        config,
        prepared,
        source_digest=reader.digest,
        role=output.role,
        file_format=output.file_format,
        dtype=output.dtype,
        part=reader.part,
        block_size=output.block_size,
    )
    folder = WorkFolder(output.path, reader.part)
    if (manifest := folder.complete(terms, overwrite=output.overwrite)) is not None:
        if _is_of_these_texts(manifest, reader, config):
            logger.info("%s: done already, %d texts", folder.final, manifest.num_texts)
            return Encoded(folder=folder.final, manifest=manifest, num_encoded=0)
        if not output.overwrite:
            raise UserError(
                f"task.output={output.path}: the corpus was changed since it was encoded. Fix: "
                "another task.output, or task.overwrite=true"
            )
    _check_output(output.path, reader)
    documents = read_source(reader, cache_dir=config.paths.cache_dir)
    segments = segments_of(config, terms, dim=prepared.embedding_dim)
    with folder.begun(
        terms,
        texts_digest=documents.texts_digest,
        segments=segments,
        num_blocks=-(-len(documents.corpus) // output.block_size),
        overwrite=output.overwrite,
    ) as begun:
        if folder.is_complete():  # killed before it had its name
            folder.put_in_place(overwrite=output.overwrite)
            manifest = read_manifest(folder.final)
        else:  # another process may have finished it since
            manifest = None if output.overwrite else folder.complete(terms, overwrite=False)
        if manifest is not None:
            return Encoded(folder=folder.final, manifest=manifest, num_encoded=0)
        job = EncodeJob(
            terms=terms,
            config=worker_config(config),
            corpus=documents.corpus,
            folder=folder.partial,
            segments=tuple(begun["segments"]),
            label=label_of(documents),
            output=str(output.path),
        )
        return _encoded(job, documents, prepared, folder, output=output, engine=engine)


def _encoded(
    job: EncodeJob,
    documents: Documents,
    prepared: PreparedEncoder,
    folder: WorkFolder,
    *,
    output: Output,
    engine: Engine,
) -> Encoded:
    """Encode the open blocks, and finish the folder."""
    blocks: dict[int, StoredBlock] = {}
    for number in range(job.num_blocks):
        if (block := finished_block(folder.partial, number, is_verified=True)) is not None:
            blocks[number] = block
        elif has_record(folder.partial, number):
            logger.warning("%s: block %d is damaged and is encoded again", job.label, number)
            forget_block(folder.partial, number)
    open_blocks = [number for number in range(job.num_blocks) if number not in blocks]
    num_open = sum(len(job.texts_of(number)) for number in open_blocks)
    logger.info(
        "%s: %d texts, blocks: %d, finished before: %d",
        job.label, len(job.corpus), job.num_blocks, len(blocks),
    )  # fmt: skip
    _check_room(job, num_open, dim=prepared.embedding_dim)
    caveats = (*documents.caveats, *_truncated(job, prepared))
    for number, block in engine(job, open_blocks, prepared):
        blocks[number] = block
    manifest = _manifest(job, documents, prepared, [blocks[n] for n in range(job.num_blocks)])
    manifest = replace(manifest, caveats=caveats)
    folder.finish(manifest, overwrite=output.overwrite)
    return Encoded(folder=folder.final, manifest=manifest, num_encoded=num_open)


def _manifest(
    job: EncodeJob, documents: Documents, prepared: PreparedEncoder, blocks: list[StoredBlock]
) -> Manifest:
    terms, place = job.terms, documents.place
    assert sum(block.num_texts for block in blocks) == len(job.corpus)
    return Manifest(
        role=terms.role,
        dim=prepared.embedding_dim,
        dtype=terms.dtype,
        file_format=terms.file_format,
        blocks=tuple(blocks),
        contract=terms.contract,
        model=str(prepared.parts.spec.source.location()),
        source={
            "corpus": place.source,
            "kind": place.kind,
            "num_files": len(place.files),
            "digest": terms.source_digest,
            "modified_digest": documents.modified,
            "texts_digest": documents.texts_digest,
            **documents.rules,
        },
        plan={
            "block_size": terms.block_size,
            "max_tokens_per_batch": terms.max_tokens_per_batch,
        },
        part=terms.part,
        versions={
            "quarry": quarry.__version__,
            "torch": str(torch.__version__),
            "transformers": transformers.__version__,
            "python": platform.python_version(),
        },
    )


def _is_of_these_texts(manifest: Manifest, reader: DocumentReader, config: DictConfig) -> bool:
    """Return whether the texts are those of a manifest; read only if a file was touched since."""
    if manifest.source.get("modified_digest") == reader.modified:
        return True
    documents = read_source(reader, cache_dir=config.paths.cache_dir)
    return bool(manifest.source.get("texts_digest") == documents.texts_digest)


def _truncated(job: EncodeJob, prepared: PreparedEncoder) -> list[str]:
    """Return the caveat of texts that are longer than the model's limit, by a sample of them."""
    role, tokenizer = job.terms.role, prepared.parts.tokenizer
    step = max(len(job.corpus) // NUM_SAMPLED, 1)
    sample = job.items(range(0, len(job.corpus), step))
    number = tokenizer.num_too_long(sample, role)
    if not number:
        return []
    limit = tokenizer.prompt.max_length(role)
    caveat = (
        f"{number} of {len(sample)} texts looked at are longer than prompt.max_{role}_length="
        f"{limit} tokens and are truncated"
    )
    logger.warning("%s: %s", job.label, caveat)
    return [caveat]


def _check_output(path: Path, reader: DocumentReader) -> None:
    """Refuse an output inside the corpus: the next call would read it as texts."""
    corpus = Path(reader.place.source).expanduser()
    if (
        reader.place.kind != "hub"
        and corpus.is_dir()
        and path.resolve().is_relative_to(corpus.resolve())
    ):
        raise UserError(
            f"task.output={path}: lies in the corpus, {corpus}, and would be a part of it. Fix: a "
            "folder elsewhere"
        )


def _check_room(job: EncodeJob, num_open: int, *, dim: int) -> None:
    """Refuse a disk on which the open blocks have no room."""
    per_text = dim * np.dtype(job.terms.dtype).itemsize + _BYTES_PER_ID
    place = Place(
        what=f"The output of {num_open:,} texts", path=job.folder, remedy="task.output=DIR"
    )
    check_place(place, num_bytes=num_open * per_text)


def counts_of(encoded: Encoded) -> Mapping[str, float]:
    """Return the numbers of a call, for sweepers and tests."""
    return {
        "encode/num_texts": float(encoded.manifest.num_texts),
        "encode/num_encoded": float(encoded.num_encoded),
        "encode/num_caveats": float(len(encoded.manifest.caveats)),
    }
