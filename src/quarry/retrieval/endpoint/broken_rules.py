"""List the ways in which a server may break a model's contract, each as a change of its input.

A `Rule` changes one step of the way from a text to its embedding. Several rules of different steps
may be broken at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from quarry.data.rendering import Frame
from quarry.data.tokenization import TextTokenizer
from quarry.models.pooling.base import Pooling
from quarry.models.pooling.cls import Cls
from quarry.models.pooling.last_token import LastToken
from quarry.models.pooling.max import Max
from quarry.models.pooling.mean import Mean
from quarry.models.pooling.weighted_mean import WeightedMean
from quarry.types import Document, Query, Role

Sends = Literal["rendered", "text"]
Step = Literal["weights", "text", "prompt", "special tokens", "attention", "pooling"]
STEPS: tuple[Step, ...] = ("weights", "text", "prompt", "special tokens", "attention", "pooling")

Item = Query | Document
Ids = tuple[int, ...]

SERVE_THE_EXPORT = (
    "serve the folder that task=export writes: its tokenizer adds the right tokens, and its "
    "modules.json has the pooling"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """One broken rule.

    Attributes:
        step: at most one rule of a step is broken.
        finding: what the server does, as the end of a sentence ("no prompt is applied").
        remedy: what to do about it.
        text: receives an item and the text as it should be; returns what is used instead.
        prompt: receives that text and returns the string that is tokenized.
        ids: receives the ids of the string with those around it; returns the row of ids.
        pooling: in the place of the contract's.
        flips_attention: causal attention instead of bidirectional, or the reverse.
        without_adapter: the base model's weights.
        without_projections: no layers after the pooling.
    """

    step: Step
    finding: str
    remedy: str
    text: Callable[[Item, str], str] | None = None
    prompt: Callable[[str], str] | None = None
    ids: Callable[[Ids, Ids, Ids], Ids] | None = None
    pooling: Pooling | None = None
    flips_attention: bool = False
    without_adapter: bool = False
    without_projections: bool = False


WITHOUT_PROJECTIONS = Rule(
    step="weights",
    finding="the layers after the pooling are left out",
    remedy="use a server that reads modules.json of the folder that task=export writes",
    without_projections=True,
)


def rules_of(
    tokenizer: TextTokenizer,
    role: Role,
    *,
    pooling: Pooling,
    is_causal: bool,
    sends: Sends,
    has_adapter: bool = False,
    has_projections: bool = False,
) -> Iterator[Rule]:
    """Yield the rules that a server may break for texts of a role, those met most often first.

    Args:
        pooling, is_causal, has_adapter, has_projections: of the model.
        sends: whether the client sends texts, or renders the prompt.
    """
    yield from _prompts(tokenizer, role, sends=sends)
    yield from _specials(tokenizer, tokenizer.frames[role])
    yield from _poolings(pooling)
    if is_causal:
        yield Rule(
            step="attention", finding="every token sees the full text (bidirectional attention)",
            remedy="serve it with causal attention, as config.json has it (is_causal)",
            flips_attention=True,
        )  # fmt: skip
    else:
        yield Rule(
            step="attention", finding="tokens see only what is before them (causal attention)",
            remedy="use a server that reads is_causal=false of config.json (vLLM: "
            "--hf-overrides '{\"is_causal\": false}')",
            flips_attention=True,
        )  # fmt: skip
    yield from _texts(tokenizer.frames[role], role, sends=sends)
    if has_adapter:
        yield Rule(
            step="weights", finding="the base model answers, without the adapter",
            remedy="serve the folder that task=export writes, which has the adapter merged",
            without_adapter=True,
        )  # fmt: skip
    if has_projections:
        yield WITHOUT_PROJECTIONS


def _prompts(tokenizer: TextTokenizer, role: Role, *, sends: Sends) -> Iterator[Rule]:
    frame = tokenizer.frames[role]
    other: Role = "document" if role == "query" else "query"
    if any(frame.literals):
        if sends == "text":
            yield Rule(
                step="prompt", finding="no prompt is applied",
                remedy="the server takes texts as they are: let the client render the prompt "
                "(task.sends=rendered here), or configure the prompt there",
                prompt=lambda text: text,
            )  # fmt: skip
        yield Rule(
            step="prompt", finding="the prompt is applied twice",
            remedy="the server renders the prompt itself: send texts alone (task.sends=text here)"
            if sends == "rendered"
            else "two places render the prompt (a default prompt of the server, a proxy, a "
            "template): remove one of them",
            prompt=frame.render
            if sends == "rendered"
            else lambda text: frame.render(frame.render(text)),
        )  # fmt: skip
    if tokenizer.frames[other].literals != frame.literals:
        is_on_top = sends == "rendered" and any(frame.literals)
        yield Rule(
            step="prompt",
            finding=f"the prompt of a {other} is applied{' on top' if is_on_top else ''}",
            remedy="the server renders a prompt itself: send texts alone, with input_type "
            "(task.sends=text here)"
            if sends == "rendered"
            else "the server has one prompt for all texts, or does not read input_type: let the "
            "client render the prompt (task.sends=rendered here), and remove the server's",
            prompt=tokenizer.frames[other].render,
        )


def _specials(tokenizer: TextTokenizer, frame: Frame) -> Iterator[Rule]:
    own = tokenizer.tokenizer
    start, end = frame.start_ids, frame.end_ids
    if end:
        yield Rule(
            step="special tokens", finding=f"the end token {_named(tokenizer, end)} is missing",
            remedy=SERVE_THE_EXPORT, ids=lambda start, ids, end: start + ids,
        )  # fmt: skip
    added = end or (() if own.eos_token_id is None else (int(own.eos_token_id),))
    if added:
        state = "doubled" if end else "added, and the model was trained without"
        yield Rule(
            step="special tokens", finding=f"the end token {_named(tokenizer, added)} is {state}",
            remedy="the tokenizer of the server appends it, too: "
            f"{SERVE_THE_EXPORT if end else 'add_special_tokens=false in the request (vLLM)'}",
            ids=lambda start, ids, end: start + ids + end + added,
        )  # fmt: skip
    if start:
        yield Rule(
            step="special tokens", finding=f"the start token {_named(tokenizer, start)} is missing",
            remedy=SERVE_THE_EXPORT, ids=lambda start, ids, end: ids + end,
        )  # fmt: skip
    first = start or _own_start(tokenizer)
    if first:
        state = "doubled" if start else "added, and the model was trained without"
        yield Rule(
            step="special tokens", finding=f"the start token {_named(tokenizer, first)} is {state}",
            remedy="the tokenizer of the server adds it, too: add_special_tokens=false in the "
            "request (vLLM)",
            ids=lambda start, ids, end: first + start + ids + end,
        )  # fmt: skip
    for one in _other_ends(tokenizer, end) if end else ():
        yield Rule(
            step="special tokens",
            finding=f"the end token is {_named(tokenizer, (one,))}, not {_named(tokenizer, end)}",
            remedy=SERVE_THE_EXPORT,
            ids=lambda start, ids, end, one=one: (*start, *ids, one),  # type: ignore[misc]
        )  # fmt: skip


def _own_start(tokenizer: TextTokenizer) -> Ids:
    bos = tokenizer.tokenizer.bos_token_id
    return () if bos is None else (int(bos),)


def _other_ends(tokenizer: TextTokenizer, end: Ids) -> list[int]:
    own = tokenizer.tokenizer
    found = [own.eos_token_id, own.sep_token_id, own.pad_token_id]
    found += [own.convert_tokens_to_ids(name) for name in ("<|im_end|>", "<|endoftext|>", "</s>")]
    known = dict.fromkeys(int(one) for one in found if one is not None)
    return [one for one in known if (one,) != end and one != own.unk_token_id]


def _named(tokenizer: TextTokenizer, ids: Ids) -> str:
    return repr(tokenizer.tokenizer.decode(list(ids)))


def _poolings(pooling: Pooling) -> Iterator[Rule]:
    others: list[tuple[str, Pooling]] = [
        ("the last token's", LastToken()),
        ("the mean of all tokens'", Mean()),
        ("the first token's (CLS)", Cls()),
        ("the largest of each dimension (max)", Max()),
        ("the position-weighted mean of all tokens'", WeightedMean()),
    ]
    if not getattr(pooling, "include_prompt", True) or getattr(pooling, "pools_last_copy", False):
        own = None  # its own class may pool all tokens
    else:
        own = type(pooling)
        others.append(("the mean without the prompt's tokens", Mean(include_prompt=False)))
    for name, other in others:
        if type(other) is not own or not getattr(other, "include_prompt", True):
            yield Rule(
                step="pooling",
                finding=f"the pooled state is {name}, not that of {type(pooling).__name__}",
                remedy="set the pooling of the server (TEI: --pooling, vLLM: --pooler-config), or "
                "serve the folder that task=export writes, whose modules.json has it",
                pooling=other,
            )


def _texts(frame: Frame, role: Role, *, sends: Sends) -> Iterator[Rule]:
    sent = "send texts unchanged: a client library or the server edits them"
    yield Rule(
        step="text", finding="texts are lower-cased", remedy=sent, text=lambda _, text: text.lower()
    )
    yield Rule(
        step="text", finding="line breaks are replaced by blanks", remedy=sent,
        text=lambda _, text: text.replace("\n", " "),
    )  # fmt: skip
    yield Rule(
        step="text", finding="runs of white space are made one blank", remedy=sent,
        text=lambda _, text: re.sub(r"\s+", " ", text).strip(),
    )  # fmt: skip
    if not frame.strip or sends == "rendered":
        yield Rule(
            step="text", finding="outer white space is removed", remedy=sent,
            text=lambda _, text: text.strip(),
        )  # fmt: skip
    else:
        yield Rule(
            step="text", finding="outer white space is kept, and the contract removes it",
            remedy="strip title and text in the client", text=lambda item, _: _joined(item, " "),
        )  # fmt: skip
    if role == "document" and sends == "text":
        how = "join title and text as the contract does, or send them rendered (task.sends)"
        yield Rule(
            step="text", finding="titles are left out", remedy=how,
            text=lambda item, text: item.text if _has_title(item) else text,
        )  # fmt: skip
        for name, between in (("a line break", "\n"), ("a full stop", ". "), ("nothing", "")):
            yield Rule(
                step="text", finding=f"title and text are joined by {name}, not by a blank",
                remedy=how, text=lambda item, text, between=between:  # type: ignore[misc]
                _joined(item, between) if _has_title(item) else text,
            )  # fmt: skip
        state = "missing" if frame.keeps_empty_title else "added"
        yield Rule(
            step="text", finding=f"the blank that stands for a missing title is {state}",
            remedy=how, text=lambda _, text: text[1:] if text[:1] == " " else f" {text}",
        )  # fmt: skip


def _has_title(item: Item) -> bool:
    return isinstance(item, Document) and bool(item.title)


def _joined(item: Item, between: str) -> str:
    title = item.title if isinstance(item, Document) else ""
    return f"{title}{between}{item.text}" if title else item.text
