"""Find the passages that queries are compared with, each text once, and each query's positives."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, overload, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from quarry.data.train_examples import ExampleSource
from quarry.errors import UserError
from quarry.retrieval.unique_texts import ChosenItems, UniqueTexts, unique_texts
from quarry.runtime.progress import tracked
from quarry.types import Document, Query, TrainExample

NUM_PASSAGES_AT_A_TIME = 1024
"""Passages that an iteration reads at a time."""


@runtime_checkable
class QuerySource(Protocol):
    """Source that reads a query without its passages, as `TableExamples`."""

    def query(self, index: int, /) -> Query: ...


class ExampleQueries(Sequence[Query]):
    """The queries of training examples, read when they are accessed."""

    def __init__(self, examples: ExampleSource) -> None:
        self._examples = examples

    def __len__(self) -> int:
        return len(self._examples)

    @overload
    def __getitem__(self, index: int) -> Query: ...
    @overload
    def __getitem__(self, index: slice) -> list[Query]: ...
    def __getitem__(self, index: int | slice) -> Query | list[Query]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if isinstance(self._examples, QuerySource):
            return self._examples.query(index)
        return self._examples[index].query

    def __iter__(self) -> Iterator[Query]:
        return (self[number] for number in range(len(self)))


class Passages(Sequence[Document]):
    """Different passages of a corpus and of training examples, in the order of both.

    Nothing is held but their places. Passages of a corpus come first.

    Args:
        examples: the training set.
        corpus: None: there is none.
        starts: [num_examples + 1] entry of each example's first passage, after the corpus's.
        entries: [num_passages] entry of each, ascending.
    """

    def __init__(
        self,
        *,
        examples: ExampleSource,
        corpus: Sequence[Document] | None,
        starts: NDArray[np.int64],
        entries: NDArray[np.int64],
    ) -> None:
        self._examples = examples
        self._corpus: Sequence[Document] = () if corpus is None else corpus
        self._starts = starts
        self._entries = entries

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, index: int) -> Document: ...
    @overload
    def __getitem__(self, index: slice) -> list[Document]: ...
    def __getitem__(self, index: int | slice) -> Document | list[Document]:
        if isinstance(index, slice):
            return self._read(self._entries[index])
        if not 0 <= index < len(self):
            raise IndexError(f"passage {index} of {len(self)}")
        return self._read(self._entries[index : index + 1])[0]

    def __iter__(self) -> Iterator[Document]:
        for start in range(0, len(self), NUM_PASSAGES_AT_A_TIME):
            yield from self[start : start + NUM_PASSAGES_AT_A_TIME]

    def first(self, number: int) -> Passages:
        """Return the first so many passages."""
        return Passages(
            examples=self._examples,
            corpus=self._corpus,
            starts=self._starts,
            entries=self._entries[:number],
        )

    def _read(self, entries: NDArray[np.int64]) -> list[Document]:
        """Return the passages of these entries, which ascend."""
        num_in_corpus = int(np.searchsorted(entries, len(self._corpus)))
        found = list(ChosenItems(self._corpus, entries[:num_in_corpus])[:])
        owners = np.searchsorted(self._starts, entries[num_in_corpus:], side="right") - 1
        read = -1
        passages: tuple[Document, ...] = ()
        for entry, owner in zip(entries[num_in_corpus:].tolist(), owners.tolist(), strict=True):
            if owner != read:
                read, passages = owner, _passages_of(self._examples[owner])
            found.append(passages[entry - int(self._starts[owner])])
        return found


@dataclass(frozen=True, kw_only=True)
class MiningTexts:
    """Queries of a training set and the passages that are compared with them.

    Attributes:
        queries: one an example.
        passages: different texts. Those that are searched come first; positives that a given corpus
            lacks follow.
        num_searched: how many are searched.
        digest: of all texts and ids, and of which belongs to which.
        corpus_places: [num_documents] place of each document of a given corpus; -1: it is empty.
        places: place of each passage of the examples, one example after another; -1 as above.
        starts: [num_examples + 1] where those of an example begin, its positives first.
        num_positives: [num_examples].
        query_places: [num_examples] place of the passage that is the query itself; -1: none is.
        group_of: [num_examples] number of the query's text.
        group_starts, by_group: examples by that number, and where those of each begin.
    """

    queries: Sequence[Query]
    passages: Passages
    num_searched: int
    digest: str
    corpus_places: NDArray[np.int64]
    places: NDArray[np.int64]
    starts: NDArray[np.int64]
    num_positives: NDArray[np.int64]
    query_places: NDArray[np.int64]
    group_of: NDArray[np.int64]
    group_starts: NDArray[np.int64]
    by_group: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.queries)

    def positives_of(self, index: int) -> NDArray[np.int64]:
        """Return the places of an example's positives, in their order."""
        start = self.starts[index]
        return self.places[start : start + self.num_positives[index]]

    def hard_negatives_of(self, index: int) -> NDArray[np.int64]:
        """Return the places of the hard negatives that an example has; none with a corpus."""
        start = self.starts[index] + self.num_positives[index]
        return self.places[start : self.starts[index + 1]]

    def excluded_of(self, index: int) -> NDArray[np.int64]:
        """Return the places of what is no negative of an example.

        These are the positives of all examples with the same query text, and a passage that is
        the query itself.
        """
        group = self.group_of[index]
        same = self.by_group[self.group_starts[group] : self.group_starts[group + 1]]
        found = [self.positives_of(other) for other in same.tolist()]
        if self.query_places[index] >= 0:
            found.append(self.query_places[index : index + 1])
        return np.concatenate(found)

    @property
    def most_excluded(self) -> int:
        """Return the largest number of passages that `excluded_of` can name."""
        sums = np.add.reduceat(self.num_positives[self.by_group], self.group_starts[:-1])
        return int(sums.max()) + 1


