"""Writes docs/reproducing.md: what each table of the study takes, from measured rates.

    make docs

Training is planned as `task=plan` does it; encoding is tokens over the measured rate. All of it is
arithmetic: nothing is loaded, downloaded or measured here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # shapes are those of published names

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from quarry.config.instantiate import build
from quarry.config.schema import register_schemas
from quarry.data.collation import CHARACTERS_PER_TOKEN
from quarry.data.prompts import Prompt
from quarry.evaluation.benchmarks.catalogue import PublicSet, pick
from quarry.evaluation.benchmarks.suite import PUBLIC_SETS
from quarry.runtime.devices import planned_for_gpu
from quarry.runtime.files import write_text
from quarry.tasks.plan import make_plan
from quarry.tasks.planning.machine import Machine
from quarry.tasks.planning.outcome import Plan
from quarry.tasks.planning.rate import MEASURED
from quarry.tasks.strategy import settle_dtype

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reproducing.md"
TEMPLATE = ROOT / "docs" / "reproducing_template.md"

GIB = 2**30
MODELS = 8
DEVICES = 8
MACHINE = Machine(name="NVIDIA H200", num_bytes=140 * GIB, is_gpu=True, disk_bytes=None)

TRAIN_QUERIES = 491_007
"""Of Tevatron/msmarco-passage-aug: 3,836 updates of 128 in the study's logs."""

OVERHEAD = {"promptreps": (48, 49), "repllama": (3, 4)}
"""Tokens around a query and a document, by Qwen2.5's tokenizer: template, prefix, end token."""

CHARACTERS = {
    "trec-covid": (69, 1118),
    "nfcorpus": (22, 1591),
    "nq": (48, 493),
    "hotpotqa": (92, 289),
    "fiqa": (63, 768),
    "arguana": (1193, 1030),
    "webis-touche2020": (43, 1720),
    "cqadupstack": (48, 926),
    "quora": (52, 63),
    "dbpedia-entity": (34, 310),
    "scidocs": (72, 1204),
    "fever": (50, 539),
    "climate-fever": (123, 539),
    "scifact": (90, 1499),
    "msmarco": (33, 337),
    "msmarco-dev": (33, 337),
    "trec-dl-2019": (33, 337),
    "trec-dl-2020": (33, 337),
    "apps": (1670, 573),
    "cosqa": (37, 276),
    "synthetic-text2sql": (83, 127),
    "codesearchnet": (663, 183),
    "codesearchnet-ccr": (388, 262),
    "codetrans-dl": (1868, 1479),
    "codetrans-contest": (1012, 1506),
    "stackoverflow-qa": (1303, 1202),
    "codefeedback-st": (724, 1521),
    "codefeedback-mt": (4426, 1468),
}
"""Set or group -> characters of a query and of a document with its title, on average: mteb's
descriptive statistics (of CQADupStack three forums: android, english, tex)."""

NEAREST = (
    "measured with gradient checkpointing, r 16 and no dropout. The recipe has r 32 and dropout "
    '0.1, which costs the fast path of LoRA: "≥".'
)
RECIPE_ITSELF = (
    "measured with `experiment=sft_msmarco` as configured ([performance.md](performance.md))."
)
"""Where the rate of training comes from."""

