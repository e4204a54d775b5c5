"""Identify a model's weights by a hash: of samples of each tensor, or of every byte."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import BinaryIO

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import LocalEntryNotFoundError

from quarry.errors import UserError
from quarry.runtime.cache_use import CacheUse
from quarry.runtime.files import write_text
from quarry.runtime.leftovers import remove_unfinished

NUM_BYTES_EACH = 4096
"""Bytes read of each tensor; other checkpoints of the architecture differ in every tensor."""

MAX_HEADER_BYTES = 100_000_000
"""Size of a header that the safetensors library reads, too."""

PATTERNS = ("*.safetensors", "config.json", "adapter_config.json", "adapter_model.bin", "*.py")
"""Files of a model folder on which its embeddings depend, the tokenizer aside."""

CONFIG_FILES = ("config.json", "adapter_config.json")
"""Configuration files, one of which is in every model folder."""

AFFORDABLE_BYTES = 2**30
"""Weights that are hashed completely before a run; more take a disk seconds to read."""

NUM_FILES_AT_A_TIME = 4
"""Files hashed in parallel: one thread hashes 2 GB/s, and a disk reads faster."""


def weights_fingerprint(source: str, *, revision: str | None = None) -> str:
    """Hash names, dtypes, shapes and the first bytes of every tensor of a folder or cached hub id.

    Returns:
        32 hexadecimal digits.
    """
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(_folder(source, revision).glob("*.safetensors")):
        with path.open("rb") as stream:
            _add_file(stream, digest, path)
    return digest.hexdigest()


def weights_digest(source: str, *, revision: str | None = None, memo: Path) -> str:
    """Hash every byte of the weights, configuration and code of a folder or a cached hub id.

    Everything is read once (15 GB of a 7B model: some seconds). A file's hash is cached in `memo`
    and used as long as the file's size, inode and times stay the same.

    Args:
        memo: folder of the cached hashes; need not be writable.

    Returns:
        64 hexadecimal digits.
    """
    folder = _folder(source, revision)
    files = sorted(file for pattern in PATTERNS for file in folder.glob(pattern))
    digest = hashlib.sha256()
    with ThreadPoolExecutor(NUM_FILES_AT_A_TIME) as pool:
        for file, content in zip(
            files, pool.map(partial(file_digest, memo=memo), files), strict=True
        ):
            digest.update(f"{file.name} {content}\n".encode())
    return digest.hexdigest()


def affordable_digest(source: str, *, revision: str | None = None, memo: Path) -> str:
    """Hash weights completely up to `AFFORDABLE_BYTES`, and samples of each tensor beyond.

    Args:
        memo: see `weights_digest`.

    Returns:
        the kind of the hash, and its hexadecimal digits.
    """
    files = _folder(source, revision).glob("*.safetensors")
    if sum(file.stat().st_size for file in files) <= AFFORDABLE_BYTES:
        return f"full:{weights_digest(source, revision=revision, memo=memo)}"
    return f"sampled:{weights_fingerprint(source, revision=revision)}"


def is_known_as(folder: Path, digests: Sequence[str], *, memo: Path) -> bool:
    """Return whether the weights of a folder still have one of these digests; reads no weights.

    A file that changed since its hash was cached in `memo` has none there.
    """
    files = sorted(file for pattern in PATTERNS for file in folder.glob(pattern))
    if not files or not all(_note(file, memo).is_file() for file in files):
        return False
    return weights_digest(str(folder), memo=memo) in digests


def notes_of(folder: Path, *, memo: Path) -> set[Path]:
    """Return the files in which `memo` caches the hashes of a model folder's files as they are."""
    files = (file for pattern in PATTERNS for file in folder.glob(pattern))
    return {_note(file, memo) for file in files if file.is_file()}


def file_digest(file: Path, *, memo: Path) -> str:
    """Return the SHA-256 of a file, 64 hexadecimal digits; see `weights_digest` for `memo`."""
    note = _note(file, memo)
    with contextlib.suppress(OSError):
        digest = note.read_text(encoding="ascii")
        CacheUse(note)
        return digest
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    with contextlib.suppress(OSError):
        remove_unfinished(memo)
        write_text(note, digest)
    return digest


def _note(file: Path, memo: Path) -> Path:
    """Return the file that caches the hash of a file as it is."""
    file = file.resolve()  # files of the hub's cache are symbolic links
    stat = file.stat()
    facts = (str(file), stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns)
    return memo / hashlib.sha256(repr(facts).encode()).hexdigest()


def _folder(source: str, revision: str | None) -> Path:
    if Path(source).is_dir():
        return Path(source)
    # not snapshot_download: it refuses a snapshot that lacks any file, such as a pickled copy
    for name in CONFIG_FILES[:-1]:
        with contextlib.suppress(LocalEntryNotFoundError):
            return _cached_file(source, name, revision).parent
    return _cached_file(source, CONFIG_FILES[-1], revision).parent


def _cached_file(source: str, name: str, revision: str | None) -> Path:
    return Path(hf_hub_download(source, name, revision=revision, local_files_only=True))


def _add_file(stream: BinaryIO, digest: hashlib.blake2b, path: Path) -> None:
    header_size = int.from_bytes(stream.read(8), "little")
    if header_size > min(MAX_HEADER_BYTES, path.stat().st_size - 8):
        raise UserError(
            f"{path}: its header claims {header_size:,} bytes, which is more than it has or may "
            f"have ({MAX_HEADER_BYTES:,}). Restore the file."
        )
    header = json.loads(stream.read(header_size))
    header.pop("__metadata__", None)
    for name, entry in sorted(header.items()):
        begin, end = entry["data_offsets"]
        digest.update(f"{name} {entry['dtype']} {entry['shape']}".encode())
        stream.seek(8 + header_size + begin)
        digest.update(stream.read(min(end - begin, NUM_BYTES_EACH)))
