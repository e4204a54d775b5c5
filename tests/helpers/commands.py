"""What the smoke tests type."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

SMALL = (
    "model.replica.hidden_size=32",
    "model.replica.intermediate_size=64",
    "model.replica.num_heads=2",
    "model.replica.vocab_size=1024",
    "data.num_queries_per_update=16",
    "benchmark.split=dev",
    "trainer.log_every_n_steps=1",
)
"""A model and updates so small that a run takes a second or two beside the imports."""


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def last_line(self) -> str:
        return self.out.rstrip().rsplit("\n", 1)[-1]