def read_mining_texts(
    examples: ExampleSource, *, corpus: Sequence[Document] | None = None, key: str = "task.corpus"
) -> MiningTexts:
    """Read all texts once, and compare them by title and text without outer white space.

    Args:
        examples: the training set.
        corpus: passages to search; None: all positives and hard negatives of the examples.
        key: of the corpus, for messages.

    Raises:
        UserError: there is no passage to search.
    """
    starts = np.zeros(len(examples) + 1, dtype=np.int64)
    num_positives = np.zeros(len(examples), dtype=np.int64)
    num_of_corpus = 0 if corpus is None else len(corpus)
    starts[0] = num_of_corpus

    digest = hashlib.blake2b(digest_size=16)

    def documents() -> Iterator[Document]:
        for document in corpus or ():
            digest.update(f"{document.document_id}\n".encode("utf-8", "surrogatepass"))
            yield document
        for index in tracked(range(len(examples)), label="training texts", units="examples"):
            example = examples[index]
            passages = _passages_of(example) if corpus is None else example.positives
            of_line = [example.query.query_id, *(each.document_id for each in passages)]
            digest.update(repr((of_line, example.weight)).encode("utf-8", "surrogatepass"))
            num_positives[index] = len(example.positives)
            starts[index + 1] = starts[index] + len(passages)
            yield from passages

    texts = unique_texts(documents(), passage_key)
    number, entries = _without_blank(texts)
    is_searched = np.ones(len(entries), dtype=bool) if corpus is None else entries < num_of_corpus
    if not is_searched.any():
        where = "data.path: it has" if corpus is None else f"{key}: there are"
        raise UserError(f"{where} no passages that could be negatives. Fix: {key}=DIR_OR_FILE")
    queries = ExampleQueries(examples)
    of_queries = unique_texts(queries, _query_key)
    by_group = np.argsort(of_queries.text_of, kind="stable")
    group_starts = np.searchsorted(of_queries.text_of[by_group], np.arange(len(of_queries) + 1))
    for part in (texts.hashes, texts.text_of, of_queries.hashes, of_queries.text_of, num_positives):
        digest.update(part.tobytes())
    return MiningTexts(
        queries=queries,
        passages=Passages(examples=examples, corpus=corpus, starts=starts, entries=entries),
        num_searched=int(is_searched.sum()),
        digest=digest.hexdigest(),
        corpus_places=number[texts.text_of[:num_of_corpus]],
        places=number[texts.text_of[num_of_corpus:]],
        starts=starts - num_of_corpus,
        num_positives=num_positives,
        query_places=number[_found(texts.hashes, of_queries.hashes)][of_queries.text_of],
        group_of=of_queries.text_of,
        group_starts=group_starts,
        by_group=by_group,
    )


def passage_key(document: Document) -> str:
    """Return the text by which passages are compared."""
    return f"{document.title.strip()}\n{document.text.strip()}"


def _query_key(query: Query) -> str:
    return f"\n{query.text.strip()}"


def _passages_of(example: TrainExample) -> tuple[Document, ...]:
    return (*example.positives, *example.hard_negatives)


def _without_blank(texts: UniqueTexts) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return text -> place, with an end of -1 for what is not found, and place -> first entry."""
    blank = unique_texts([Document(document_id="", text="")], passage_key).hashes[0]
    is_text = texts.hashes != blank
    number = np.where(is_text, np.cumsum(is_text) - 1, -1)
    return np.append(number, -1), texts.first[is_text]


def _found(hashes: NDArray[np.bytes_], wanted: NDArray[np.bytes_]) -> NDArray[np.int64]:
    """Return the place of each wanted hash, -1 where there is none: [len(wanted)]."""
    order = np.argsort(hashes)
    place = np.minimum(np.searchsorted(hashes[order], wanted), len(hashes) - 1)
    found = order[place]
    return np.where(hashes[found] == wanted, found, -1)
