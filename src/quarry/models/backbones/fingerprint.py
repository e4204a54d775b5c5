"""Tells one set of weights from another: quickly, or by every byte."""

from __future__ import annotations

import contextlib
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import BinaryIO

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import LocalEntryNotFoundError

from quarry.runtime.files import write_text

NUM_BYTES_EACH = 4096
"""Read of each tensor; another checkpoint of the same architecture differs in every one."""

PATTERNS = ("*.safetensors", "config.json", "adapter_config.json", "adapter_model.bin", "*.py")
"""Files of a model folder that decide which embeddings it gives, the tokenizer aside."""

CONFIG_FILES = ("config.json", "adapter_config.json")
"""One of them is in every model folder."""

NUM_FILES_AT_A_TIME = 4
"""Read in threads of their own: one hashes 2 GB/s, and a disk gives more."""


def weights_fingerprint(source: str, *, revision: str | None = None) -> str:
    """Names, types, shapes and the first bytes of every tensor of a folder or a cached hub id.

    Returns:
        32 hexadecimal digits.
    """
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(_folder(source, revision).glob("*.safetensors")):
        with path.open("rb") as stream:
            _add_file(stream, digest)
    return digest.hexdigest()


def weights_digest(source: str, *, revision: str | None = None, memo: Path) -> str:
    """Every byte of the weights, configuration and own code of a folder or a cached hub id.

    Reads everything once (15 GB of a 7B model: some seconds): what a file has come to is noted in
    `memo` and taken from there for as long as its size, inode and times stay the same.

    Args:
        memo: a folder; one that cannot be written to is read all the same.

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


def file_digest(file: Path, *, memo: Path) -> str:
    """Return the SHA-256 of a file, 64 hexadecimal digits; see `weights_digest` for `memo`."""
    file = file.resolve()  # in the hub's cache a file is a link
    stat = file.stat()
    facts = (str(file), stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns)
    note = memo / hashlib.sha256(repr(facts).encode()).hexdigest()
    with contextlib.suppress(OSError):
        return note.read_text(encoding="ascii")
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    with contextlib.suppress(OSError):
        write_text(note, digest)
    return digest


def _folder(source: str, revision: str | None) -> Path:
    if Path(source).is_dir():
        return Path(source)
    # not the snapshot: the hub's library refuses one that lacks any file, such as a pickled copy
    for name in CONFIG_FILES[:-1]:
        with contextlib.suppress(LocalEntryNotFoundError):
            return _cached_file(source, name, revision).parent
    return _cached_file(source, CONFIG_FILES[-1], revision).parent


def _cached_file(source: str, name: str, revision: str | None) -> Path:
    return Path(hf_hub_download(source, name, revision=revision, local_files_only=True))


def _add_file(stream: BinaryIO, digest: hashlib.blake2b) -> None:
    header_size = int.from_bytes(stream.read(8), "little")
    header = json.loads(stream.read(header_size))
    header.pop("__metadata__", None)
    for name, entry in sorted(header.items()):
        begin, end = entry["data_offsets"]
        digest.update(f"{name} {entry['dtype']} {entry['shape']}".encode())
        stream.seek(8 + header_size + begin)
        digest.update(stream.read(min(end - begin, NUM_BYTES_EACH)))
