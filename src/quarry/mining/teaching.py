"""Score a training set with a teacher, and write its scores or vectors for distillation."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from quarry.data.prompts import joined_text
from quarry.errors import UserError
from quarry.losses.teacher_vectors import write_hashed_vectors
from quarry.mining.mining_texts import ExampleQueries
from quarry.mining.training_pairs import TrainingPairs, TrainingPassages
from quarry.retrieval.embeddings import TextEncoder
from quarry.retrieval.rerankers.pair_scorer import Scorer
from quarry.runtime.files import replacing
from quarry.runtime.progress import tracked
from quarry.runtime.text_hash import text_hash
from quarry.types import Document, Query, Role, TrainExample

SCORES_FILE = "scored.jsonl"
VECTORS_FILE = "vectors.safetensors"

NUM_VECTORS_AT_A_TIME = 8_192


@dataclass(frozen=True, kw_only=True)
class Taught:
    """What a teacher has written, for teach.json and the terminal.

    Attributes:
        file: the scores or vectors.
        counts: names and numbers, in the order in which they are shown.
    """

    file: Path
    counts: dict[str, Any]


def write_scores(examples: Sequence[TrainExample], teacher: Scorer, *, folder: Path) -> Taught:
    """Write each query with its passages and the teacher's scores, which `data=file` reads.

    Args:
        examples: read lazily, several times.
        folder: receives `SCORES_FILE`, complete or not at all.

    Raises:
        UserError: a score is not finite, or as the teacher raises.
    """
    pairs = TrainingPairs(examples)
    found = teacher.score(pairs, label="pairs")
    file = folder / SCORES_FILE
    num_above, num_with_negatives, num_replaced, start = 0, 0, 0, 0
    read = tracked(examples, label=f"writing {file.name}", units="examples")
    with replacing(file) as partial, partial.open("wb") as out:
        for example, count in zip(read, pairs.counts.tolist(), strict=True):
            scores = found.scores[start : start + count]
            start += count
            out.write(_line(example, scores))
            of_positives, of_negatives = np.split(scores, [len(example.positives)])
            num_with_negatives += len(of_negatives) > 0
            num_above += len(of_negatives) > 0 and of_negatives.max() > of_positives.max()
            num_replaced += example.positive_scores is not None
    return Taught(
        file=file,
        counts={
            "num_examples": len(examples),
            "num_pairs": len(pairs),
            "num_unique_pairs": found.num_unique,
            "num_cut_pairs": found.num_cut,
            "num_examples_with_negatives": num_with_negatives,
            "num_examples_with_a_negative_above_the_positives": int(num_above),
            "num_examples_whose_scores_were_replaced": num_replaced,
            "lowest_score": float(found.scores.min()),
            "mean_score": float(found.scores.mean(dtype=np.float64)),
            "highest_score": float(found.scores.max()),
        },
    )


def write_vectors(
    examples: Sequence[TrainExample], encoder: TextEncoder, *, folder: Path
) -> Taught:
    """Write the teacher's vector of each text, which `loss=embedding_distillation` reads.

    A text has a vector as it stands and without outer whitespace, as students with either prompt
    look it up. A text that is a query and a passage has the vector of the query.

    Args:
        examples: read lazily, several times.
        encoder: of the teacher.
        folder: receives `VECTORS_FILE`, complete or not at all.

    Raises:
        UserError: a vector is not finite, or as the encoder raises.
    """
    pairs = TrainingPairs(examples)
    queries, passages = ExampleQueries(examples), TrainingPassages(pairs)
    parts, known = [], np.empty(0, dtype=np.int64)
    num_shared = 0
    for role, items in (("query", queries), ("document", passages)):
        vectors = encoder.encode(items, role, label=f"training {role} texts")  # type: ignore[arg-type]
        hashes, rows = _hashed(items)
        is_new = ~np.isin(hashes, known)
        num_shared += int((~is_new).sum())
        parts.append((hashes[is_new], _rows_of(vectors, rows[is_new], role)))  # type: ignore[arg-type]
        known = np.concatenate([known, hashes[is_new]])
    hashes = np.concatenate([part[0] for part in parts])
    order = np.argsort(hashes)
    embeddings = np.concatenate([part[1] for part in parts])[order]
    file = folder / VECTORS_FILE
    with replacing(file) as partial:
        write_hashed_vectors(partial, hashes=hashes[order], vectors=embeddings)
    return Taught(
        file=file,
        counts={
            "num_examples": len(examples),
            "num_texts": len(queries) + len(passages),
            "num_vectors": len(embeddings),
            "num_queries_that_are_passages": num_shared,
            "dim": embeddings.shape[1],
        },
    )


def _line(example: TrainExample, scores: NDArray[np.float32]) -> bytes:
    """Return a line of the form that `train_forms.TEXTS` describes."""
    of_positives, of_negatives = np.split(scores, [len(example.positives)])
    record: dict[str, Any] = {
        "query_id": example.query.query_id,
        "query": example.query.text,
        "positives": [_passage(each) for each in example.positives],
        "positive_scores": _numbers(of_positives),
        "negatives": [_passage(each) for each in example.hard_negatives],
        "negative_scores": _numbers(of_negatives),
    }
    if not example.hard_negatives:
        del record["negatives"], record["negative_scores"]
    if example.weight is not None:
        record["weight"] = example.weight
    try:
        return f"{json.dumps(record, ensure_ascii=False)}\n".encode()
    except UnicodeEncodeError:  # half a character
        return f"{json.dumps(record)}\n".encode()


def _passage(document: Document) -> dict[str, str]:
    title = {"title": document.title} if document.title else {}
    return {"docid": document.document_id, **title, "text": document.text}


def _numbers(scores: NDArray[np.float32]) -> list[float]:
    """Return the shortest decimals that read back as the same fp32 numbers."""
    return [float(str(score)) for score in scores]


def _hashed(items: Sequence[Query | Document]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the hash of each form of each text once, rising, and the first item that has it."""
    hashes, rows = array("q"), array("q")
    for row, item in enumerate(items):
        for text in _forms(item):
            hashes.append(text_hash(text))
            rows.append(row)
    found, first = np.unique(np.array(hashes, dtype=np.int64), return_index=True)
    return found, np.array(rows, dtype=np.int64)[first]


def _forms(item: Query | Document) -> Iterator[str]:
    """Yield the texts that a prompt may make of an item, without its template."""
    forms = {
        joined_text(item, strip=strip, keeps_empty_title=keeps)
        for strip in (False, True)
        for keeps in ((False, True) if isinstance(item, Document) else (False,))
    }
    yield from sorted(forms)


def _rows_of(vectors: Any, rows: NDArray[np.int64], role: Role) -> NDArray[np.float32]:
    """Return these rows of embeddings, fp32."""
    gathered = np.empty((len(rows), vectors.shape[1]), dtype=np.float32)
    for start in range(0, len(rows), NUM_VECTORS_AT_A_TIME):
        chosen = rows[start : start + NUM_VECTORS_AT_A_TIME]
        if isinstance(vectors, Tensor):
            found = vectors[torch.from_numpy(chosen)]
        else:
            found = vectors.choose(chosen)[:]
        gathered[start : start + len(chosen)] = found.float().numpy()
    wrong = np.flatnonzero(~np.isfinite(gathered).all(axis=1))
    if len(wrong):
        raise UserError(
            f"the teacher's vector of {role} {int(rows[wrong[0]])} is not finite ({len(wrong)} of "
            f"{len(rows)} texts). Fix: a teacher with finite weights, or model.dtype=float32"
        )
    return gathered
