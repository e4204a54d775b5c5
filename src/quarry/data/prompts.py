"""Prompts: how a text of either role is dressed, and how much of it a model is fed."""

from __future__ import annotations

import string
from dataclasses import dataclass

from quarry.errors import UserError
from quarry.types import ROLES, Document, Query, Role


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
        for role in ROLES:
            self.split(role)

    def max_length(self, role: Role) -> int:
        """Tokens that a text of this role may take, template and end token included."""
        return self.max_query_length if role == "query" else self.max_document_length

    def split(self, role: Role) -> tuple[str, str]:
        """The literal text before and after the text of this role."""
        template = getattr(self, role)
        try:
            # a doubled brace ends a piece, too, so there may be several on either side of the field
            pieces = list(string.Formatter().parse(template))
        except ValueError as error:
            raise UserError(
                f"prompt.{role}={template!r}: {error}. Write literal braces as {{{{ and }}}}."
            ) from error
        fields = [tuple(field) for _, *field in pieces if field[0] is not None]
        if fields != [("text", "", None)]:
            raise UserError(
                f"prompt.{role}={template!r} must hold the field {{text}} once, as it stands here, "
                "and no other field. Write literal braces as {{ and }}."
            )
        literals = [literal for literal, *_ in pieces]
        border = 1 + next(i for i, (_, name, *_) in enumerate(pieces) if name is not None)
        return "".join(literals[:border]), "".join(literals[border:])


def joined_text(item: Query | Document) -> str:
    """The text that is encoded: a query's text; a document's title and text, one space between."""
    if isinstance(item, Document) and item.title:
        return f"{item.title} {item.text}" if item.text else item.title
    return item.text
