"""Describe an index folder: what was indexed, by which model, and the checksum of each file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from quarry.data.table_sources import SourceFile
from quarry.errors import MissingPathError, UserError
from quarry.runtime.files import sha256_of, write_json

MANIFEST_FILE = "manifest.json"
FORMAT = "quarry-index"
VERSION = 1


@dataclass(frozen=True, kw_only=True)
class IndexedFile:
    """A file of an index as it was written.

    Attributes:
        num_bytes: its size.
        ends: SHA-256 of its first and last 64 KiB, which each opening compares.
        sha256: of all bytes, which `SearchIndex.open(..., verify=True)` compares.
    """

    num_bytes: int
    ends: str
    sha256: str

    @classmethod
    def of(cls, path: Path) -> IndexedFile:
        """Return the facts of a file; all of it is read."""
        facts = SourceFile.of(path)
        return cls(num_bytes=facts.size, ends=facts.digest, sha256=sha256_of(path))


@dataclass(frozen=True, kw_only=True)
class IndexManifest:
    """The content of manifest.json.

    Attributes:
        num_documents, dim, dtype: shape and dtype (float16, float32) of the vectors.
        largest_norm: largest Euclidean norm of a vector.
        index: kind ("exact", "faiss_hnsw") and its settled parameters.
        recall: "recall@10" and "recall@100" against exact search, how many queries of which source
            they are from, and the median time of a query; empty for exact search.
        model: "path" of the model, and "overrides" with which it was loaded.
        contract: role -> everything that its embeddings depend on.
        digest: of the contract.
        source: where documents and vectors come from, for people.
        bm25: kind of the terms ("text", "code") that hybrid search compares; None: it has none.
        files: name -> facts of each file.
        made_by: versions and time.
    """

    num_documents: int
    dim: int
    dtype: str
    largest_norm: float
    index: Mapping[str, Any]
    recall: Mapping[str, Any]
    model: Mapping[str, Any]
    contract: Mapping[str, Any]
    digest: str
    source: Mapping[str, Any]
    bm25: str | None
    files: Mapping[str, IndexedFile]
    made_by: Mapping[str, str]

    def write(self, folder: Path) -> None:
        """Write manifest.json, which makes the folder an index."""
        write_json(folder / MANIFEST_FILE, {"format": FORMAT, "version": VERSION} | asdict(self))


def read_manifest(folder: Path) -> IndexManifest:
    """Read an index's manifest.

    Raises:
        MissingPathError: there is no such folder, or it is no index.
        UserError: it is damaged, of something else, or of another version.
    """
    path = folder / MANIFEST_FILE
    if not path.is_file():
        why = "holds no index" if folder.is_dir() else "no such folder"
        raise MissingPathError(
            f"task.index={folder}: {why} (a folder of task=index with {MANIFEST_FILE}; an "
            "unfinished one has none). Fix: task=index task.output=DIR ..."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = content.get("format"), content.get("version")
    except (ValueError, AttributeError) as error:
        raise damaged(folder, f"{MANIFEST_FILE} is no JSON object ({error})") from error
    if found[0] != FORMAT:
        raise UserError(
            f"task.index={folder}: its {MANIFEST_FILE} is of {found[0]!r}, not of an index "
            f"({FORMAT!r}). Fix: task.index=DIR, a folder of task=index"
        )
    if found[1] != VERSION:
        raise UserError(
            f"task.index={folder}: has version {found[1]!r} of the format, and this version of "
            f"Quarry reads {VERSION}. Fix: build it again, task=index"
        )
    try:
        return _manifest(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise damaged(
            folder, f"{MANIFEST_FILE} lacks a part or has a wrong one ({error})"
        ) from error


def _manifest(content: dict[str, Any]) -> IndexManifest:
    values = {field.name: content[field.name] for field in fields(IndexManifest)}
    values["files"] = {name: IndexedFile(**facts) for name, facts in content["files"].items()}
    manifest = IndexManifest(**values)
    numbers = (manifest.num_documents, manifest.dim)
    if any(type(number) is not int or number < 1 for number in numbers):
        raise ValueError(f"num_documents and dim are {numbers}")
    if manifest.dtype not in ("float16", "float32") or not manifest.largest_norm >= 0:
        raise ValueError(f"dtype={manifest.dtype} largest_norm={manifest.largest_norm}")
    if any("/" in name or name.startswith(".") for name in manifest.files):
        raise ValueError("a file lies outside of the folder")
    return manifest


def check_files(folder: Path, manifest: IndexManifest, *, verify: bool) -> None:
    """Refuse files that are missing, or differ from what was written.

    Args:
        verify: read them completely; else their sizes and both ends are compared.

    Raises:
        UserError: naming the file.
    """
    for name, facts in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise damaged(folder, f"{name} is missing")
        found = SourceFile.of(path)
        if found.size != facts.num_bytes:
            raise damaged(folder, f"{name} has {found.size:,} bytes instead of {facts.num_bytes:,}")
        if found.digest != facts.ends or (verify and sha256_of(path) != facts.sha256):
            raise damaged(folder, f"{name} has another checksum than when it was written")


def damaged(folder: Path, what: str) -> UserError:
    """Return the error for an index that cannot be read."""
    return UserError(
        f"task.index={folder}: the index is damaged: {what}. Fix: build it again, task=index "
        "(vectors that are in the store are not computed again), or restore the folder"
    )


def contract_digest(contract: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a contract, 64 hexadecimal digits."""
    text = json.dumps(contract, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def plain(contract: Any) -> Any:
    """Return a contract as it is read back from JSON."""
    return json.loads(json.dumps(contract))
