"""Count the texts and tokens that an evaluation encodes, by published counts or its data.

docs/make_reproducing.py computes its tables with the same functions.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from quarry.data.collation import CHARACTERS_PER_TOKEN
from quarry.data.prompts import Prompt
from quarry.evaluation.benchmark import BenchmarkSet
from quarry.evaluation.benchmarks import mean_characters
from quarry.planning.prefix_tokens import PrefixTokens, no_prefix
from quarry.types import ROLES, Role

CHAT_TOKENS = 20
"""Tokens around a turn in a chat template, about: the marks of system, user and assistant, and a
short default system message. For prompts whose tokenizer is not here."""

PUBLISHED = f"published counts and mean lengths ({mean_characters.SOURCE})"


@dataclass(frozen=True, kw_only=True, slots=True)
class TextFrame:
    """Count what the prompt adds to a text of one role.

    Attributes:
        num_tokens: around the text: template, chat template, end token.
        num_copies: how often the text stands there.
    """

    num_tokens: float
    num_copies: int = 1


Frames = Mapping[Role, TextFrame]


@dataclass(frozen=True, kw_only=True, slots=True)
class SetLengths:
    """Hold the counts of a collection, and the mean tokens of its texts as they are fed."""

    num_queries: int
    num_documents: int
    tokens_per_query: float
    tokens_per_document: float
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SetWork:
    """Hold what one set adds to an evaluation; None: not known.

    Attributes:
        num_documents: of its corpus.
        num_new_documents: those that were not encoded for a set before it.
        num_tokens: of its queries and new documents.
        num_computed_tokens: of these, those that go through the model: a prefix that all texts
            share does once a pass.
        source: where the numbers come from, or why there are none.
    """

    name: str
    group: str | None
    num_queries: int | None
    num_documents: int | None
    num_new_documents: int | None
    num_tokens: float | None
    num_computed_tokens: float | None
    source: str

    @property
    def num_texts(self) -> int | None:
        """Return the number of queries and new documents."""
        if self.num_queries is None or self.num_new_documents is None:
            return None
        return self.num_queries + self.num_new_documents


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodingWork:
    """Hold what a benchmark takes to encode once; sums are over the known sets.

    Attributes:
        prefix_tokens: that texts share, taken off; None: not known, and not taken off.
    """

    sets: tuple[SetWork, ...]
    prefix_tokens: PrefixTokens | None = field(default_factory=no_prefix)

    @property
    def num_texts(self) -> int:
        return sum(one.num_texts or 0 for one in self.sets)

    @property
    def num_tokens(self) -> float:
        return sum(one.num_tokens or 0.0 for one in self.sets)

    @property
    def num_computed_tokens(self) -> float:
        return sum(one.num_computed_tokens or 0.0 for one in self.sets)

    @property
    def largest_corpus(self) -> int:
        """Return its number of documents; one corpus at a time is held."""
        return max((one.num_documents or 0 for one in self.sets), default=0)

    @property
    def is_unknown(self) -> bool:
        """Return whether no set is known, so that sums of 0 say nothing."""
        return bool(self.sets) and len(self.unknown_sets) == len(self.sets)

    @property
    def unknown_sets(self) -> tuple[str, ...]:
        return tuple(one.name for one in self.sets if one.num_texts is None)

    def num_pairs(self, *, depth: int) -> int:
        """Return the pairs of a query and a document, `depth` for each query of the known sets."""
        return sum((one.num_queries or 0) * min(depth, one.num_documents or 0) for one in self.sets)

    def hours(self, *, tokens_per_s: float, num_devices: int = 1) -> float:
        """Return the hours on devices of that rate that do not wait for one another."""
        return self.num_computed_tokens / (tokens_per_s * num_devices) / 3600

    def embedding_bytes(self, *, dim: int, itemsize: int) -> int:
        """Return the bytes of all embeddings, as the embedding store holds them."""
        return self.num_texts * dim * itemsize


def encoding_work(
    sets: Sequence[BenchmarkSet],
    *,
    prompt: Prompt,
    frames: Frames,
    is_stored: bool,
    count: Callable[[BenchmarkSet], SetLengths | str] | None = None,
    prefix_tokens: PrefixTokens | None = None,
) -> EncodingWork:
    """Count what the sets take, in their order.

    Args:
        frames: see `TextFrame`.
        is_stored: embeddings go to the store, where every corpus is encoded once; else only one
            that directly follows itself is not encoded again.
        count: reads a set that nobody has published the counts of, or says why it cannot.
        prefix_tokens: see `EncodingWork`.
    """
    found: list[SetWork] = []
    encoded: set[Hashable] = set()
    for one in sets:
        lengths: SetLengths | str | None = published_lengths(one, prompt=prompt, frames=frames)
        if lengths is None:
            lengths = "no published counts" if count is None else count(one)
        corpus = one.corpus or one.name
        pages = corpus if one.pages is None or not is_stored else one.pages
        is_new = not encoded & {corpus, pages}
        encoded = (encoded if is_stored else set()) | {corpus, pages}
        found.append(_set_work(one, lengths, is_new=is_new, prefix=prefix_tokens or no_prefix()))
    return EncodingWork(sets=tuple(found), prefix_tokens=prefix_tokens)


def _set_work(
    one: BenchmarkSet, lengths: SetLengths | str, *, is_new: bool, prefix: PrefixTokens
) -> SetWork:
    if isinstance(lengths, str):
        return SetWork(
            name=one.name,
            group=one.group,
            num_queries=None,
            num_documents=None,
            num_new_documents=None,
            num_tokens=None,
            num_computed_tokens=None,
            source=lengths,
        )
    num_new = lengths.num_documents if is_new else 0
    num_tokens = (
        lengths.num_queries * lengths.tokens_per_query + num_new * lengths.tokens_per_document
    )
    num_again = prefix["query"] * max(0, lengths.num_queries - 1)  # queries are a pass,
    num_again += prefix["document"] * max(0, num_new - 1)  # and so are documents
    return SetWork(
        name=one.name,
        group=one.group,
        num_queries=lengths.num_queries,
        num_documents=lengths.num_documents,
        num_new_documents=num_new,
        num_tokens=num_tokens,
        num_computed_tokens=num_tokens - num_again,
        source=lengths.source,
    )


def published_lengths(one: BenchmarkSet, *, prompt: Prompt, frames: Frames) -> SetLengths | None:
    """Return counts and mean lengths as published; None: they are not.

    A mean that is cut at the prompt's length is at least the mean of what is cut.
    """
    if one.expected is None or one.mean_characters is None:
        return None
    query, document = (
        text_tokens(characters, role, prompt=prompt, frame=frames[role])
        for role, characters in zip(ROLES, one.mean_characters, strict=True)
    )
    return SetLengths(
        num_queries=one.expected.num_queries,
        num_documents=one.expected.num_documents,
        tokens_per_query=query,
        tokens_per_document=document,
        source=PUBLISHED,
    )


def text_tokens(characters: float, role: Role, *, prompt: Prompt, frame: TextFrame) -> float:
    """Return the tokens of a text of so many characters, cut at the prompt's length."""
    limit, length = prompt.max_length(role), characters / CHARACTERS_PER_TOKEN
    if prompt.length_counts == "all":
        return min(frame.num_copies * length + frame.num_tokens, limit)
    return frame.num_copies * min(length, limit) + frame.num_tokens


def estimated_frames(prompt: Prompt) -> Frames:
    """Estimate the frames of a prompt without tokenizer, by its templates' characters."""
    frames: dict[Role, TextFrame] = {}
    for role in ROLES:
        literals = prompt.template(role).literals
        characters = sum(map(len, literals)) + len(prompt.assistant or "")
        frames[role] = TextFrame(
            num_tokens=characters / CHARACTERS_PER_TOKEN
            + (CHAT_TOKENS if prompt.is_chat else 0)
            + (prompt.end_token is not None),
            num_copies=len(literals) - 1,
        )
    return frames