NEARLY_ONE_CORPUS = {"fever": "Wikipedia", "climate-fever": "Wikipedia"}
"""Sets whose texts are in the store when the other one is encoded."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """Texts to encode, each once, and their tokens."""

    num_texts: int
    num_tokens: float

    def __add__(self, other: Work) -> Work:
        return Work(
            num_texts=self.num_texts + other.num_texts,
            num_tokens=self.num_tokens + other.num_tokens,
        )


def encoding_work(sets: Sequence[PublicSet], prompt: Prompt, overhead: tuple[int, int]) -> Work:
    """Of all queries, and of each corpus once.

    A mean that is cut at the prompt's length is at least the mean of what is cut.
    """
    total = Work(num_texts=0, num_tokens=0.0)
    known: set[object] = set()
    for one in sets:
        query, document = CHARACTERS[one.group or one.name]
        lengths = (
            min(query / CHARACTERS_PER_TOKEN, prompt.max_query_length) + overhead[0],
            min(document / CHARACTERS_PER_TOKEN, prompt.max_document_length) + overhead[1],
        )
        corpus = NEARLY_ONE_CORPUS.get(one.name, one.tables.corpus)
        num_documents = 0 if corpus in known else one.num_documents
        known.add(corpus)
        total += Work(
            num_texts=one.num_queries + num_documents,
            num_tokens=one.num_queries * lengths[0] + num_documents * lengths[1],
        )
    return total


def encoding_rate(content: dict[str, Any]) -> float:
    """Real tokens a second of one H200 that encodes with a 7B in bfloat16."""
    return float(content["parts"]["encode_7b"]["ours"]["tokens_per_s"])


def composed(primary: str, *overrides: str) -> DictConfig:
    register_schemas()
    with initialize_config_dir(config_dir=str(ROOT / "conf"), version_base="1.3"):
        return compose(config_name=primary, overrides=["paths.run_dir=RUN_DIR", *overrides])


def recipe_row(content: dict[str, Any]) -> dict[str, Any] | None:
    """Return what was measured of `experiment=sft_msmarco` itself; None: it was not."""
    part: dict[str, Any] = content["parts"].get("study", {}).get("recipe", {"not_run": ""})
    return None if "not_run" in part else part


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
    query, document = CHARACTERS["msmarco-dev"]
    before, around = OVERHEAD["repllama"]
    num_passages = 1 + config.data.num_hard_negatives
    return (
        query / CHARACTERS_PER_TOKEN
        + before
        + num_passages * (document / CHARACTERS_PER_TOKEN + around)
    )


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A benchmark under one prompt."""

    name: str
    sets: tuple[PublicSet, ...]
    prompt: Prompt
    overhead: tuple[int, int]

    @classmethod
    def of(cls, primary: str, benchmark: str, prompt: str, *overrides: str) -> Suite:
        config = composed(primary, *overrides, f"benchmark={benchmark}")
        members = list(config.benchmark.members)
        return cls(
            name=benchmark,
            sets=tuple(pick(members, PUBLIC_SETS, key="benchmark.members")),
            prompt=build(config.prompt),
            overhead=OVERHEAD[prompt],
        )

    @property
    def work(self) -> Work:
        return encoding_work(self.sets, self.prompt, self.overhead)

    def rows(self) -> dict[str, Work]:
        """Set or group -> what it takes; a shared corpus counts for the first that needs it."""
        found: dict[str, Work] = {}
        for end in range(1, len(self.sets) + 1):
            name = self.sets[end - 1].group or self.sets[end - 1].name
            before = encoding_work(self.sets[: end - 1], self.prompt, self.overhead)
            upto = encoding_work(self.sets[:end], self.prompt, self.overhead)
            own = Work(
                num_texts=upto.num_texts - before.num_texts,
                num_tokens=upto.num_tokens - before.num_tokens,
            )
            found[name] = found[name] + own if name in found else own
        return found


