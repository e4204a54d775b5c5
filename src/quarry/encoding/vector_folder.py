"""Open the folder of vectors with ids that task=encode writes, or all shards of one as one folder.

    manifest.json            `Manifest`: model, contract, source, files with sizes and checksums
    vectors-00000.parquet    id (string), vector (list of dim numbers)
    or
    vectors-00000.npy        [num_texts, dim]
    ids-00000.arrow          id (string), an Arrow file

A folder of shards holds `shard-00000-of-00064/` and so on, each a folder as above.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import overload

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from quarry.data.source_part import SourcePart
from quarry.encoding.block_files import BlockReader, as_tensor, damaged
from quarry.encoding.manifest import MANIFEST, Manifest, read_manifest
from quarry.errors import MissingPathError, UserError
from quarry.runtime.files import sha256_of
from quarry.runtime.progress import Progress

logger = logging.getLogger(__name__)

NUM_BLOCKS_HELD = 64
"""Blocks of which the ids stay in memory after a look at them."""

_SHARD = re.compile(r"shard-(\d{5,9})-of-(\d{5,9})")
_DTYPES = {"float32": torch.float32, "float16": torch.float16}


def shard_name(part: SourcePart) -> str:
    """Return the name of a shard's folder."""
    return f"shard-{part.number:05d}-of-{part.count:05d}"


class VectorIds(Sequence[str]):
    """The ids of all texts, in the order of the vectors, read a block at a time."""

    def __init__(self, blocks: Sequence[BlockReader]) -> None:
        self._blocks = blocks
        self._ends = list(accumulate((block.num_texts for block in blocks), initial=0))
        self._ids = lru_cache(maxsize=NUM_BLOCKS_HELD)(self._read)

    def __len__(self) -> int:
        return self._ends[-1]

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step == 1:
                return [
                    name
                    for block, inside in _inside(self._ends, start, stop)
                    for name in self._ids(block)[inside.start : inside.stop].to_pylist()
                ]
            return [self[row] for row in range(start, stop, step)]
        if not -len(self) <= index < len(self):
            raise IndexError(f"text {index} of {len(self)}")
        row = index % len(self)
        ((block, inside),) = _inside(self._ends, row, row + 1)
        return str(self._ids(block)[inside.start].as_py())

    def __iter__(self) -> Iterator[str]:
        for block in range(len(self._blocks)):
            yield from self._ids(block).to_pylist()

    def arrays(self) -> Iterator[pa.Array]:
        """Yield the ids of each block as an Arrow array of strings."""
        for block in range(len(self._blocks)):
            yield self._ids(block)

    def _read(self, block: int) -> pa.Array:
        return self._blocks[block].ids()


class VectorRows:
    """The embeddings [num_texts, dim] of a folder (`retrieval.embeddings.Embeddings`).

    A slice is a copy in memory; .npy files are memory-mapped.
    """

    def __init__(self, blocks: Sequence[BlockReader], *, dim: int, dtype: str) -> None:
        self._blocks = blocks
        self._ends = list(accumulate((block.num_texts for block in blocks), initial=0))
        self.shape = (self._ends[-1], dim)
        self.dtype = _DTYPES[dtype]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice, /) -> Tensor:
        start, stop, step = rows.indices(len(self))
        assert step == 1, "rows are read in order"
        found = [as_tensor(part) for part in self._parts(start, stop)]
        if not found:
            return torch.empty(0, self.shape[1], dtype=self.dtype)
        return found[0] if len(found) == 1 else torch.cat(found)

    def mapped(self) -> list[NDArray[np.floating]]:
        """Return the arrays of all blocks, memory-mapped (.npy alone; Parquet is decoded)."""
        return [block.rows(0, block.num_texts) for block in self._blocks]

    def _parts(self, start: int, stop: int) -> Iterator[NDArray[np.floating]]:
        for block, inside in _inside(self._ends, start, stop):
            yield self._blocks[block].rows(inside.start, inside.stop)
            if inside.stop == self._blocks[block].num_texts:  # read on: the next block follows
                self._blocks[block].forget()


