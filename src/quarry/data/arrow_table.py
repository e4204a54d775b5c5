"""Store records in one memory-mapped Arrow file in a cache folder, with access by row and id.

A corpus or training set of any size thus costs page cache that all processes share, and almost
no memory of their own.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from quarry.data.jsonl import shown
from quarry.data.table_sources import SourceFile, sources_in, with_sources
from quarry.errors import UserError
from quarry.runtime.cache_use import CacheUse
from quarry.runtime.progress import tracked

logger = logging.getLogger(__name__)

FORMAT_VERSION = 2
ROWS_PER_BATCH = 1024
"""Rows of every record batch but the last, so that one division finds a row's batch."""

LINE = "line"
"""Name of an int64 column in every table: the line of the source that a row came from."""


class ArrowTable:
    """Reader of a file that `open_table` wrote; pickles as its path, so that workers map it."""

    def __init__(self, path: Path, *, is_used: bool = True) -> None:
        """Map the file; raise OSError or ValueError (also pyarrow's own) if it is no table.

        Args:
            is_used: hold it in the cache, and mark it as used now.
        """
        self.path = path
        self._use = CacheUse(path) if is_used else None
        self._reader = pa.ipc.open_file(pa.memory_map(str(path)))
        self._batches: list[Any] = [None] * self._reader.num_record_batches
        num_full = max(len(self._batches) - 1, 0)
        tail = self._batch(num_full).num_rows if self._batches else 0
        self._num_rows = num_full * ROWS_PER_BATCH + tail
        self._hashes: NDArray[np.uint64] | None = None
        self._hash_rows: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return self._num_rows

    def __reduce__(self) -> tuple[type[ArrowTable], tuple[Path]]:
        return ArrowTable, (self.path,)

    @property
    def schema(self) -> pa.Schema:
        return self._reader.schema

    @property
    def sources(self) -> tuple[SourceFile, ...]:
        """The files that it was built from; none in tables of earlier versions."""
        return sources_in(self.schema)

    def row(self, index: int, columns: Sequence[str]) -> tuple[Any, ...]:
        """Return the given columns of one row, as Python values; `index` may be negative."""
        if not -self._num_rows <= index < self._num_rows:
            raise IndexError(f"row {index} of {self._num_rows}")
        number, offset = divmod(index % self._num_rows, ROWS_PER_BATCH)
        batch = self._batch(number)
        return tuple([batch.column(name)[offset].as_py() for name in columns])

    def rows(self, start: int, stop: int, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """Yield the given columns of the rows start..stop-1, reading a record batch at a time."""
        stop = min(stop, self._num_rows)
        while start < stop:
            number, offset = divmod(start, ROWS_PER_BATCH)
            part = self._batch(number).slice(offset, stop - start)
            yield from zip(*(part.column(name).to_pylist() for name in columns), strict=True)
            start += part.num_rows

    def column(self, name: str) -> NDArray[Any]:
        """Return a complete column of numbers or booleans: [len(self)]."""
        return np.concatenate([part.to_numpy(zero_copy_only=False) for part in self.cells(name)])

    def cells(self, name: str) -> Iterator[pa.Array]:
        """Yield a column, a record batch at a time."""
        for number in range(len(self._batches)):
            yield self._batch(number).column(name)

    def rows_of(self, ids: Sequence[str], *, id_column: str) -> NDArray[np.int64]:
        """Return the row of each id, -1 for an id that the table lacks: [len(ids)].

        Requires a table that `open_table` built with this `id_column`.
        """
        hashes, hash_rows = self._id_index()
        wanted = _hash_ids(ids)
        found = np.full(len(ids), -1, dtype=np.int64)
        for i, start in enumerate(np.searchsorted(hashes, wanted).tolist()):
            for position in range(start, len(hashes)):
                if hashes[position] != wanted[i]:
                    break
                # different ids may share a hash: compare the ids themselves
                if self.row(int(hash_rows[position]), (id_column,))[0] == ids[i]:
                    found[i] = hash_rows[position]
                    break
        return found

    def _batch(self, number: int) -> Any:
        batch = self._batches[number]
        if batch is None:
            batch = self._batches[number] = self._reader.get_batch(number)
        return batch

    def _id_index(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        if self._hashes is None or self._hash_rows is None:
            index = np.load(_index_path(self.path), mmap_mode="r")
            if index.shape != (2, self._num_rows) or index.dtype != np.uint64:
                raise ValueError(f"{_index_path(self.path)} does not belong to {self.path}")
            # plain views of the map: scalar access to np.memmap itself is many times slower
            self._hashes = np.asarray(index[0])
            self._hash_rows = np.asarray(index[1]).view(np.int64)
        return self._hashes, self._hash_rows


def open_table(
    *,
    cache_dir: Path,
    kind: str,
    sources: Sequence[Path],
    schema: pa.Schema,
    rows: Iterable[tuple[Any, ...]],
    id_column: str | None = None,
    settings: str = "",
) -> ArrowTable:
    """Return the table of these sources: from the cache folder if it is intact there, else built.

    A build writes a temporary file and renames it when it is complete and on disk. So a killed
    build leaves nothing that could be mistaken for a table. Processes that build at the same time
    each install the same table. A file with a damaged end or another schema is rebuilt; the bytes
    between are not checked.

    Args:
        cache_dir: created if missing.
        kind: first part of the file's name, for people who look into the folder.
        sources: the files that the rows come from. The table's key holds path, size, modification
            time and a digest of the first and last 64 KiB of each (a copy may keep the time).
            Errors and `LINE` refer to the first.
        schema: the columns, `LINE` among them.
        rows: cells in the order of the schema; consumed only when the table is built.
        id_column: a string column whose values must be unique, for `ArrowTable.rows_of`.
        settings: anything else that the rows depend on; part of the table's key.

    Raises:
        UserError: two rows share an id, there are no rows, or `cache_dir` cannot be created or
            written to.
    """
    assert LINE in schema.names
    cache_dir = cache_dir.expanduser()
    files = [SourceFile.of(source) for source in sources]
    path = cache_dir / f"{kind}-{_key(files, schema, id_column, settings)}.arrow"
    table = _open_if_good(path, schema, id_column)
    if table is not None:
        return table
    _make_folder(cache_dir)
    logger.info("building %s from %s", path, ", ".join(map(str, sources)))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        id_hashes = _write_rows(temporary, with_sources(schema, files), rows, id_column)
        made = ArrowTable(temporary)  # held until it has its name
        if len(made) == 0:
            raise UserError(f"{sources[0]}: holds no records; check that it is the right file")
        if id_column is not None:
            _write_id_index(temporary, id_hashes, id_column, sources[0])
            _index_path(temporary).replace(_index_path(path))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
        _index_path(temporary).unlink(missing_ok=True)
    return ArrowTable(path)


def write_table(
    path: Path, *, schema: pa.Schema, rows: Iterable[tuple[Any, ...]], id_column: str
) -> None:
    """Write a table and its id index to `path`, outside of any cache.

    Args:
        path: a new file in a folder that is not in use yet.
        rows: cells in the order of the schema; not held in memory.
        id_column: a string column whose values must be unique.

    Raises:
        UserError: two rows share an id.
    """
    assert LINE in schema.names
    id_hashes = _write_rows(path, schema, rows, id_column)
    _write_id_index(path, id_hashes, id_column, path)


def rows_digest(path: Path) -> str:
    """Return the SHA-256 of a table's rows in their order; where they come from is no part of it.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    with pa.memory_map(str(path)) as file:
        reader = pa.ipc.open_file(file)
        for number in range(reader.num_record_batches):
            digest.update(reader.get_batch(number).serialize())
    return digest.hexdigest()


def _key(
    sources: Sequence[SourceFile], schema: pa.Schema, id_column: str | None, settings: str
) -> str:
    files = [source.key() for source in sources]
    facts = [FORMAT_VERSION, ROWS_PER_BATCH, schema.to_string(), id_column, files]
    if settings:
        facts.append(settings)
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]


def _index_path(table_path: Path) -> Path:
    """Return the path of the id index of a table; temporary as the table itself is."""
    end = ".tmp" if table_path.suffix == ".tmp" else ""
    return table_path.with_suffix(f".ids.npy{end}")


def _open_if_good(path: Path, schema: pa.Schema, id_column: str | None) -> ArrowTable | None:
    if not path.exists():
        return None
    try:
        table = ArrowTable(path)
        if not table.schema.equals(schema) or len(table) == 0:
            raise ValueError("not the table that its name says")
        if id_column is not None:
            table._id_index()
    except (OSError, ValueError) as error:
        logger.warning("%s is damaged (%s); building it again", path, error)
        return None
    return table


def _make_folder(cache_dir: Path) -> None:
    remedy = "name a folder that can be written to"
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cache_dir={cache_dir}: cannot be made ({error.strerror}); {remedy}"
        ) from error
    if not os.access(cache_dir, os.W_OK | os.X_OK):
        raise UserError(f"cache_dir={cache_dir}: no permission to write; {remedy}")


def _write_rows(
    path: Path, schema: pa.Schema, rows: Iterable[tuple[Any, ...]], id_column: str | None
) -> NDArray[np.uint64]:
    """Write the rows a record batch at a time; return the hash of each id (no id column: empty)."""
    hashes = array("Q")
    name = path.name.split("-")[0].lstrip(".")
    remaining = tracked(rows, label=f"building {name}", units="rows")
    with path.open("xb") as file:
        use = CacheUse(path)  # nobody removes it as the rest of a killed process
        with pa.ipc.new_file(file, schema) as writer:
            while chunk := list(islice(remaining, ROWS_PER_BATCH)):
                cells = zip(*chunk, strict=True)
                columns = dict(zip(schema.names, map(list, cells), strict=True))
                arrays = [pa.array(columns[field.name], field.type) for field in schema]
                writer.write_batch(pa.record_batch(arrays, schema=schema))
                if id_column is not None:
                    hashes.frombytes(_hash_ids(columns[id_column]).tobytes())
        file.flush()
        os.fsync(file.fileno())
    del use
    return np.frombuffer(hashes, dtype=np.uint64)


def _write_id_index(
    table_path: Path, id_hashes: NDArray[np.uint64], id_column: str, source: Path
) -> None:
    """Write the id index [2, num_rows]: hashes in ascending order, and the row of each."""
    order = np.argsort(id_hashes, kind="stable")
    # written through a map, so that it is not in memory twice
    index = np.lib.format.open_memmap(
        _index_path(table_path), mode="w+", dtype=np.uint64, shape=(2, len(order))
    )
    np.take(id_hashes, order, out=index[0])
    index[1] = order.view(np.uint64)
    index.flush()
    _refuse_duplicate(ArrowTable(table_path), index[0], order, id_column, source)


def _refuse_duplicate(
    table: ArrowTable,
    hashes: NDArray[np.uint64],
    order: NDArray[np.int64],
    id_column: str,
    source: Path,
) -> None:
    """Raise UserError for the first row whose id occurred before; `hashes` is stably sorted."""
    later = np.flatnonzero(hashes[1:] == hashes[:-1]) + 1
    for position in later[np.argsort(order[later])].tolist():
        text, line = table.row(int(order[position]), (id_column, LINE))
        earlier = position - 1
        while earlier >= 0 and hashes[earlier] == hashes[position]:
            earlier_text, earlier_line = table.row(int(order[earlier]), (id_column, LINE))
            if earlier_text == text:
                raise UserError(
                    f"{source}:{line}: the id {shown(text)} stands on line {earlier_line} already; "
                    "ids must differ: remove or rename one"
                )
            earlier -= 1


def _hash_ids(ids: Sequence[str]) -> NDArray[np.uint64]:
    """Return 8 bytes of BLAKE2b per id: [len(ids)]. Python's hash differs between processes."""
    digests = b"".join([hashlib.blake2b(text.encode(), digest_size=8).digest() for text in ids])
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64, copy=False)
