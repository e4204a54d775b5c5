"""Hand the result of a job to its sweep, in a file of its run directory."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from quarry.runtime.files import write_json

JOB_FILE = "job.json"


@dataclass(frozen=True, kw_only=True)
class JobResult:
    """Hold the result of a job.

    Attributes:
        objective: for the sweeper; None: nothing is optimized.
        line: the result line.
        metrics: all that the task returned.
    """

    objective: float | None = None
    line: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        metrics = {key: value for key, value in self.metrics.items() if math.isfinite(value)}
        content = {"objective": self.objective, "line": self.line, "metrics": metrics}
        write_json(folder / JOB_FILE, content)

    @classmethod
    def read(cls, folder: Path) -> JobResult | None:
        """Read the result in a run directory; None: the job did not complete."""
        path = folder / JOB_FILE
        return cls(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None
