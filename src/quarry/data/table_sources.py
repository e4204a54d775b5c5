"""Identify the files that a table was built from, so that a replaced file is noticed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa

_DIGESTED = 64 * 1024
"""Bytes at the beginning and the end of a source whose digest is part of a table's key."""

_METADATA = b"quarry.sources"
"""Entry of the metadata of a table's schema."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFile:
    """A file as it was when a table was built from it.

    Attributes:
        path: absolute.
        size: bytes.
        modified_ns: its time of modification.
        digest: of its first and last 64 KiB: a copy may keep size and time.
    """

    path: str
    size: int
    modified_ns: int
    digest: str

    @classmethod
    def of(cls, path: Path) -> SourceFile:
        """Return the facts of a file, of which both ends are read."""
        stat = path.stat()
        return cls(
            path=str(path.resolve()),
            size=stat.st_size,
            modified_ns=stat.st_mtime_ns,
            digest=_digest(path),
        )

    def key(self) -> tuple[str, int, int, str]:
        """Return the facts as a table's key has them."""
        return self.path, self.size, self.modified_ns, self.digest


def with_sources(schema: pa.Schema, sources: Sequence[SourceFile]) -> pa.Schema:
    """Return a schema whose metadata has the sources; it equals the one without."""
    text = sources_as_text(sources)
    return schema.with_metadata({**(schema.metadata or {}), _METADATA: text.encode()})


def sources_in(schema: pa.Schema) -> tuple[SourceFile, ...]:
    """Return the sources in a schema's metadata; none in tables of earlier versions."""
    found = (schema.metadata or {}).get(_METADATA)
    return () if found is None else sources_from_text(found.decode())


def sources_as_text(sources: Sequence[SourceFile]) -> str:
    """Return the sources as JSON."""
    return json.dumps([asdict(source) for source in sources])


def sources_from_text(text: str) -> tuple[SourceFile, ...]:
    """Return what `sources_as_text` has written."""
    return tuple(SourceFile(**each) for each in json.loads(text))


def _digest(source: Path) -> str:
    """Return a digest of the first and last bytes of a file.

    A replaced file differs there in nearly all cases. A full digest would read gigabytes only to
    learn that a corpus is cached.
    """
    with source.open("rb") as file:
        first = file.read(_DIGESTED)
        file.seek(max(0, source.stat().st_size - _DIGESTED))
        return hashlib.sha256(first + file.read(_DIGESTED)).hexdigest()
