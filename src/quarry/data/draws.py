"""Draw random numbers that depend on a key alone, not on order, worker or number of ranks."""

from __future__ import annotations

import hashlib
import random


class Draws:
    """Random numbers that depend on their key alone.

    The parts of the key are hashed as a tuple: their sums or products would collide, and give
    example i in epoch e the choices of example i+1 in epoch e-1. `Random.random` is the only method
    whose sequence Python promises to keep across versions.
    """

    def __init__(self, *key: int | str) -> None:
        digest = hashlib.blake2b(repr(key).encode(), digest_size=16).digest()
        self._random = random.Random(int.from_bytes(digest, "big")).random

    def below(self, bound: int) -> int:
        return int(self._random() * bound)

    def permutation(self, length: int) -> list[int]:
        keys = [self._random() for _ in range(length)]
        return sorted(range(length), key=keys.__getitem__)
