"""Write texts with the lengths of MS MARCO, in tokens of a tokenizer.

    python bench/texts.py FOLDER [--num-examples 2048] [--num-documents 16384] [--tokenizer DIR]

Texts are words of one token each: w0, w1, ... of the stand-in tokenizer, or with --tokenizer words
that are single tokens there.

Queries have 11 tokens on average and at most 30, passages 78 and at most 154, each before its end
token. `train.jsonl` and `corpus.jsonl` are in Tevatron's format, which both sides of a comparison
read. Its passages have a random `score`, for losses with a teacher. With --num-test-queries there
is also a BEIR folder `beir`, whose queries are words of their relevant documents.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

NUM_PASSAGES_PER_QUERY = 16
NUM_WORDS_SHARED = 8
LEAST_WORDS = 100
"""Minimum number of single-token words."""

Words = Sequence[str]


def write_texts(
    folder: Path, *, num_examples: int, num_documents: int, words: Words, seed: int = 0
) -> None:
    """Write train.jsonl and corpus.jsonl."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    with (folder / "train.jsonl").open("w", encoding="utf-8") as file:
        for number in range(num_examples):
            example = _example(number, random, words)
            file.write(json.dumps(example) + "\n")
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as file:
        for number, length in enumerate(passage_lengths(num_documents, random)):
            document = {"docid": f"d{number}", "text": _text(length, random, words)}
            file.write(json.dumps(document) + "\n")


def write_beir(
    folder: Path, *, num_queries: int, num_documents: int, words: Words, seed: int = 1
) -> None:
    """Write corpus.jsonl, queries.jsonl and qrels/test.tsv; document n is relevant to query n."""
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    lengths = passage_lengths(num_documents, random)
    documents = [_text(length, random, words) for length in lengths]
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as file:
        for number, text in enumerate(documents):
            file.write(json.dumps({"_id": f"d{number}", "title": "", "text": text}) + "\n")
    judged = ["query-id\tcorpus-id\tscore\n"]
    with (folder / "queries.jsonl").open("w", encoding="utf-8") as file:
        for number, text in enumerate(documents[:num_queries]):
            shared = random.permutation(text.split())[:NUM_WORDS_SHARED].tolist()
            file.write(json.dumps({"_id": f"q{number}", "text": " ".join(shared)}) + "\n")
            judged.append(f"q{number}\td{number}\t1\n")
    (folder / "qrels" / "test.tsv").write_text("".join(judged), encoding="utf-8")


def stand_in_words(num_words: int) -> Words:
    return [f"w{number}" for number in range(num_words)]


def single_token_words(folder: Path) -> Words:
    """Return lower-case words that are one token at the start of a text and after a space.

    Raises:
        ValueError: the tokenizer has too few of them, or joins tokens across spaces.
    """
    from transformers import AutoTokenizer  # takes seconds, and the stand-in does not need it

    tokenizer = AutoTokenizer.from_pretrained(folder)
    decoded = tokenizer.batch_decode([[number] for number in range(len(tokenizer))])
    words = sorted({text[1:] for text in decoded if text[:1] == " " and _is_word(text[1:])})
    spaced = tokenizer([f" {word}" for word in words], add_special_tokens=False)["input_ids"]
    bare = tokenizer(words, add_special_tokens=False)["input_ids"]
    found = [
        word
        for word, *rows in zip(words, spaced, bare, strict=True)
        if all(len(row) == 1 for row in rows)
    ]
    joined = tokenizer(" ".join(found), add_special_tokens=False)["input_ids"]
    if len(found) < LEAST_WORDS or len(joined) != len(found):
        raise ValueError(
            f"--tokenizer={folder}: {len(found)} words of one token make {len(joined)} tokens "
            f"together. Fix: give a byte-level BPE tokenizer, or none."
        )
    return found


def _is_word(text: str) -> bool:
    return text.isascii() and text.isalpha() and text.islower()


def query_lengths(number: int, random: np.random.Generator) -> NDArray[np.int64]:
    return _lengths(number, random, mean=11, std=4, least=4, most=30)


def passage_lengths(number: int, random: np.random.Generator) -> NDArray[np.int64]:
    return _lengths(number, random, mean=78, std=32, least=12, most=154)


def _lengths(
    number: int, random: np.random.Generator, *, mean: float, std: float, least: int, most: int
) -> NDArray[np.int64]:
    """Draw log-normal lengths, clipped at both ends."""
    variance = np.log(1 + (std / mean) ** 2)
    drawn = random.lognormal(np.log(mean) - variance / 2, np.sqrt(variance), number)
    return np.clip(drawn.round().astype(np.int64), least, most)


def _example(number: int, random: np.random.Generator, words: Words) -> dict[str, object]:
    (query_length,) = query_lengths(1, random)
    passages = [
        {"docid": f"{number}-{place}", "text": _text(length, random, words)}
        for place, length in enumerate(passage_lengths(NUM_PASSAGES_PER_QUERY, random))
    ]
    scores = np.random.default_rng(number).normal(size=len(passages))  # the texts stay as they are
    passages = [each | {"score": score} for each, score in zip(passages, scores, strict=True)]
    return {
        "query_id": str(number),
        "query": _text(query_length, random, words),
        "positive_passages": passages[:1],
        "negative_passages": passages[1:],
    }


def _text(length: int, random: np.random.Generator, words: Words) -> str:
    return " ".join(words[number] for number in random.integers(0, len(words), length).tolist())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--num-examples", type=int, default=2048)
    parser.add_argument("--num-documents", type=int, default=16384)
    parser.add_argument("--num-words", type=int, default=151_000, help="of the tokenizer's w0, ...")
    parser.add_argument("--tokenizer", type=Path, help="whose single tokens the words are")
    parser.add_argument("--num-test-queries", type=int, default=0)
    arguments = parser.parse_args()
    words = stand_in_words(arguments.num_words)
    if arguments.tokenizer is not None:
        words = single_token_words(arguments.tokenizer)
    write_texts(
        arguments.folder,
        num_examples=arguments.num_examples,
        num_documents=arguments.num_documents,
        words=words,
    )
    if arguments.num_test_queries:
        write_beir(
            arguments.folder / "beir",
            num_queries=arguments.num_test_queries,
            num_documents=arguments.num_documents,
            words=words,
        )


if __name__ == "__main__":
    main()
