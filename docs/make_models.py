"""Writes docs/models.md: the models of conf/model, and which of their facts were checked.

    make docs
    python docs/make_models.py --published qwen-instruct=FOLDER --source "npm NAME VERSION"

Facts are checked against published files: of the folders named on the command line, and of the
hub's cache. What agreed is recorded in docs/models_checked.json, so the page is the same on every
machine; what does not agree is an error, and nothing is written.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

from huggingface_hub import try_to_load_from_cache
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from quarry.config.schema import register_schemas
from quarry.errors import UserError
from quarry.models.backbones.huggingface import load_tokenizer
from quarry.runtime.files import write_json, write_text

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "models.md"
CHECKED = ROOT / "docs" / "models_checked.json"
FAMILY = "family/qwen@_global_"
PUBLISHED = "family/published@_global_"
SIZE = "7B"

HEAD = """# The models of the study

Made by `make docs` from `conf/model`: do not edit. Every model is `model=NAME`, with
`model.size=SIZE` (7B by default) or `model.size=tiny`, a small seeded replica with these quirks.

End token, system line, rope theta and context are those of the 7B. Other sizes may differ: a run
always reads them from the files that it loads.

| model | hub ids | end token | default system line | rope theta | context |
|---|---|---|---|---|---|
"""

CONTRACT = """
What the contract of a trained model stores, unless the command line says otherwise:

| model | prompt | query, document | tokens | end | pooling | attention | length 1 | temperature |
|---|---|---|---|---|---|---|---|---|
"""

RETRIEVERS = """
## Published retrievers

Reference rows by name: `python eval.py model=bge model.size=base benchmark=beir`. Texts are fed as
the model's own files say; the card below fills what they leave open. None of these files was at
hand: facts without a † were seen in the sources at the end of this page.

Published numbers are in `src/quarry/study_report/published/retrievers*.yaml`; reports show them
with a dagger.

| model | sizes | query | document | pooling | tokens | end | attention | card |
|---|---|---|---|---|---|---|---|---|
"""

FOOT = "\n† Not checked against a published file.\n"

CARD_FACTS = ("query", "document", "pooling", "tokens", "end token", "attention")

Facts = dict[str, Any]
Checks = dict[str, dict[str, Facts]]


@dataclass(frozen=True, kw_only=True)
class Model:
    """One file of conf/model, composed."""

    name: str
    config: DictConfig
    prompt: str

    @property
    def hub_ids(self) -> dict[str, str]:
        return dict(self.config.model.hub_ids)

    @property
    def facts(self) -> Facts:
        """What published files can confirm."""
        replica = self.config.model.replica
        return {
            "end token": replica.dialect.end_token,
            "system line": replica.dialect.get("system_line"),
            "rope theta": float(replica.rope_theta),
            "context": int(replica.max_position_embeddings),
        }


@dataclass(frozen=True, kw_only=True)
class Retriever:
    """One published retriever: its file of conf/model, composed."""

    name: str
    hub_ids: dict[str, str]
    card: dict[str, Any]
    is_causal: bool | None

    @property
    def facts(self) -> Facts:
        """What its card says, as words; "not stated" where it says nothing."""
        attention = {None: "as config.json says", True: "causal", False: "bidirectional"}
        lengths = [self.card.get(f"max_{role}_length") for role in ("query", "document")]
        return {
            "query": self.card["query"],
            "document": self.card["document"],
            "pooling": self.card["pooling"],
            "tokens": "not stated" if None in lengths else f"{lengths[0]}, {lengths[1]}",
            "end token": self.card.get("end_token", "not stated"),
            "attention": attention[self.is_causal],
        }


def retrievers(conf: Path = ROOT / "conf") -> list[Retriever]:
    """Return every model that is made from the file of published retrievers."""
    register_schemas()
    found = []
    with initialize_config_dir(config_dir=str(conf), version_base="1.3"):
        for file in sorted((conf / "model").glob("*.yaml"), key=lambda file: file.stem):
            if f"- {PUBLISHED}" not in file.read_text(encoding="utf-8"):
                continue
            overrides = [f"model={file.stem}", "paths.run_dir=RUN_DIR"]
            model = compose(config_name="eval", overrides=overrides).model
            found.append(
                Retriever(
                    name=file.stem,
                    hub_ids=dict(model.hub_ids),
                    card=dict(model.card),
                    is_causal=model.is_causal,
                )
            )
    return found


def models(conf: Path = ROOT / "conf") -> list[Model]:
    """Every model that is made from the family's file."""
    register_schemas()
    found = []
    with initialize_config_dir(config_dir=str(conf), version_base="1.3"):
        for file in sorted((conf / "model").glob("*.yaml"), key=lambda file: file.stem):
            if f"- {FAMILY}" not in file.read_text(encoding="utf-8"):
                continue
            overrides = [f"model={file.stem}", "paths.run_dir=RUN_DIR"]
            config = compose(config_name="train", overrides=overrides, return_hydra_config=True)
            prompt = str(config.hydra.runtime.choices.prompt)
            found.append(Model(name=file.stem, config=config, prompt=prompt))
    return found


def published_facts(folder: Path) -> Facts:
    """Return the facts of the published files in a folder; missing files are skipped."""
    facts: Facts = {}
    if (folder / "tokenizer.json").exists():
        tokenizer = load_tokenizer(str(folder))
        facts["end token"] = tokenizer.eos_token
        if tokenizer.chat_template is not None:
            messages = [{"role": "user", "content": "a"}]
            rendered = str(tokenizer.apply_chat_template(messages, tokenize=False))
            line = re.search(r"system\n(.*?)<\|im_end\|>", rendered, re.DOTALL)
            facts["system line"] = line[1] if line else None
    if (folder / "config.json").exists():
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        theta = config.get("rope_theta") or config["rope_parameters"]["rope_theta"]
        facts["rope theta"] = float(theta)
        facts["context"] = int(config["max_position_embeddings"])
    return facts


