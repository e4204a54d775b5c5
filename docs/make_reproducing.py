"""Writes docs/reproducing.md: what each table of the study takes, from measured rates.

    make docs

Training is planned as `task=plan` does it; encoding is tokens over the measured rate. All of it is
arithmetic: nothing is loaded, downloaded or measured here.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # shapes are those of published names

import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from quarry.assembly.strategy import settle_dtype
from quarry.config.instantiate import build
from quarry.config.schema import register_schemas
from quarry.data.collation import CHARACTERS_PER_TOKEN
from quarry.evaluation.benchmarks.mean_characters import MEAN_CHARACTERS
from quarry.planning import rate as planning_rate
from quarry.planning.encoding_rate import planned_encoding_rate
from quarry.planning.encoding_work import (
    EncodingWork,
    Frames,
    TextFrame,
    encoding_work,
    text_tokens,
)
from quarry.planning.machine import planned_machine
from quarry.planning.outcome import Plan
from quarry.planning.plan_task import make_plan
from quarry.runtime.devices import planned_for_gpu
from quarry.runtime.files import write_text
from quarry.types import ROLES

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reproducing.md"
TEMPLATE = ROOT / "docs" / "reproducing_template.md"

GIB = 2**30
MODELS = 8
DEVICES = 8
NUM_EVALUATIONS = 2
"""Before and after training."""

MACHINE = planned_machine(
    gpu_memory_gib=None,
    disk_gib=None,
    card="h200",
    accelerator="gpu",
    num_devices=1,
    folder=".",
)

TRAIN_QUERIES = 491_007
"""Of Tevatron/msmarco-passage-aug: 3,836 updates of 128 in the study's logs."""

FRAMES: dict[str, Frames] = {
    "promptreps": {"query": TextFrame(num_tokens=48), "document": TextFrame(num_tokens=49)},
    "repllama": {"query": TextFrame(num_tokens=3), "document": TextFrame(num_tokens=4)},
}
TEMPLATE_MODEL = "promptreps_base"
"""Whose shared prefix is counted, of those that bench/encode_prefix.py measures."""

NEAREST = (
    "measured with gradient checkpointing, r 16 and no dropout. The recipe has r 32 and\n"
    '  dropout: "≥", because it is slower.'
)
RECIPE_ITSELF = (
    "measured with `experiment=sft_msmarco` as configured ([performance.md](performance.md))."
)
"""Where the rate of training comes from."""


def encoding_rate(plan: Plan, *, linear_precision: str | None = None) -> float:
    """Return the tokens a second of one H200 that encodes with a 7B, in bfloat16 or fp8."""
    found = planned_encoding_rate(
        num_linear=plan.model.num_linear,
        dtype=torch.bfloat16,
        linear_precision=linear_precision,
        card=MACHINE.card,
    )
    assert found is not None
    return found.tokens_per_s


def composed(primary: str, *overrides: str) -> DictConfig:
    register_schemas()
    with initialize_config_dir(config_dir=str(ROOT / "conf"), version_base="1.3"):
        return compose(config_name=primary, overrides=["paths.run_dir=RUN_DIR", *overrides])


def recipe_row(content: dict[str, Any]) -> dict[str, Any] | None:
    """Return what was measured of `experiment=sft_msmarco` itself; None: it was not."""
    part: dict[str, Any] = content["parts"].get("study", {}).get("recipe", {"not_run": ""})
    return None if "not_run" in part else part


def shared_tokens(content: dict[str, Any]) -> int:
    """Return the tokens of PromptReps that go through the model once a pass; 0: not measured."""
    part: dict[str, Any] = content["parts"].get("study", {}).get("encoding", {})
    return int(part.get(TEMPLATE_MODEL, {}).get("num_shared_tokens", 0))


def training_plan(num_devices: int, *, tokens_per_s: float | None = None) -> Plan:
    """Plan the study's supervised recipe for one model, as `task=plan` does.

    Args:
        tokens_per_s: of one device; None: that of the nearest measurement.
    """
    several = ("strategy=ddp", f"trainer.devices={num_devices}") if num_devices > 1 else ()
    with planned_for_gpu():
        config = composed("train", "experiment=sft_msmarco", "model=qwen-base", *several)
        settle_dtype(config)
        return make_plan(
            config,
            MACHINE,
            num_examples=TRAIN_QUERIES,
            tokens_per_query=tokens_per_training_query(config),
            tokens_per_s=tokens_per_s,
        )


