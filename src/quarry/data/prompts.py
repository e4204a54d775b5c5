"""Define prompts as data: the template, the end token and the length limits of either role."""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import Literal

from quarry.errors import UserError
from quarry.types import ROLES, Document, Query, Role

EOS = "eos"
"""`end_token` that appends the tokenizer's EOS."""

OWN_END = "tokenizer"
"""`end_token` that appends exactly what the tokenizer appends by itself."""

AUTO_END = "auto"
"""`end_token` that acts as `OWN_END`, or as `EOS` if the tokenizer appends nothing."""

TITLE_AND_TEXT = "{title} {text}"
"""Part of a document template: title, space and text; the space stays without a title."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Template:
    """A parsed template.

    Attributes:
        literals: what stands before, between and after the copies of the text; one more than there
            are copies.
        keeps_empty_title: an empty title is followed by a space, too.
    """

    literals: tuple[str, ...]
    keeps_empty_title: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """The prompt of a model: templates of both roles, and the rules by which they are rendered.

    A template has the field `{text}` once, or twice to repeat the text (Echo, arXiv 2402.15449). A
    document's title precedes its text with one space between. A template with `{title} {text}`
    keeps that space without a title, as Tevatron does. `{instruction}` stands for `instruction`.

    Attributes:
        query, document: the templates, such as "Query:{text}".
        instruction: replaces `{instruction}`.
        is_chat: the template is the user's turn in the chat template of the model's tokenizer. No
            system message is passed: the chat template's own default, if it has one, is used.
        assistant: with `is_chat`, the beginning of the assistant's turn; the prompt is cut there.
        end_token: appended by id after truncation. "tokenizer": what the tokenizer appends by
            itself ([SEP] of a BERT), which may be nothing; "eos": its EOS; "auto": what it appends,
            or its EOS if it appends nothing; anything else: a special token such as
            "<|endoftext|>"; null: nothing is appended.
        max_query_length, max_document_length: in tokens. Truncation cuts the text, never the
            template or the end token.
        length_counts: "all": lengths include template and end token. "text": they count the text
            alone, and the template comes on top. "turn", with `is_chat`: they count the user's turn
            up to the end of the text, and the chat template comes on top.
        strip: remove outer whitespace of a query, of a document's title and of its text before they
            are joined and rendered.
    """

    query: str = "{text}"
    document: str = "{text}"
    instruction: str | None = None
    is_chat: bool = False
    assistant: str | None = None
    end_token: str | None = AUTO_END
    max_query_length: int = 512
    max_document_length: int = 512
    length_counts: Literal["all", "text", "turn"] = "all"
    strip: bool = False

    def __post_init__(self) -> None:
        for role in ROLES:
            self.template(role)
            if self.max_length(role) < 1:
                raise UserError(f"prompt.max_{role}_length={self.max_length(role)}: at least 1.")
        if self.assistant is not None and not self.is_chat:
            raise UserError(
                f"prompt.assistant={self.assistant!r} has no effect without prompt.is_chat=true: "
                "only a chat template has an assistant's turn."
            )
        if self.length_counts not in ("all", "text", "turn"):
            raise UserError(f"prompt.length_counts={self.length_counts!r}: all, text or turn.")
        if self.length_counts == "turn" and not self.is_chat:
            raise UserError(
                "prompt.length_counts=turn counts what the user says in a chat, and prompt.is_chat "
                "is false. Use all or text."
            )

    def max_length(self, role: Role) -> int:
        """Return the token limit of a role; `length_counts` says what is counted."""
        return self.max_query_length if role == "query" else self.max_document_length

    def template(self, role: Role) -> Template:
        """Return the parsed template of a role."""
        template = self.query if role == "query" else self.document
        try:
            # a doubled brace ends a piece, too, so literals may come in several pieces
            pieces = list(string.Formatter().parse(template))
        except ValueError as error:
            raise UserError(
                f"prompt.{role}={template!r}: {error}. Write literal braces as {{{{ and }}}}."
            ) from error
        literals, fields = [""], []
        for literal, *field in pieces:
            literals[-1] += literal
            if field[0] is None:
                continue
            if field[1:] != ["", None]:
                raise self._refused(role, template)
            if field[0] == "instruction" and self.instruction is not None:
                literals[-1] += self.instruction
            else:
                fields.append(field[0])
                literals.append("")
        return self._checked(role, template, fields, literals)

    def _checked(
        self, role: Role, template: str, fields: list[str], literals: list[str]
    ) -> Template:
        has_title = role == "document" and TITLE_AND_TEXT in template
        if has_title:
            keeps = fields == ["title", "text"] and literals.pop(1) == " "
        else:
            keeps = fields in (["text"], ["text", "text"])
        if not keeps:
            raise self._refused(role, template)
        return Template(literals=tuple(literals), keeps_empty_title=has_title)

    def _refused(self, role: Role, template: str) -> UserError:
        return UserError(
            f"prompt.{role}={template!r} must hold the field {{text}} once, or twice to repeat it"
            + (f", or {TITLE_AND_TEXT} once" if role == "document" else "")
            + ". {instruction} may stand anywhere if prompt.instruction is set; there is no other "
            "field. Write literal braces as {{ and }}."
        )


def joined_text(
    item: Query | Document, *, keeps_empty_title: bool = False, strip: bool = False
) -> str:
    """Return the text that is encoded: a query's text; a document's title, a space and its text.

    Args:
        keeps_empty_title: keep the space if the title or the text is empty, too.
        strip: remove the outer whitespace of title and text before they are joined.
    """
    text = item.text.strip() if strip else item.text
    if not isinstance(item, Document):
        return text
    title = item.title.strip() if strip else item.title
    if keeps_empty_title or (title and text):
        return f"{title} {text}"
    return title or text
