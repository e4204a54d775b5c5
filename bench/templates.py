"""Define the prompts of encoding measurements, and build the tokenizer of each."""

from __future__ import annotations

from pathlib import Path

from composed import composed_config
from quarry.assembly.model_parts import ModelParts
from quarry.config.instantiate import build
from quarry.data.tokenization import TextTokenizer
from quarry.models.model_spec import ModelSpec
from quarry.stand_ins.replica import QwenReplica

TEMPLATES = {
    "promptreps_base": ("model=qwen-base", "prompt=promptreps"),
    "promptreps_instruct": ("model=qwen-instruct", "prompt=promptreps"),
    "last_token": ("model=qwen-instruct", "prompt=none"),
}
"""Name -> overrides; the models differ in the system line of their chat templates."""


def template_parts(name: str, folder: Path, *overrides: str) -> tuple[ModelParts, int]:
    """Return model parts for one of `TEMPLATES`, and `evaluation.max_tokens_per_batch`.

    Args:
        folder: of the model; its tokenizer gets the named model's chat template.
    """
    config = composed_config([*TEMPLATES[name], f"model.path={folder}", *overrides])
    spec: ModelSpec = build(config.model)
    tokenizer = spec.source.load_tokenizer()
    replica = spec.source.replica
    assert isinstance(replica, QwenReplica)
    settings = replica.dialect.settings(tokenizer.chat_template)
    tokenizer.chat_template = settings["chat_template"]
    parts = ModelParts(
        spec=spec,
        tokenizer=TextTokenizer(tokenizer=tokenizer, prompt=build(config.prompt)),
    )
    return parts, int(config.evaluation.max_tokens_per_batch)
