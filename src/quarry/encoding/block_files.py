"""Write the vectors of consecutive texts with their ids into files, and read them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from quarry.encoding.manifest import FileFormat, StoredBlock, StoredFile, VectorDtype
from quarry.errors import UserError
from quarry.retrieval.embeddings import Embeddings
from quarry.retrieval.store.conversion import converted
from quarry.runtime.files import replacing, sha256_of

ROWS_PER_GROUP = 8192
"""Rows of a Parquet row group: what reading one row costs."""

_DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "float16": torch.float16}


def write_block(
    folder: Path,
    number: int,
    *,
    ids: Sequence[str],
    embeddings: Embeddings,
    file_format: FileFormat,
    dtype: VectorDtype,
) -> StoredBlock:
    """Write `vectors-<number>.*`; each file appears complete and on disk, or not at all.

    Args:
        ids: [num_texts]
        embeddings: [num_texts, dim]

    Raises:
        UserError: a vector has a number that is not finite, or too large for `dtype`.
    """
    assert len(ids) == len(embeddings)
    pieces = _pieces(ids, embeddings, dtype)
    dim = embeddings.shape[1]
    if file_format == "parquet":
        path = folder / f"vectors-{number:05d}.parquet"
        with replacing(path) as partial:
            _write_parquet(partial, ids, pieces, dim=dim, dtype=dtype)
            files = [_described(partial, path.name)]
    else:
        path, names = folder / f"vectors-{number:05d}.npy", folder / f"ids-{number:05d}.arrow"
        with replacing(path) as partial:
            with partial.open("wb") as file:
                _write_npy(file, pieces, shape=(len(ids), dim), dtype=dtype)
            files = [_described(partial, path.name)]
        with replacing(names) as partial:
            _write_ids(partial, ids)
            files.append(_described(partial, names.name))
    return StoredBlock(num_texts=len(ids), files=tuple(files))


def _described(path: Path, name: str) -> StoredFile:
    return StoredFile(name=name, num_bytes=path.stat().st_size, sha256=sha256_of(path))


def _pieces(
    ids: Sequence[str], embeddings: Embeddings, dtype: str
) -> Iterator[NDArray[np.floating]]:
    """Yield the vectors, some rows at a time, in `dtype`."""
    for start in range(0, len(ids), ROWS_PER_GROUP):
        rows = embeddings[start : start + ROWS_PER_GROUP]
        is_finite = torch.isfinite(rows).all(dim=1)
        if not is_finite.all():
            wrong = start + int((~is_finite).nonzero()[0])
            raise UserError(
                f"The embedding of text {ids[wrong]!r} holds NaN or infinity, and so may others: "
                "the model is damaged or its dtype too small. Fix: model.dtype=float32, or "
                "another model"
            )
        wide = rows if _DTYPES[dtype] == rows.dtype else rows.float()
        yield converted(
            wide, np.dtype(dtype), what=f"text {ids[start]!r} or after it",
            remedy="task.dtype=float32",
        )  # fmt: skip


def _write_parquet(
    path: Path,
    ids: Sequence[str],
    pieces: Iterable[NDArray[np.floating]],
    *,
    dim: int,
    dtype: str,
) -> None:
    kind = pa.float32() if dtype == "float32" else pa.float16()
    schema = pa.schema([("id", pa.string()), ("vector", pa.list_(kind, dim))])
    with pq.ParquetWriter(
        path,
        schema,
        compression={"id": "zstd", "vector.list.element": "none"},
        use_dictionary=False,
    ) as writer:
        start = 0
        for vectors in pieces:
            flat = pa.array(vectors.reshape(-1), kind)
            columns = [
                pa.array(ids[start : start + len(vectors)], pa.string()),
                pa.FixedSizeListArray.from_arrays(flat, dim),
            ]
            writer.write_table(
                pa.Table.from_arrays(columns, schema=schema), row_group_size=ROWS_PER_GROUP
            )
            start += len(vectors)


def _write_npy(
    file: IO[bytes], pieces: Iterable[NDArray[np.floating]], *, shape: tuple[int, int], dtype: str
) -> None:
    descr = np.dtype(dtype).newbyteorder("<").str
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    for vectors in pieces:
        file.write(np.ascontiguousarray(vectors, dtype=descr).data)


def _write_ids(path: Path, ids: Sequence[str]) -> None:
    schema = pa.schema([("id", pa.large_string())])
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        writer.write_batch(pa.record_batch([pa.array(ids, pa.large_string())], schema=schema))


class BlockReader:
    """Reader of a block's files: ids and vectors by rows.

    Files are opened when they are first read. .npy files are memory-mapped; of Parquet one row
    group is in memory, until `forget`.
    """

    def __init__(self, folder: Path, block: StoredBlock, *, dim: int, dtype: str) -> None:
        self.num_texts = block.num_texts
        self._dim, self._dtype = dim, np.dtype(dtype)
        self._vectors, *names = [folder / file.name for file in block.files]
        self._names: Path | None = names[0] if names else None
        self._mapped: NDArray[np.floating] | None = None
        self._group: tuple[int, NDArray[np.floating]] | None = None

    def ids(self) -> pa.Array:
        """Return the ids [num_texts] as an Arrow array of strings.

        Raises:
            UserError: the file is not as written.
        """
        path = self._names or self._vectors
        with _explained(path):
            if self._names is None:
                found = pq.read_table(path, columns=["id"])["id"].combine_chunks()
            else:
                found = pa.ipc.open_file(pa.memory_map(str(path))).read_all()["id"]
                found = found.chunk(0) if found.num_chunks == 1 else found.combine_chunks()
            if len(found) != self.num_texts or found.null_count:
                raise ValueError(f"{len(found)} ids, {found.null_count} of them null")
        return found

    def rows(self, start: int, stop: int) -> NDArray[np.floating]:
        """Return the vectors start..stop-1: [num_rows, dim]; of .npy a view of the map.

        Raises:
            UserError: the file is not as written.
        """
        with _explained(self._vectors):
            if self._vectors.suffix == ".npy":
                return self._map()[start:stop]
            found = []
            while start < stop:
                group = start // ROWS_PER_GROUP
                first = group * ROWS_PER_GROUP
                end = min(stop, first + ROWS_PER_GROUP)
                found.append(self._rows_of(group)[start - first : end - first])
                start = end
            return found[0] if len(found) == 1 else np.concatenate(found)

    def forget(self) -> None:
        """Give back the memory of a row group."""
        self._group = None

    def _map(self) -> NDArray[np.floating]:
        if self._mapped is None:
            mapped = np.load(self._vectors, mmap_mode="r", allow_pickle=False)
            if mapped.shape != (self.num_texts, self._dim) or mapped.dtype != self._dtype:
                raise ValueError(f"{mapped.dtype} {mapped.shape}")
            self._mapped = np.asarray(mapped)
        return self._mapped

    def _rows_of(self, group: int) -> NDArray[np.floating]:
        if self._group is None or self._group[0] != group:
            with pq.ParquetFile(self._vectors, memory_map=True) as parquet:
                self._check_groups(parquet)
                column = parquet.read_row_group(group, columns=["vector"])["vector"]
            flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
            self._group = group, flat.reshape(-1, self._dim)
        return self._group[1]

    def _check_groups(self, parquet: Any) -> None:
        kind = pa.float32() if self._dtype == np.float32 else pa.float16()
        wanted, schema = pa.list_(kind, self._dim), parquet.schema_arrow
        if "vector" not in schema.names or not schema.field("vector").type.equals(wanted):
            raise ValueError(f"no column of {wanted}")
        metadata = parquet.metadata
        sizes = {metadata.row_group(i).num_rows for i in range(metadata.num_row_groups - 1)}
        if metadata.num_rows != self.num_texts or not sizes <= {ROWS_PER_GROUP}:
            raise ValueError(f"{metadata.num_rows} rows in groups of {sizes}")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise damaged(path, str(error)) from error


def damaged(path: Path, why: str) -> UserError:
    """Return the error for a file that is not as written."""
    return UserError(
        f"{path}: is damaged or cut off ({why}). Fix: restore it, or remove {path.parent} and "
        "encode again"
    )


def as_tensor(rows: NDArray[np.floating]) -> Tensor:
    """Return a copy of mapped rows as a tensor."""
    return torch.from_numpy(np.array(rows))
