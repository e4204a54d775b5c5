"""Build frames from a prompt and a tokenizer: the literal text and ids around every text."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from quarry.data.chat_template import render_chat
from quarry.data.prompts import AUTO_END, EOS, OWN_END, Prompt, joined_text
from quarry.errors import UserError
from quarry.types import ROLES, Document, Query, Role

logger = logging.getLogger(__name__)

_MARK = "\N{BLACK DIAMOND SUIT}quarry\N{BLACK DIAMOND SUIT}"
"""Placeholder for the text while a chat template is rendered, which may surround it freely."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """What surrounds a text of one role, with chat template and special tokens applied.

    Attributes:
        literals: text before, between and after the copies of the text.
        start_ids: ids before everything (a BOS that the tokenizer puts there itself).
        end_ids: ids after everything (the end token).
        keeps_empty_title: see `prompts.Template`.
        strip: see `prompts.Prompt`.
        counted: the end of the first literal, if lengths count it together with the text.
    """

    literals: tuple[str, ...]
    start_ids: tuple[int, ...]
    end_ids: tuple[int, ...]
    keeps_empty_title: bool = False
    counted: str = ""
    strip: bool = False

    @property
    def num_copies(self) -> int:
        """Number of copies of the text in the frame."""
        return len(self.literals) - 1

    def text_of(self, item: Query | Document) -> str:
        """Return a query's text, or a document's title and text joined, without the prompt.

        Whatever compares or stores texts uses this form.
        """
        return joined_text(item, keeps_empty_title=self.keeps_empty_title, strip=self.strip)

    def render(self, text: str) -> str:
        """Return the framed text as one string, without `start_ids` and `end_ids`."""
        return text.join(self.literals)

    def last_copy_start(self, text: str) -> int:
        """Return the character in `render(text)` at which the last copy of the text begins."""
        return len(text.join(self.literals[:-1]))


def build_frames(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> dict[Role, Frame]:
    """Return the frame of each role.

    Raises:
        UserError: the prompt needs a chat template or an end token that the tokenizer lacks, or the
            chat template changes the texts of the prompt.
    """
    own_start, own_end = own_specials(tokenizer)
    start_ids = () if prompt.is_chat else own_start
    end_ids = _end_ids(tokenizer, prompt, own_end=own_end)
    frames: dict[Role, Frame] = {}
    for role in ROLES:
        template = prompt.template(role)
        literals = template.literals
        if prompt.is_chat:
            literals = _chat_literals(tokenizer, prompt, literals)
        frames[role] = Frame(
            literals=literals,
            start_ids=start_ids,
            end_ids=end_ids,
            keeps_empty_title=template.keeps_empty_title,
            counted=template.literals[0] if prompt.length_counts == "turn" else "",
            strip=prompt.strip,
        )
    if prompt.is_chat:
        logger.info(
            "Prompts use the chat template of %s; every query begins with %r",
            tokenizer.name_or_path,
            frames["query"].literals[0],
        )
    return frames


def _chat_literals(
    tokenizer: PreTrainedTokenizerBase, prompt: Prompt, literals: tuple[str, ...]
) -> tuple[str, ...]:
    if tokenizer.chat_template is None:
        raise UserError(
            f"The tokenizer of {tokenizer.name_or_path!r} has no chat template, and "
            "prompt.is_chat=true needs one. Use a prompt without it (prompt=repllama), or put a "
            "chat_template into its tokenizer_config.json."
        )
    messages = [{"role": "user", "content": _MARK.join(literals)}]
    if prompt.assistant is not None:
        messages.append({"role": "assistant", "content": prompt.assistant})
    rendered = render_chat(tokenizer, messages)
    if prompt.assistant is not None:
        start = rendered.rfind(prompt.assistant)
        rendered = rendered[: start + len(prompt.assistant)] if start >= 0 else ""
    pieces = tuple(rendered.split(_MARK))
    if len(pieces) != len(literals) or not _stands_in(literals, pieces):
        raise UserError(
            f"The chat template of {tokenizer.name_or_path!r} changes or drops what the user's and "
            "the assistant's turn say, so the prompt cannot be rendered with it. Use another "
            "prompt, or correct the chat_template in its tokenizer_config.json."
        )
    return pieces


def _stands_in(literals: tuple[str, ...], pieces: tuple[str, ...]) -> bool:
    """Return whether the template only added text before the first and after the last literal."""
    return (
        pieces[0].endswith(literals[0])
        and pieces[-1].startswith(literals[-1])
        and pieces[1:-1] == literals[1:-1]
    )


def _end_ids(
    tokenizer: PreTrainedTokenizerBase, prompt: Prompt, *, own_end: tuple[int, ...]
) -> tuple[int, ...]:
    if prompt.end_token is None:
        return ()
    if prompt.end_token == OWN_END or (prompt.end_token == AUTO_END and own_end):
        return own_end
    if prompt.end_token in (EOS, AUTO_END):
        return (_eos(tokenizer, prompt),)
    specials = tokenizer.get_added_vocab()
    if prompt.end_token not in specials:
        known = ", ".join(sorted(specials)[:8]) or "none"
        raise UserError(
            f"prompt.end_token={prompt.end_token!r} is no special token of the tokenizer of "
            f"{tokenizer.name_or_path!r}; found: {known}. Choose one of its own, or auto."
        )
    return (int(specials[prompt.end_token]),)


def _eos(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> int:
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"prompt.end_token={prompt.end_token}: the tokenizer of {tokenizer.name_or_path!r} "
            "appends no token to a text, and names no eos_token. Fix: set eos_token in its "
            "tokenizer_config.json, or name the token that the model was trained with: "
            "prompt.end_token=TOKEN"
        )
    if prompt.end_token == AUTO_END:
        logger.info(
            "The tokenizer of %s appends no token to a text: its EOS %r is appended "
            "(prompt.end_token=auto)",
            tokenizer.name_or_path,
            tokenizer.eos_token,
        )
    return int(tokenizer.eos_token_id)


def own_specials(tokenizer: PreTrainedTokenizerBase) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the ids that the tokenizer puts before and after a text, found with a probe text.

    Raises:
        UserError: the tokenizer puts ids elsewhere.
    """
    plain = tokenizer.encode("a", add_special_tokens=False)
    framed = tokenizer.encode("a", add_special_tokens=True)
    for start in range(len(framed) - len(plain) + 1):
        if framed[start : start + len(plain)] == plain:
            return tuple(framed[:start]), tuple(framed[start + len(plain) :])
    raise UserError(
        f"The tokenizer of {tokenizer.name_or_path!r} makes {framed} of a text whose own ids are "
        f"{plain}: it does more than to put special tokens around a text, which is not supported. "
        "Fix: correct the post_processor in its tokenizer.json."
    )
