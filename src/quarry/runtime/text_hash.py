"""Hash texts, so that equal ones are known by a number."""

from __future__ import annotations

import hashlib


def text_hash(text: str) -> int:
    """Return 64 bits of a text as it is encoded (`Frame.text_of`), the same in every process."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
