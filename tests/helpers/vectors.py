"""Folders of vectors without a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from quarry.data.source_part import SourcePart
from quarry.encoding.block_files import write_block
from quarry.encoding.manifest import MANIFEST, FileFormat, Manifest, VectorDtype
from quarry.encoding.vector_folder import shard_name
from quarry.runtime.files import write_json

CONTRACT = {"query": {"weights": ["w"], "role": "q"}, "document": {"weights": ["w"], "role": "d"}}


def vectors(num_texts: int, *, dim: int = 8, seed: int = 0) -> Tensor:
    """Normalized random vectors."""
    made = torch.randn(num_texts, dim, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(made, dim=1)


def write_vector_folder(
    folder: Path,
    embeddings: Tensor,
    *,
    ids: Sequence[str] | None = None,
    file_format: FileFormat = "parquet",
    dtype: VectorDtype = "float32",
    num_texts_per_block: int = 100,
    **more: Any,
) -> Path:
    """Write a folder as task=encode does."""
    folder.mkdir(parents=True)
    names = ids if ids is not None else [f"d{i}" for i in range(len(embeddings))]
    starts = range(0, len(embeddings), num_texts_per_block)
    blocks = tuple(
        write_block(
            folder,
            number,
            ids=names[start : start + num_texts_per_block],
            embeddings=embeddings[start : start + num_texts_per_block],
            file_format=file_format,
            dtype=dtype,
        )
        for number, start in enumerate(starts)
    )
    settings: dict[str, Any] = {
        "role": "document", "contract": CONTRACT, "model": "tiny", "source": {"digest": "s"},
    } | more  # fmt: skip
    manifest = Manifest(
        dim=embeddings.shape[1], dtype=dtype, file_format=file_format, blocks=blocks, **settings
    )
    write_json(folder / MANIFEST, manifest.as_document())
    return folder


def write_shards(folder: Path, embeddings: Tensor, count: int, **more: Any) -> Path:
    """Write a folder of shards, contiguous as those of JSON lines."""
    for number in range(count):
        part = SourcePart(number=number, count=count)
        rows = part.bounds(len(embeddings))
        write_vector_folder(
            folder / shard_name(part),
            embeddings[rows.start : rows.stop],
            ids=[f"d{i}" for i in rows],
            part=part,
            **more,
        )
    return folder
