"""The lexical baseline: a test collection in, a BM25 ranking out, for prose and for code."""

from __future__ import annotations

import functools
import logging
import re
import sys
import time
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

from tqdm import tqdm

from quarry.data.prompts import joined_text
from quarry.errors import UserError
from quarry.retrieval.embeddings import TextEncoder
from quarry.retrieval.ranking import tie_order, top_k_by_score
from quarry.types import Content, Document, RetrievalSet, Run

if TYPE_CHECKING:  # bm25s and PyStemmer are imported where they are used
    from bm25s import BM25

logger = logging.getLogger(__name__)


class Tokenizer(Protocol):
    """Cuts a text into the terms that are matched; queries and documents go through the same."""

    def __call__(self, text: str) -> list[str]: ...


class TextTokenizer:
    """Words of two or more characters, lower-cased, without stop words, stemmed.

    Args:
        stemmer: a Snowball algorithm such as `english`, or None to keep words as they are.
        stop_words: lower-cased words to leave out; null: Lucene's English list.
    """

    _words = re.compile(r"(?u)\b\w\w+\b")

    def __init__(
        self, *, stemmer: str | None = "english", stop_words: Collection[str] | None = None
    ) -> None:
        import Stemmer
        from bm25s.stopwords import STOPWORDS_EN

        if stemmer is not None and stemmer not in Stemmer.algorithms():
            raise UserError(
                f"bm25 tokenizer: there is no Snowball stemmer {stemmer!r}; "
                f"choose one of {', '.join(Stemmer.algorithms())}, or null for none"
            )
        self._stop_words = frozenset(STOPWORDS_EN if stop_words is None else stop_words)
        # Snowball forgets words beyond the first 10,000; a corpus repeats many more.
        self._stem = functools.cache(Stemmer.Stemmer(stemmer).stemWord) if stemmer else str

    def __call__(self, text: str) -> list[str]:
        words = self._words.findall(text.lower())
        return [self._stem(word) for word in words if word not in self._stop_words]


class CodeTokenizer:
    """Identifiers cut at underscores, camelCase and digits, lower-cased; no stop words, no stemmer.

    `parseHTTPResponse_v2` gives parse, http, response, v, 2. Prose passes through the same rules.
    """

    # Capitals not followed by a small letter (HTTP of HTTPResponse), a word, or digits. Letters
    # without ASCII case count as small.
    _parts = re.compile(r"[A-Z]+(?![^\W\d_A-Z])|[A-Z]?[^\W\d_A-Z]+|\d+")

    def __call__(self, text: str) -> list[str]:
        return [part.lower() for part in self._parts.findall(text)]


class BM25Retriever:
    """BM25 as Lucene computes it, exact document lengths (Kamphuis et al. 2020), by bm25s.

    The index is built for each call in memory. A document is its title, a space and its text.

    Args:
        tokenizers: what a collection holds ("text", "code") -> the tokenizer for it.
        k1: saturation of the term frequency; 0.9 and b = 0.4 are Anserini's and BEIR's values.
        b: strength of the length normalisation, 0..1.
    """

    name = "bm25"
    uses_encoder = False

    def __init__(
        self, *, tokenizers: Mapping[Content, Tokenizer], k1: float = 0.9, b: float = 0.4
    ) -> None:
        if k1 < 0 or not 0 <= b <= 1:
            raise UserError(f"bm25: k1 = {k1} and b = {b}, but k1 >= 0 and 0 <= b <= 1 must hold")
        self.tokenizers = tokenizers
        self.k1 = k1
        self.b = b

    def retrieve(
        self, dataset: RetrievalSet, *, top_k: int, encoder: TextEncoder | None = None
    ) -> Run:
        """Rank the documents that share a term with the query; `encoder` is not used.

        Returns:
            An entry for every query: at most `top_k` documents, best first, exact, ties by
            document id descending; empty if no term of the query occurs in the corpus.
        """
        start = time.perf_counter()
        tokenizer = self.tokenizers[dataset.content]
        corpus_term_ids, vocabulary = _tokenize(dataset.corpus, tokenizer)
        if not vocabulary:
            logger.warning("bm25: no document of %s has a term, nothing is found", dataset.name)
            return {query.query_id: {} for query in dataset.queries}
        engine = self._index(corpus_term_ids, num_terms=len(vocabulary))
        logger.info(
            "bm25: indexed %d documents of %s, %d terms, in %.1f s",
            len(dataset.corpus),
            dataset.name,
            len(vocabulary),
            time.perf_counter() - start,
        )
        document_ids = [document.document_id for document in dataset.corpus]
        order = tie_order(document_ids)
        run: Run = {}
        for query in tqdm(dataset.queries, desc=f"bm25 {dataset.name}", disable=None, leave=False):
            terms = tokenizer(query.text)
            term_ids = [vocabulary[term] for term in terms if term in vocabulary]
            scores = engine.get_scores_from_ids(term_ids)
            best = top_k_by_score(scores, order, k=top_k)
            run[query.query_id] = {
                document_ids[position]: float(scores[position])
                for position in best[scores[best] > 0]
            }
        return run

    def _index(self, corpus_term_ids: list[list[int]], *, num_terms: int) -> BM25:
        from bm25s import BM25

        engine = BM25(method="lucene", k1=self.k1, b=self.b)
        # Its index() does the same, but adds an artificial empty term and logs past our level.
        engine.scores = engine.build_index_from_ids(
            unique_token_ids=list(range(num_terms)),
            corpus_token_ids=corpus_term_ids,
            show_progress=sys.stderr.isatty(),
        )
        return engine


def _tokenize(
    corpus: Iterable[Document], tokenizer: Tokenizer
) -> tuple[list[list[int]], dict[str, int]]:
    """The terms of each document as numbers, and the number of each term."""
    vocabulary: dict[str, int] = {}
    term_ids = [
        [vocabulary.setdefault(term, len(vocabulary)) for term in tokenizer(joined_text(document))]
        for document in corpus
    ]
    return term_ids, vocabulary
