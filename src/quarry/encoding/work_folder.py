"""Hold an unfinished output beside its place, with a record for each finished block.

    .NAME.partial/job.json          what the vectors depend on (`Terms`)
    .NAME.partial/block-00000.json  a finished block: its files, sizes and checksums
    .NAME.partial/vectors-00000.*   its vectors

With the last block the manifest is written, the records are removed, and the folder gets its name.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from quarry.data.source_part import SourcePart
from quarry.encoding.encode_job import Terms
from quarry.encoding.manifest import (
    MANIFEST,
    Manifest,
    StoredBlock,
    as_plain,
    block_from,
    digest_of,
    read_manifest,
)
from quarry.encoding.vector_folder import VectorFolder, shard_folders, shard_name
from quarry.errors import UserError
from quarry.runtime.files import remove, remove_at_once, sha256_of, sync_folder, write_json
from quarry.runtime.leftovers import remove_unfinished
from quarry.runtime.ownership import owned
from quarry.runtime.run_directory import RunDirectory

JOB = "job.json"
_RECORD = "block-{number:05d}.json"


def partial_of(final: Path) -> Path:
    """Return where an output is while it is unfinished."""
    return final.with_name(f".{final.name}.partial")


def final_of(output: Path, part: SourcePart | None) -> Path:
    """Return the folder that a command makes: the output, or a shard's folder in it."""
    return output if part is None else output / shard_name(part)


def finished_block(folder: Path, number: int, *, is_verified: bool = False) -> StoredBlock | None:
    """Return a block that is recorded as finished, if its files are there in full; else None.

    Args:
        is_verified: also read the files and compare their checksums.
    """
    try:
        content = json.loads((folder / _RECORD.format(number=number)).read_text(encoding="utf-8"))
        block = block_from(content)
        for file in block.files:
            path = folder / file.name
            if path.stat().st_size != file.num_bytes:
                return None
            if is_verified and sha256_of(path) != file.sha256:
                return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return block


def record_block(folder: Path, number: int, block: StoredBlock) -> None:
    """Record that a block is finished, once its files are on disk."""
    write_json(folder / _RECORD.format(number=number), as_plain(block))


def forget_block(folder: Path, number: int) -> None:
    """Make a block open again."""
    (folder / _RECORD.format(number=number)).unlink()


def has_record(folder: Path, number: int) -> bool:
    """Return whether a block was finished, whatever has become of it."""
    return (folder / _RECORD.format(number=number)).exists()