class VectorFolder:
    """A complete folder of vectors, or all shards of one corpus.

    Attributes:
        path: the folder.
        manifest: of the folder; of shards what they share, all blocks, and all caveats.
        ids: [num_texts] id of each text; unique within a shard, see `verify`.
        embeddings: [num_texts, dim].
    """

    def __init__(self, path: Path, folders: Sequence[tuple[Path, Manifest]]) -> None:
        self.path = path
        self._folders = folders
        self.manifest = _joined([manifest for _, manifest in folders])
        blocks = [
            _opened(folder, manifest, number)
            for folder, manifest in folders
            for number in range(len(manifest.blocks))
        ]
        self.ids = VectorIds(blocks)
        self.embeddings = VectorRows(blocks, dim=self.manifest.dim, dtype=self.manifest.dtype)

    def __len__(self) -> int:
        return self.manifest.num_texts

    @classmethod
    def open(cls, path: Path | str) -> VectorFolder:
        """Open a folder; sizes of files are compared, contents are not (`verify`).

        Raises:
            MissingPathError: it is no folder of vectors, a file or a shard is missing.
            UserError: it is damaged, cut off, of another program or version, or its shards are of
                different corpora, models or settings.
        """
        path = Path(path).expanduser()
        if not path.is_dir():
            raise MissingPathError(f"{path}: no such folder of vectors. Fix: check the path")
        if (path / MANIFEST).exists() or not (shards := shard_folders(path)):
            return cls(path, [(path, read_manifest(path))])
        folders = [(folder, read_manifest(folder)) for folder in shards]
        _check_shards(path, folders)
        return cls(path, folders)

    def shards(self) -> Iterator[tuple[Manifest, range]]:
        """Yield the manifest of each shard, and its rows in the folder; one without shards."""
        start = 0
        for _, manifest in self._folders:
            yield manifest, range(start, start + manifest.num_texts)
            start += manifest.num_texts

    def verify(self) -> None:
        """Read everything: compare all checksums, and check that no two texts share an id.

        Takes 8 bytes of memory for each text.

        Raises:
            UserError: names the first file that is not as written, or a repeated id.
        """
        total = sum(len(manifest.blocks) for _, manifest in self._folders)
        with Progress(label=f"verifying {self.path.name}", total=total, units="blocks") as progress:
            for folder, manifest in self._folders:
                for block in manifest.blocks:
                    for file in block.files:
                        if sha256_of(folder / file.name) != file.sha256:
                            raise damaged(folder / file.name, "its checksum is another")
                    progress.add(1)
        self._refuse_repeated_ids()

    def _refuse_repeated_ids(self) -> None:
        hashes = np.array([hash(name) for name in self.ids], dtype=np.int64)
        order = np.argsort(hashes, kind="stable")
        same = np.flatnonzero(hashes[order[1:]] == hashes[order[:-1]])
        for place in same.tolist():
            one, other = int(order[place]), int(order[place + 1])
            if self.ids[one] == self.ids[other]:
                raise UserError(
                    f"{self.path}: the id {self.ids[one]!r} stands for two texts (rows {one} and "
                    f"{other}). Fix: make the ids of the corpus differ, and encode it again"
                )


def _inside(ends: Sequence[int], start: int, stop: int) -> Iterator[tuple[int, range]]:
    """Yield each block with the rows of it that are in start..stop-1."""
    block = int(np.searchsorted(ends, start, side="right")) - 1
    while start < stop:
        end = min(stop, ends[block + 1])
        if end > start:
            yield block, range(start - ends[block], end - ends[block])
        start, block = max(start, end), block + 1


def _opened(folder: Path, manifest: Manifest, number: int) -> BlockReader:
    block = manifest.blocks[number]
    for file in block.files:
        path = folder / file.name
        if not path.is_file():
            raise MissingPathError(
                f"{path}: is missing. Fix: restore it, or remove {folder} and encode again"
            )
        if (size := path.stat().st_size) != file.num_bytes:
            raise damaged(path, f"{size} bytes, and {file.num_bytes} were written")
    return BlockReader(folder, block, dim=manifest.dim, dtype=manifest.dtype)


def shard_folders(path: Path) -> list[Path]:
    """Return the shards in a folder, sorted; none where it is no folder."""
    if not path.is_dir():
        return []
    return sorted(each for each in path.iterdir() if _SHARD.fullmatch(each.name) and each.is_dir())


def _check_shards(path: Path, folders: Sequence[tuple[Path, Manifest]]) -> None:
    """Refuse shards that are not all of one corpus."""
    first_folder, first = folders[0]
    for folder, manifest in folders:
        for key, one, other in (
            ("shards", _count_of(manifest), _count_of(first)),
            ("contract", manifest.contract_digest, first.contract_digest),
            ("source", manifest.source.get("digest"), first.source.get("digest")),
            ("role", manifest.role, first.role),
            ("dtype", manifest.dtype, first.dtype),
            ("dim", manifest.dim, first.dim),
            ("name", folder.name, manifest.part and shard_name(manifest.part)),
        ):
            if one != other:
                raise UserError(
                    f"{folder}: does not belong to {first_folder.name} ({key}: {one}, not "
                    f"{other}). Fix: keep the shards of one command in {path}, and remove others"
                )
    found = {manifest.part.number for _, manifest in folders if manifest.part is not None}
    count = _count_of(first)
    if missing := [number for number in range(count) if number not in found]:
        shown = ", ".join(f"{number}/{count}" for number in missing[:10])
        more = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
        raise MissingPathError(
            f"{path}: {len(missing)} of {count} shards are missing or not finished: {shown}{more}. "
            "Fix: run them, task.shard=NUMBER/COUNT"
        )


def _count_of(manifest: Manifest) -> int:
    return 0 if manifest.part is None else manifest.part.count


def _joined(manifests: Sequence[Manifest]) -> Manifest:
    """Return one manifest for all shards."""
    if len(manifests) == 1:
        return manifests[0]
    return replace(
        manifests[0],
        blocks=tuple(block for manifest in manifests for block in manifest.blocks),
        caveats=(
            *(f"shard {each.part}: {caveat}" for each in manifests for caveat in each.caveats),
            *_time_caveats(manifests),
        ),
        part=None,
    )


def _time_caveats(manifests: Sequence[Manifest]) -> list[str]:
    """Return the caveat of shards whose files have other times; commits of the hub are fixed."""
    sources = [manifest.source for manifest in manifests if manifest.source.get("kind") != "hub"]
    times = {source.get("modified_digest") for source in sources}
    if len(times) < 2:
        return []
    caveat = (
        f"shards were read from files of {len(times)} times: copies, or the corpus was changed "
        "between (task=index task.vectors compares every text)"
    )
    logger.warning("%s", caveat)
    return [caveat]
