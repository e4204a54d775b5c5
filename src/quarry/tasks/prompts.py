"""Print the rendered prompt of each role, token by token."""

from __future__ import annotations

import json
import sys

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from rich.text import Text

from quarry.assembly.model_parts import build_model_parts, settle_contract
from quarry.config.overrides import warn_of_run_directory
from quarry.config.settled_contract import SettledContract
from quarry.config.validation import validate
from quarry.data.tokenization import TextTokenizer
from quarry.runtime.logging import quiet_libraries
from quarry.types import Document, Query, Role

ELLIPSIS = "\n...\n"


def show_prompts(config: DictConfig, *, query: str, title: str, text: str) -> None:
    """Show a query, a passage with a title, one without, and one that is truncated.

    Args:
        query, title, text: the texts; the last passage repeats `text` until it is too long.
    """
    quiet_libraries()
    warn_of_run_directory(config, task="prompts")
    validate(config, primary="eval")
    settled = settle_contract(config)
    tokenizer = build_model_parts(config).tokenizer
    too_long = " ".join([text] * tokenizer.prompt.max_document_length)
    examples: tuple[tuple[str, Query | Document, Role], ...] = (
        ("query", Query(query_id="q", text=query), "query"),
        ("passage with a title", Document(document_id="a", title=title, text=text), "document"),
        ("passage without a title", Document(document_id="b", text=text), "document"),
        ("passage that is cut", Document(document_id="c", title=title, text=too_long), "document"),
    )
    console = Console(file=sys.stdout, highlight=False)
    console.print(_rules(tokenizer))
    console.print(_sources(settled))
    for name, item, role in examples:
        console.print(_table(name, item, role, tokenizer))


def _sources(settled: SettledContract) -> Table:
    """Return a table of each part of how texts are fed, with its source, and of the notes."""
    table = Table(title="how texts are fed", title_justify="left")
    for name in ("part", "value", "where it stands"):
        table.add_column(name, overflow="fold")
    for part, fact in settled.facts.items():
        table.add_row(part, Text(json.dumps(fact.value, ensure_ascii=False)), Text(fact.source))
    for note in settled.notes:
        table.add_row("note", Text(note))
    return table


def _rules(tokenizer: TextTokenizer) -> Text:
    prompt, frame = tokenizer.prompt, tokenizer.frames["query"]
    ends = [tokenizer.tokenizer.convert_ids_to_tokens(i) for i in frame.end_ids]
    what = {
        "all": "template and text",
        "text": "text, template on top",
        "turn": "the user's turn, chat template on top",
    }[prompt.length_counts]
    return Text(
        f"tokenizer: {tokenizer.tokenizer.name_or_path}\n"
        f"end token: {' '.join(ends) or 'none'}\n"
        f"lengths: query {prompt.max_query_length}, document {prompt.max_document_length} tokens "
        f"of {what}"
    )


def _table(name: str, item: Query | Document, role: Role, tokenizer: TextTokenizer) -> Table:
    """Return a table of token ids and their text, without the middle of a long text."""
    row = tokenizer([item], role)[0]
    ids = row.ids.tolist()
    decode = tokenizer.tokenizer.decode
    table = Table(title=f"{name}: {len(ids)} tokens", title_justify="left", show_header=False)
    pieces = [repr(decode(part)) for part in _ends(ids)]
    table.add_row("text", Text(ELLIPSIS.join(pieces)))
    table.add_row("ids", Text(ELLIPSIS.join(" ".join(map(str, part)) for part in _ends(ids))))
    tokens = [" | ".join(repr(decode([i])) for i in part) for part in _ends(ids)]
    table.add_row("tokens", Text(ELLIPSIS.join(tokens)))
    if tokenizer.frames[role].num_copies > 1:
        table.add_row("second copy", Text(f"from token {row.pool_start}"))
    return table


def _ends(ids: list[int], *, num_shown: int = 160) -> list[list[int]]:
    """Return all ids in one list, or the first and the last ids of many."""
    if len(ids) <= num_shown:
        return [ids]
    return [ids[: num_shown // 2], ids[-num_shown // 2 :]]