def page() -> str:
    """The page as text: the template, and the numbers in it."""
    content = json.loads(MEASURED.read_text(encoding="utf-8"))
    rate = encoding_rate(content)
    zero_shot = ("experiment=zero_shot", "model=qwen-base")
    beir, coir = (Suite.of("eval", name, "promptreps", *zero_shot) for name in ("beir", "coir"))
    recipe = ("experiment=sft_msmarco", "model=qwen-base")
    marco = Suite.of("train", "msmarco_dl", "repllama", *recipe)
    measured = recipe_row(content)
    training_rate = None if measured is None else measured["tokens_per_s"]
    one = training_plan(1, tokens_per_s=training_rate)
    eight = training_plan(DEVICES, tokens_per_s=training_rate)
    assert one.rate is not None
    memory = one.memory.total / GIB
    if measured is not None:
        memory = measured.get("peak_gib", memory)
    dim = int(one.model.config.get_text_config().hidden_size)
    values = {
        "encoding_rate": f"{rate:,.0f}",
        "training_rate": f"{one.rate.tokens_per_s:,.0f}",
        "training_source": NEAREST if measured is None else RECIPE_ITSELF,
        "at_least": "≥ " if measured is None else "",
        "characters_per_token": str(CHARACTERS_PER_TOKEN),
        "tokens_per_query": f"{one.workload.tokens_per_query:.0f}",
        "training_tokens": f"{(one.workload.num_tokens or 0) / 1e6:,.0f} million",
        "train_1": _hours(one.hours),
        "train_8": _hours(eight.hours),
        "run_directory": f"{one.disk.run_directory / GIB:.1f}",
        "weights": f"{2 * one.model.num_parameters / GIB:.0f}",
        "memory": f"{memory:.0f}",
        "corpus_memory": f"{_gib(marco.sets[0].num_documents, dim, 4):.0f}",
        "dim": f"{dim:,}",
        "all_sft_1": _hours(MODELS * _sft(one, marco, rate, 1)),
        "all_sft_8": _hours(MODELS * _sft(eight, marco, rate, DEVICES)),
        "sft_1": _hours(_sft(one, marco, rate, 1)),
        "sft_8": _hours(_sft(eight, marco, rate, DEVICES)),
        "sets": "".join(
            _set_row(name, work, rate, dim) for s in (beir, coir) for name, work in s.rows().items()
        ),
    }
    for suite in (beir, coir, marco):
        hours = suite.work.num_tokens / rate / 3600
        values |= {
            f"{suite.name}_texts": f"{suite.work.num_texts / 1e6:,.1f} million",
            f"{suite.name}_tokens": f"{suite.work.num_tokens / 1e6:,.0f} million",
            f"{suite.name}_1": _hours(hours),
            f"{suite.name}_8": _hours(hours / DEVICES),
            f"all_{suite.name}_1": _hours(MODELS * hours),
            f"all_{suite.name}_8": _hours(MODELS * hours / DEVICES),
            f"{suite.name}_store": f"{_gib(suite.work.num_texts, dim, 4):,.0f}",
            f"{suite.name}_half_store": f"{_gib(suite.work.num_texts, dim, 2):,.0f}",
        }
    text = TEMPLATE.read_text(encoding="utf-8")
    for name, value in values.items():
        assert f"{{{{{name}}}}}" in text, f"{TEMPLATE} has no use for {name}"
        text = text.replace(f"{{{{{name}}}}}", value)
    assert "{{" not in text, f"{TEMPLATE} asks for a number that there is not"
    return text


def _sft(plan: Plan, marco: Suite, rate: float, num_devices: int) -> float:
    """Hours of training, and of the evaluations before and after it."""
    assert plan.hours is not None
    return plan.hours + 2 * marco.work.num_tokens / rate / 3600 / num_devices


def _gib(num_texts: int, dim: int, itemsize: int) -> float:
    return num_texts * dim * itemsize / GIB


def _hours(number: float | None) -> str:
    assert number is not None
    return f"{number:,.0f}" if number >= 10 else f"{number:.1f}" if number >= 0.1 else "< 0.1"


def _set_row(name: str, work: Work, rate: float, dim: int) -> str:
    cells = (
        f"`{name}`",
        f"{work.num_texts:,}",
        f"{work.num_tokens / 1e6:,.1f}",
        _hours(work.num_tokens / rate / 3600),
        f"{_gib(work.num_texts, dim, 4):,.1f}",
    )
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    write_text(PAGE, page())