class WorkFolder:
    """The place of an output, and the unfinished folder beside it.

    Args:
        output: as the user named it, see `final_of`.
        part: the shard; None: all of the corpus.
    """

    def __init__(self, output: Path, part: SourcePart | None) -> None:
        self.output = output
        self.final = final_of(output, part)
        self.partial = partial_of(self.final)
        self._part = part

    def complete(self, terms: Terms, *, overwrite: bool) -> Manifest | None:
        """Return the manifest of the output if it exists with these terms; None: it is to be made.

        Args:
            overwrite: another output is no reason to refuse.

        Raises:
            UserError: there is another one, or something that is no output.
        """
        self._check_kind()
        if not self.final.exists():
            return None
        if not (self.final / MANIFEST).exists():
            if self.final.is_dir() and not any(self.final.iterdir()):
                return None
            raise UserError(
                f"task.output={self.output}: {self.final} exists and is no folder of vectors. "
                "Fix: another task.output, or move it away"
            )
        with contextlib.suppress(OSError):  # left by a process that was killed right there
            (self.final / JOB).unlink(missing_ok=True)
        if overwrite:
            manifest = _read_if_sound(self.final)
        else:
            manifest = VectorFolder.open(self.final).manifest
        if manifest is not None and not (differing := _differences(manifest, terms)):
            return manifest
        if overwrite:
            return None
        raise UserError(
            f"task.output={self.output}: {self.final.name} holds vectors of another command "
            f"({'; '.join(differing)}). Fix: another task.output, or task.overwrite=true"
        )

    @contextmanager
    def begun(
        self,
        terms: Terms,
        *,
        texts_digest: str,
        segments: tuple[str, ...],
        num_blocks: int,
        overwrite: bool,
    ) -> Iterator[dict[str, Any]]:
        """Own the unfinished folder, and yield what its job recorded at the beginning.

        Args:
            texts_digest: of the texts themselves: `terms` has the ends of large files alone.
            segments: of the store, for a new job.
            num_blocks: of the job, for `task.status`.
            overwrite: begin anew where an unfinished folder is of another command.

        Raises:
            UserError: another process owns it, or it is of another command.
        """
        try:
            with owned(self.partial, is_new=True):
                remove_unfinished(self.partial)
                more = {"segments": list(segments), "num_blocks": num_blocks}
                wanted = terms.as_document() | {"texts": texts_digest}
                job = self._job(wanted, more, overwrite=overwrite)
                try:
                    yield job
                except UserError:
                    self._remove_if_nothing_is_finished()
                    raise
        finally:
            with contextlib.suppress(OSError):  # it has something, or its name by now
                self.partial.rmdir()

    def finish(self, manifest: Manifest, *, overwrite: bool) -> None:
        """Give the folder its manifest and its name; every block is finished."""
        write_json(self.partial / MANIFEST, manifest.as_document())
        self.put_in_place(overwrite=overwrite)

    def put_in_place(self, *, overwrite: bool) -> None:
        """Rename a folder that has its manifest, without all that the manifest does not name.

        That is records, and what workers that were killed left in the middle of a write.
        """
        named = {file.name for block in read_manifest(self.partial).blocks for file in block.files}
        for path in self.partial.iterdir():
            if path.name not in named | {MANIFEST, JOB}:
                remove(path)
        if self.final.exists():
            if any(self.final.iterdir()):
                assert overwrite
                remove_at_once(self.final)
            else:
                self.final.rmdir()
        self.partial.rename(self.final)
        (self.final / JOB).unlink()  # last: until here it tells whose work the folder is
        sync_folder(self.final.parent)

    def is_complete(self) -> bool:
        """Whether the unfinished folder lacks nothing but its name: it was killed right there."""
        return (self.partial / MANIFEST).exists()

    def _remove_if_nothing_is_finished(self) -> None:
        if not self.is_complete() and not any(self.partial.glob("block-*.json")):
            (self.partial / JOB).unlink(missing_ok=True)

    def _check_kind(self) -> None:
        """Refuse shards beside a complete output, and an output over shards."""
        if self._part is None and shard_folders(self.output):
            raise UserError(
                f"task.output={self.output}: holds shards. Fix: task.shard=NUMBER/COUNT, or "
                "another task.output"
            )
        if self._part is not None and (self.output / MANIFEST).exists():
            raise UserError(
                f"task.output={self.output}: holds vectors that are not in shards. Fix: leave out "
                "task.shard, or another task.output"
            )
        counts = {each.name.rpartition("-")[2] for each in shard_folders(self.output)}
        if self._part is not None and counts - {f"{self._part.count:05d}"}:
            raise UserError(
                f"task.shard={self._part}: {self.output} holds shards of another number "
                f"({', '.join(sorted(counts))}). Fix: that number, or another task.output"
            )

    def _job(
        self, wanted: dict[str, Any], more: Mapping[str, Any], *, overwrite: bool
    ) -> dict[str, Any]:
        path = self.partial / JOB
        found = _read_json(path)
        if found is not None:
            stored = {key: found.get(key) for key in wanted}
            if stored == wanted:
                return found
            if not overwrite:
                names = [key for key in wanted if stored[key] != wanted[key]]
                raise UserError(
                    f"task.output={self.output}: {self.partial} holds the unfinished work of "
                    f"another command ({_shown(stored, wanted, names)}). Fix: that command, "
                    "another task.output, or task.overwrite=true to begin anew"
                )
        for each in self.partial.iterdir():
            if each != RunDirectory(self.partial).lock:
                shutil.rmtree(each) if each.is_dir() else each.unlink()
        job = wanted | dict(more)
        write_json(path, job)
        return job


def _read_if_sound(folder: Path) -> Manifest | None:
    try:
        return VectorFolder.open(folder).manifest
    except UserError:
        return None


def _differences(manifest: Manifest, terms: Terms) -> list[str]:
    """Return what differs between an output and the terms of a command, for people."""
    pairs = {
        "model or prompt": (manifest.contract_digest, digest_of(terms.contract[terms.role])),
        "corpus": (manifest.source.get("digest"), terms.source_digest),
        "task.role": (manifest.role, terms.role),
        "task.format": (manifest.file_format, terms.file_format),
        "task.dtype": (manifest.dtype, terms.dtype),
        "task.shard": (manifest.part, terms.part),
    }
    return [
        key if len(str(one)) == 64 else f"{key}: {one}, not {other}"
        for key, (one, other) in pairs.items()
        if one != other
    ]


def _shown(stored: Mapping[str, Any], wanted: Mapping[str, Any], names: list[str]) -> str:
    return "; ".join(
        key if len(str(wanted[key])) == 64 else f"{key}: {stored[key]}, not {wanted[key]}"
        for key in names
    )


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