def tokens_per_training_query(config: DictConfig) -> float:
    """Of a query and its passages, as they are fed."""
    prompt, frames = build(config.prompt), FRAMES["repllama"]
    query, document = (
        text_tokens(characters, role, prompt=prompt, frame=frames[role])
        for role, characters in zip(ROLES, MEAN_CHARACTERS["msmarco-dev"], strict=True)
    )
    number = config.data.num_hard_negatives
    assert number is not None, "the recipe states it; null would have to be counted in its examples"
    return query + (1 + int(number)) * document


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A benchmark under one prompt."""

    name: str
    work: EncodingWork

    @classmethod
    def of(
        cls, primary: str, benchmark: str, prompt: str, *overrides: str, num_shared: int = 0
    ) -> Suite:
        """Count it; every text begins with `num_shared` tokens that are computed once a pass."""
        config = composed(primary, *overrides, f"benchmark={benchmark}")
        return cls(
            name=benchmark,
            work=encoding_work(
                build(config.benchmark).sets,
                prompt=build(config.prompt),
                frames=FRAMES[prompt],
                is_stored=True,
                prefix_tokens=dict.fromkeys(ROLES, num_shared),
            ),
        )

    def hours(
        self, rate: float, *, num_devices: int = 1, work: EncodingWork | None = None
    ) -> float:
        """Return the hours of all sets, or of `work`, on devices of that rate."""
        return (work or self.work).hours(tokens_per_s=rate, num_devices=num_devices)

    def rows(self) -> dict[str, EncodingWork]:
        """Set or group -> what it takes; a shared corpus counts for the first that needs it."""
        found: dict[str, EncodingWork] = {}
        for one in self.work.sets:
            name = one.group or one.name
            before = found[name].sets if name in found else ()
            found[name] = EncodingWork(sets=(*before, one))
        return found


def page() -> str:
    """Return the page as text: the template with its numbers filled in."""
    zero_shot = ("experiment=zero_shot", "model=qwen-base")
    content = json.loads(planning_rate.MEASURED.read_text(encoding="utf-8"))
    num_shared = shared_tokens(content)
    beir, coir = (
        Suite.of("eval", name, "promptreps", *zero_shot, num_shared=num_shared)
        for name in ("beir", "coir")
    )
    recipe = ("experiment=sft_msmarco", "model=qwen-base")
    marco = Suite.of("train", "msmarco_dl", "repllama", *recipe)
    measured = recipe_row(content)
    training_rate = None if measured is None else measured["tokens_per_s"]
    one = training_plan(1, tokens_per_s=training_rate)
    eight = training_plan(DEVICES, tokens_per_s=training_rate)
    assert one.rate is not None
    rate, fp8_rate = encoding_rate(one), encoding_rate(one, linear_precision="fp8")
    memory = one.memory.total / GIB
    if measured is not None:
        memory = measured.get("peak_gib", memory)
    dim = int(one.model.config.get_text_config().hidden_size)
    values = {
        "encoding_rate": f"{rate:,.0f}",
        "fp8_rate": f"{fp8_rate:,.0f}",
        "num_shared": str(num_shared),
        "training_rate": f"{one.rate.tokens_per_s:,.0f}",
        "training_source": NEAREST if measured is None else RECIPE_ITSELF,
        "at_least": "≥ " if measured is None else "",
        "characters_per_token": str(CHARACTERS_PER_TOKEN),
        "tokens_per_query": f"{one.workload.tokens_per_query:.0f}",
        "training_tokens": f"{(one.workload.num_tokens or 0) / 1e6:,.0f} million",
        "train_1": _hours(one.training_hours),
        "train_8": _hours(eight.training_hours),
        "run_directory": f"{one.disk.run_directory / GIB:.1f}",
        "weights": f"{2 * one.model.num_parameters / GIB:.0f}",
        "memory": f"{memory:.0f}",
        "corpus_memory": f"{(one.host.corpus + one.host.corpus_on_disk) / GIB:.0f}",
        "dim": f"{dim:,}",
        "all_sft_1": _hours(MODELS * _sft(one, marco, rate, 1)),
        "all_sft_8": _hours(MODELS * _sft(eight, marco, rate, DEVICES)),
        "sft_1": _hours(_sft(one, marco, rate, 1)),
        "sft_8": _hours(_sft(eight, marco, rate, DEVICES)),
        "sets": "".join(
            _set_row(name, work, s.hours(rate, work=work), dim)
            for s in (beir, coir)
            for name, work in s.rows().items()
        ),
    }
    for suite in (beir, coir, marco):
        hours = suite.hours(rate)
        values |= {
            f"{suite.name}_texts": f"{suite.work.num_texts / 1e6:,.1f} million",
            f"{suite.name}_tokens": f"{suite.work.num_tokens / 1e6:,.0f} million",
            f"{suite.name}_1": _hours(hours),
            f"{suite.name}_8": _hours(hours / DEVICES),
            f"all_{suite.name}_1": _hours(MODELS * hours),
            f"all_{suite.name}_8": _hours(MODELS * hours / DEVICES),
            f"{suite.name}_store": f"{_gib(suite.work, dim, 4):,.0f}",
            f"{suite.name}_half_store": f"{_gib(suite.work, dim, 2):,.0f}",
        }
    for suite in (beir, coir):
        values[f"{suite.name}_fp8"] = _hours(suite.hours(fp8_rate))
    text = TEMPLATE.read_text(encoding="utf-8")
    for name, value in values.items():
        assert f"{{{{{name}}}}}" in text, f"{TEMPLATE} has no use for {name}"
        text = text.replace(f"{{{{{name}}}}}", value)
    assert "{{" not in text, f"{TEMPLATE} asks for a number that there is not"
    return text


def _sft(plan: Plan, marco: Suite, rate: float, num_devices: int) -> float:
    """Hours of training, and of the evaluations before and after it."""
    assert plan.training_hours is not None
    evaluation = marco.hours(rate, num_devices=num_devices)
    return plan.training_hours + NUM_EVALUATIONS * evaluation


def _gib(work: EncodingWork, dim: int, itemsize: int) -> float:
    return work.embedding_bytes(dim=dim, itemsize=itemsize) / GIB


def _hours(number: float | None) -> str:
    assert number is not None
    return f"{number:,.0f}" if number >= 10 else f"{number:.1f}" if number >= 0.1 else "< 0.1"


def _set_row(name: str, work: EncodingWork, hours: float, dim: int) -> str:
    cells = (
        f"`{name}`",
        f"{work.num_texts:,}",
        f"{work.num_tokens / 1e6:,.1f}",
        _hours(hours),
        f"{_gib(work, dim, 4):,.1f}",
    )
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    write_text(PAGE, page())
