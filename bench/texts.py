"""Writes texts with the lengths of MS MARCO, in words of the stand-in tokenizer.

    python bench/texts.py FOLDER [--num-examples 2048] [--num-documents 16384]

Queries have 11 tokens on average and at most 30, passages 78 and at most 154, each before its end
token. `train.jsonl` and `corpus.jsonl` are in Tevatron's form, which both sides of a comparison
read. With --num-test-queries there is a BEIR folder `beir`, too: its queries are words of the
documents that answer them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

NUM_PASSAGES_PER_QUERY = 16
NUM_WORDS_SHARED = 8
MAX_TEST_DOCUMENTS = 512


def write_texts(
    folder: Path, *, num_examples: int, num_documents: int, num_words: int, seed: int = 0
) -> None:
    """Writes both files."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    with (folder / "train.jsonl").open("w", encoding="utf-8") as file:
        for number in range(num_examples):
            example = _example(number, random, num_words=num_words)
            file.write(json.dumps(example) + "\n")
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as file:
        for number, length in enumerate(passage_lengths(num_documents, random)):
            document = {"docid": f"d{number}", "text": _text(length, random, num_words=num_words)}
            file.write(json.dumps(document) + "\n")


def write_beir(
    folder: Path, *, num_queries: int, num_documents: int, num_words: int, seed: int = 1
) -> None:
    """Writes corpus.jsonl, queries.jsonl and qrels/test.tsv; query n is answered by document n."""
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    lengths = passage_lengths(num_documents, random)
    documents = [_text(length, random, num_words=num_words) for length in lengths]
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as file:
        for number, text in enumerate(documents):
            file.write(json.dumps({"_id": f"d{number}", "title": "", "text": text}) + "\n")
    judged = ["query-id\tcorpus-id\tscore\n"]
    with (folder / "queries.jsonl").open("w", encoding="utf-8") as file:
        for number, text in enumerate(documents[:num_queries]):
            words = random.permutation(text.split())[:NUM_WORDS_SHARED].tolist()
            file.write(json.dumps({"_id": f"q{number}", "text": " ".join(words)}) + "\n")
            judged.append(f"q{number}\td{number}\t1\n")
    (folder / "qrels" / "test.tsv").write_text("".join(judged), encoding="utf-8")


def query_lengths(number: int, random: np.random.Generator) -> NDArray[np.int64]:
    return _lengths(number, random, mean=11, std=4, least=4, most=30)


def passage_lengths(number: int, random: np.random.Generator) -> NDArray[np.int64]:
    return _lengths(number, random, mean=78, std=32, least=12, most=154)


def _lengths(
    number: int, random: np.random.Generator, *, mean: float, std: float, least: int, most: int
) -> NDArray[np.int64]:
    """Log-normal, cut at both ends."""
    variance = np.log(1 + (std / mean) ** 2)
    drawn = random.lognormal(np.log(mean) - variance / 2, np.sqrt(variance), number)
    return np.clip(drawn.round().astype(np.int64), least, most)


def _example(number: int, random: np.random.Generator, *, num_words: int) -> dict[str, object]:
    (query_length,) = query_lengths(1, random)
    passages = [
        {"docid": f"{number}-{place}", "text": _text(length, random, num_words=num_words)}
        for place, length in enumerate(passage_lengths(NUM_PASSAGES_PER_QUERY, random))
    ]
    return {
        "query_id": str(number),
        "query": _text(query_length, random, num_words=num_words),
        "positive_passages": passages[:1],
        "negative_passages": passages[1:],
    }


def _text(length: int, random: np.random.Generator, *, num_words: int) -> str:
    return " ".join(f"w{word}" for word in random.integers(0, num_words, length).tolist())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--num-examples", type=int, default=2048)
    parser.add_argument("--num-documents", type=int, default=16384)
    parser.add_argument("--num-words", type=int, default=151_000, help="of the tokenizer's w0, ...")
    parser.add_argument("--num-test-queries", type=int, default=0)
    arguments = parser.parse_args()
    write_texts(
        arguments.folder,
        num_examples=arguments.num_examples,
        num_documents=arguments.num_documents,
        num_words=arguments.num_words,
    )
    if arguments.num_test_queries:
        write_beir(
            arguments.folder / "beir",
            num_queries=arguments.num_test_queries,
            num_documents=min(arguments.num_documents, MAX_TEST_DOCUMENTS),
            num_words=arguments.num_words,
        )


if __name__ == "__main__":
    main()
