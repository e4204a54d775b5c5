"""Prompts: how a text of either role is dressed, and how much of it a model is fed."""

from __future__ import annotations

import string
from dataclasses import dataclass

from quarry.errors import UserError
from quarry.types import Document, Query, Role


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """Templates with the one field `{text}`; a document's title stands before its text.

    Attributes:
        query: template of a query, such as "Query:{text}".
        document: template of a passage or document, such as "Passage:{text}".
        has_eos: whether the tokenizer's end token is appended.
        max_query_length, max_document_length: tokens, template and end token included.
    """

    query: str = "{text}"
    document: str = "{text}"
    has_eos: bool = True
    max_query_length: int = 512
    max_document_length: int = 512

    def __post_init__(self) -> None:
        for key in ("query", "document"):
            template = getattr(self, key)
            fields = [
                name for _, name, _, _ in string.Formatter().parse(template) if name is not None
            ]
            if fields != ["text"]:
                raise UserError(
                    f"prompt.{key}={template!r} must hold the field {{text}} once and no other "
                    f"field; found {fields or 'none'}. Write literal braces as {{{{ and }}}}."
                )

    def max_length(self, role: Role) -> int:
        """Tokens that a text of this role may take, template and end token included."""
        return self.max_query_length if role == "query" else self.max_document_length

    def split(self, role: Role) -> tuple[str, str]:
        """The literal text before and after the text of this role."""
        (before, *_), *rest = list(string.Formatter().parse(getattr(self, role)))
        return before, rest[0][0] if rest else ""


def joined_text(item: Query | Document) -> str:
    """The text that is encoded: a query's text; a document's title and text, one space between."""
    if isinstance(item, Document) and item.title:
        return f"{item.title} {item.text}"
    return item.text
