"""Tells one set of weights from another without reading all of it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import BinaryIO

from huggingface_hub import snapshot_download

NUM_BYTES_EACH = 4096
"""Read of each tensor; another checkpoint of the same architecture differs in every one."""


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


def _folder(source: str, revision: str | None) -> Path:
    if Path(source).is_dir():
        return Path(source)
    return Path(snapshot_download(source, revision=revision, local_files_only=True))


def _add_file(stream: BinaryIO, digest: hashlib.blake2b) -> None:
    header_size = int.from_bytes(stream.read(8), "little")
    header = json.loads(stream.read(header_size))
    header.pop("__metadata__", None)
    for name, entry in sorted(header.items()):
        begin, end = entry["data_offsets"]
        digest.update(f"{name} {entry['dtype']} {entry['shape']}".encode())
        stream.seek(8 + header_size + begin)
        digest.update(stream.read(min(end - begin, NUM_BYTES_EACH)))
