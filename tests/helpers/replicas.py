"""The replicas of conf/model without Hydra, with a tokenizer that is trained in milliseconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from quarry.stand_ins.replica import QwenReplica, QwenVLReplica
from quarry.stand_ins.replica_tokenizer import ChatML, DeepSeekR1, Dialect

MODELS = Path(__file__).resolve().parents[2] / "conf" / "model"
VARIANTS = (
    "qwen-base",
    "qwen-instruct",
    "qwen-coder",
    "qwen-coder-instruct",
    "qwen-math",
    "qwen-math-instruct",
    "qwen-r1",
    "qwen-vl",
)
TEXTS = (
    "Read a line of text from the file and return it as a string",
    "def read_line(self, file_name): return self.openFile(file_name).readLine()",
) * 3


def settings_of(name: str) -> dict[str, Any]:
    """What conf/model says of a replica, the family's part included."""
    family = yaml.safe_load((MODELS / "family" / "qwen.yaml").read_text(encoding="utf-8"))
    own = yaml.safe_load((MODELS / f"{name}.yaml").read_text(encoding="utf-8"))
    return dict(family["model"]["replica"] | own["model"]["replica"])


def dialect_of(name: str) -> Dialect:
    settings = dict(settings_of(name)["dialect"])
    target = settings.pop("_target_")
    return ChatML(**settings) if target.endswith(".ChatML") else DeepSeekR1(**settings)


def replica(name: str, cache_dir: Path, **more: Any) -> QwenReplica:
    settings = settings_of(name)
    target = settings.pop("_target_")
    made = QwenVLReplica if target.endswith(".QwenVLReplica") else QwenReplica
    fixed: dict[str, Any] = {
        "dialect": dialect_of(name),
        "tokenizer_path": None,
        "texts": lambda: TEXTS,
        "vocab_size": 400,
        "cache_dir": cache_dir,
    }
    return made(**(settings | fixed | more))
