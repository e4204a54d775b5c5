"""Describe a folder of vectors: what its texts were, how they were encoded, and its files."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from quarry.data.source_part import SourcePart
from quarry.errors import MissingPathError, UserError
from quarry.types import ROLES, Role

MANIFEST = "manifest.json"
KIND = "quarry-vectors"
FORMAT = 1
"""Version of the folder's layout; another one is refused."""

FileFormat = Literal["parquet", "npy"]
VectorDtype = Literal["float32", "float16"]

MAX_MANIFEST_BYTES = 2**28
"""Files are listed in it: a thousand million texts have 15,000 of them, 200 bytes each."""

_NAME = re.compile(r"[a-z0-9][a-z0-9-]*\.(parquet|npy|arrow)")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredFile:
    """A file of the folder, with its size in bytes and its SHA-256 in hexadecimal digits."""

    name: str
    num_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredBlock:
    """Consecutive texts: one Parquet file, or an .npy file with its ids beside it."""

    num_texts: int
    files: tuple[StoredFile, ...]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The contents of manifest.json.

    Attributes:
        role: as which the texts were encoded.
        dim, dtype: of each vector.
        file_format: parquet or npy.
        blocks: in the order of the texts.
        contract: role -> all that an embedding depends on (`embedding_contract`), for both roles:
            an index of documents needs queries by the same model.
        model: folder or hub id, for people.
        source: where the texts are from, with the digest of that, the rules by which they were
            read, and counts.
        caveats: sentences on what was left out or is unusual, with counts.
        plan: numbers on which batches depend.
        part: the shard; None: all of the source.
        versions: of the software, for people.
    """

    role: Role
    dim: int
    dtype: VectorDtype
    file_format: FileFormat
    blocks: tuple[StoredBlock, ...]
    contract: Mapping[str, Any]
    model: str
    source: Mapping[str, Any]
    caveats: tuple[str, ...] = ()
    plan: Mapping[str, int] = field(default_factory=dict)
    part: SourcePart | None = None
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def num_texts(self) -> int:
        return sum(block.num_texts for block in self.blocks)

    @property
    def contract_digest(self) -> str:
        """Digest of the contract of this role."""
        return digest_of(self.contract[self.role])

    def as_document(self) -> dict[str, Any]:
        """Return the manifest as JSON has it."""
        content = asdict(self)
        part = content.pop("part")
        return content | {
            "kind": KIND,
            "format": FORMAT,
            "num_texts": self.num_texts,
            "shard": part,
            "contract_digests": {role: digest_of(each) for role, each in self.contract.items()},
        }


def digest_of(content: Any) -> str:
    """Return the SHA-256 of plain data: 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a folder.

    Raises:
        MissingPathError: there is none.
        UserError: it is damaged, of another program, or of another version.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise MissingPathError(
            f"{folder}: no folder of vectors (it has no {MANIFEST}). Fix: name the task.output of "
            "task=encode, or encode the corpus"
        )
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise ValueError(f"has more than {MAX_MANIFEST_BYTES >> 20} MiB")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(path, error) from error
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise UserError(
            f"{path}: is of another program (kind is not {KIND}). Fix: name a folder that "
            "task=encode has written"
        )
    if content.get("format") != FORMAT:
        raise UserError(
            f"{path}: has format {content.get('format')!r}, and this version reads {FORMAT}. Fix: "
            "encode the corpus again, or use the version that wrote it"
        )
    try:
        return _parsed(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(path, error) from error


def _parsed(content: Mapping[str, Any]) -> Manifest:
    shard = content["shard"]
    manifest = Manifest(
        role=_one_of(content["role"], ROLES),
        dim=_count(content["dim"]),
        dtype=_one_of(content["dtype"], get_args(VectorDtype)),
        file_format=_one_of(content["file_format"], get_args(FileFormat)),
        blocks=tuple(_block(each) for each in content["blocks"]),
        contract={role: dict(content["contract"][role]) for role in ROLES},
        model=str(content["model"]),
        source=dict(content["source"]),
        caveats=tuple(map(str, content["caveats"])),
        plan={key: _count(value) for key, value in content["plan"].items()},
        part=None if shard is None else SourcePart.parsed(f"{shard['number']}/{shard['count']}"),
        versions={key: str(value) for key, value in content["versions"].items()},
    )
    digests = {role: digest_of(manifest.contract[role]) for role in ROLES}
    if manifest.num_texts != content["num_texts"] or digests != content["contract_digests"]:
        raise ValueError("numbers or digests in it contradict each other")
    return manifest


def _block(content: Mapping[str, Any]) -> StoredBlock:
    files = tuple(
        StoredFile(
            name=_matching(each["name"], _NAME),
            num_bytes=_count(each["num_bytes"]),
            sha256=_matching(each["sha256"], _SHA256),
        )
        for each in content["files"]
    )
    return StoredBlock(num_texts=_count(content["num_texts"]), files=files)


def block_from(content: Mapping[str, Any]) -> StoredBlock:
    """Return a block from plain data.

    Raises:
        ValueError, KeyError, TypeError: it is none.
    """
    return _block(content)


def _one_of(value: Any, known: tuple[Any, ...]) -> Any:
    if value not in known:
        raise ValueError(f"{value!r} is none of {', '.join(known)}")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no number of things")
    return value


def _matching(value: Any, pattern: re.Pattern[str]) -> str:
    if not isinstance(value, str) or pattern.fullmatch(value) is None:
        raise ValueError(f"{value!r} cannot be the name or digest of a file")
    return value


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: is damaged ({error}). Fix: restore it, or encode the corpus again")


def as_plain(block: StoredBlock) -> dict[str, Any]:
    """Return a block as JSON has it."""
    return asdict(block)
