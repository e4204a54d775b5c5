"""Embedding distillation against plain torch, and the files that are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from helpers.losses import assert_equal_with_gradients, ragged_inputs
from quarry.errors import UserError
from quarry.losses.embedding_distillation import EmbeddingDistillation
from quarry.losses.info_nce import InfoNCE
from quarry.losses.matryoshka import Matryoshka
from quarry.losses.teacher_vectors import TeacherVectors, write_teacher_vectors
from quarry.runtime.text_hash import text_hash
from quarry.types import TextHashes


def vectors_of(num_texts: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(0).normal(size=(num_texts, 8)).astype(np.float32)


@pytest.mark.parametrize("measure", ["mse", "cosine"])
def test_equals_plain_torch(tmp_path: Path, measure: Any) -> None:
    texts = [f"text {i}" for i in range(16)]
    vectors = vectors_of(16)
    write_teacher_vectors(tmp_path / "v.safetensors", texts=texts, vectors=vectors)
    hashes = torch.tensor([text_hash(text) for text in texts])
    given = TextHashes(queries=hashes[:5], passages=hashes[5:], answered=hashes[5:])
    inputs = ragged_inputs(hashes=given)
    wanted = torch.from_numpy(vectors).double()
    expected = torch.zeros((), dtype=torch.float64)
    for query in range(5):
        rows = (inputs.groups == query).nonzero().flatten()
        found = torch.cat([inputs.queries[query : query + 1], inputs.passages[rows]])
        target = torch.cat([wanted[query : query + 1], wanted[5:][rows]])
        if measure == "mse":
            distance = ((found - target) ** 2).mean(dim=1)
        else:
            cosine = (found * target).sum(dim=1) / found.norm(dim=1) / target.norm(dim=1)
            distance = 1 - cosine
        expected = expected + distance.mean() / 5
    loss = EmbeddingDistillation(vectors=str(tmp_path / "v.safetensors"), measure=measure)
    assert_equal_with_gradients(loss, inputs, expected)


def test_a_vector_is_found_by_its_text(tmp_path: Path) -> None:
    vectors = vectors_of(3)
    write_teacher_vectors(tmp_path / "v", texts=["b", "a", "b"], vectors=vectors)
    teacher = TeacherVectors(tmp_path / "v")
    known = np.array([text_hash(text) for text in ("a", "b", "c")])
    assert teacher.has(known).tolist() == [True, True, False]
    found = teacher.of(torch.from_numpy(known[:2]), like=torch.zeros(1))
    np.testing.assert_array_equal(found.numpy(), vectors[[1, 0]])


@pytest.mark.parametrize(
    "content",
    [
        {"embeddings": vectors_of(2)},
        {"hashes": np.array([2, 1]), "embeddings": vectors_of(2)},
        {"hashes": np.array([1, 2, 3]), "embeddings": vectors_of(2)},
        {"hashes": np.array([1]), "embeddings": np.full((1, 8), np.nan, dtype=np.float32)},
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: dict[str, Any]) -> None:
    save_file(content, str(tmp_path / "v"))
    with pytest.raises(UserError, match=r"loss\.vectors=.*(needs hashes|NaN)"):
        TeacherVectors(tmp_path / "v")


def test_what_is_no_file_and_what_cannot_be_cut_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"loss\.vectors=.*no such file"):
        EmbeddingDistillation(vectors=str(tmp_path / "none"))
    (tmp_path / "text").write_text("no vectors")
    with pytest.raises(UserError, match=r"loss\.vectors=.*no safetensors"):
        EmbeddingDistillation(vectors=str(tmp_path / "text"))
    write_teacher_vectors(tmp_path / "v", texts=["a"], vectors=vectors_of(1))
    inner = EmbeddingDistillation(vectors=str(tmp_path / "v"))
    with pytest.raises(UserError, match="cannot be inside Matryoshka"):
        Matryoshka(loss=inner, dims=[4])
    assert Matryoshka(loss=InfoNCE(temperature=1.0), dims=[4])