def check(model: Model, folder: Path, *, source: str) -> dict[str, Facts]:
    """Return the facts that agree with the files in `folder`, with source and date.

    Raises:
        UserError: a fact differs, or there is nothing to compare.
    """
    published = published_facts(folder)
    if not published:
        raise UserError(f"{model.name}: {folder} has neither tokenizer.json nor config.json.")
    wrong = {fact: value for fact, value in published.items() if value != model.facts[fact]}
    if wrong:
        raise UserError(
            f"conf/model/{model.name}.yaml says { ({fact: model.facts[fact] for fact in wrong}) }, "
            f"the files of {source} say {wrong}: correct it."
        )
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    return {
        fact: {"value": value, "source": source, "date": today} for fact, value in published.items()
    }


def page(found: list[Model], published: list[Retriever], checked: Checks) -> str:
    """Return the page as text, from conf/ and the checked facts alone."""
    rows = [_facts_row(model, checked.get(model.name, {})) for model in found]
    contracts = [_contract_row(model) for model in found]
    cards = [_card_row(retriever, checked.get(retriever.name, {})) for retriever in published]
    tables = [HEAD, *rows, CONTRACT, *contracts, RETRIEVERS, *cards]
    return "".join(tables) + FOOT + _sources(checked)


def _card_row(retriever: Retriever, checked: dict[str, Facts]) -> str:
    sizes = [f"{size}: `{hub_id}`" for size, hub_id in retriever.hub_ids.items()]
    cells = []
    for fact in CARD_FACTS:
        value = str(retriever.facts[fact])
        text = _code(value.replace("\n", "\\n")) if fact in ("query", "document") else value
        is_checked = fact in checked and checked[fact]["value"] == value
        cells.append(text if is_checked else f"{text} †")
    link = f"[card]({retriever.card['source']})"
    return _row(f"`{retriever.name}`", "<br>".join(sizes), *cells, link)


def _facts_row(model: Model, checked: dict[str, Facts]) -> str:
    shown = {
        "hub ids": "<br>".join(f"`{hub_id}`" for hub_id in model.hub_ids.values()),
        "end token": f"`{model.facts['end token']}`",
        "system line": _code(model.facts["system line"]),
        "rope theta": f"{model.facts['rope theta']:,.0f}",
        "context": f"{model.facts['context']:,}",
    }
    cells = [
        text if fact in checked and checked[fact]["value"] == model.facts[fact] else f"{text} †"
        for fact, text in shown.items()
    ]
    return _row(f"`{model.name}`", *cells)


def _contract_row(model: Model) -> str:
    prompt, config = model.config.prompt, model.config
    end = model.facts["end token"] if prompt.end_token in ("auto", "eos") else prompt.end_token
    counted = {"all": "in all", "text": "of text", "turn": "of the turn"}[prompt.length_counts]
    cells = [
        f"`{model.name}`",
        f"`{model.prompt}`" + (" in the chat template" if prompt.is_chat else ""),
        f"`{prompt.query}`, `{prompt.document}`",
        f"{prompt.max_query_length}, {prompt.max_document_length} {counted}",
        f"`{end}`",
        f"`{config.model.pooling._target_.rsplit('.', 1)[1]}`",
        "causal" if config.model.is_causal else "bidirectional",
        "yes" if config.model.normalize else "no",
        str(config.loss.temperature),
    ]
    return _row(*cells)


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _code(text: str | None) -> str:
    return "none" if text is None else f"`{text}`"


def _sources(checked: Checks) -> str:
    lines = sorted(
        fill(
            f"- `{name}`, {fact}: {entry['source']}, {entry['date']}",
            width=100,
            subsequent_indent="  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        + "\n"
        for name, facts in checked.items()
        for fact, entry in facts.items()
    )
    return "\nChecked against:\n\n" + "".join(lines) if lines else ""


def _cached(hub_id: str) -> Path | None:
    """Return the folder of a model in the hub's cache."""
    for name in ("config.json", "tokenizer.json"):
        file = try_to_load_from_cache(hub_id, name)
        if isinstance(file, str):
            return Path(file).parent
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes docs/models.md.")
    parser.add_argument("--published", metavar="NAME=FOLDER", action="append", default=[])
    parser.add_argument("--source", help="where those folders come from, for the record")
    arguments = parser.parse_args()
    folders = dict(entry.split("=", 1) for entry in arguments.published)
    if folders and not arguments.source:
        parser.error("--published needs --source")
    found = models()
    unknown = set(folders) - {model.name for model in found}
    if unknown:
        parser.error(f"--published names no model of the family: {', '.join(sorted(unknown))}")
    checked: Checks = json.loads(CHECKED.read_text(encoding="utf-8"))
    for model in found:
        new: dict[str, Facts] = {}
        cached = _cached(model.hub_ids[SIZE])
        if cached is not None:
            new |= check(model, cached, source=f"{model.hub_ids[SIZE]} {cached.name}")
        if model.name in folders:
            new |= check(model, Path(folders[model.name]), source=arguments.source)
        if new:
            checked[model.name] = checked.get(model.name, {}) | new
    write_json(CHECKED, checked)
    write_text(PAGE, page(found, retrievers(), checked))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"Error: {error}")
