"""Where a corpus lies changes no bit of a ranking; in float16 it changes them by rounding alone."""

from __future__ import annotations

import errno
import gc
import logging
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import numpy as np
import pytest
import torch

from helpers.models import tiny_bi_encoder
from helpers.stores import array, documents, texts, tiny_encoder
from quarry.errors import UserError
from quarry.retrieval import corpus_embeddings
from quarry.retrieval.corpus_embeddings import (
    CorpusStorage,
    DiskCorpus,
    MemoryCorpus,
    exceeds_memory,
)
from quarry.retrieval.dense import DenseRetriever
from quarry.retrieval.index.exact import ExactIndex
from quarry.retrieval.store import room, vector_files
from quarry.retrieval.unique_encoder import UniqueEncoder
from quarry.types import Query, RetrievalSet, Run


def collection() -> RetrievalSet:
    different = texts(300)
    queries = [Query(query_id=f"q{i}", text=text) for i, text in enumerate(texts(30, seed=2))]
    corpus = documents([*different, *different[:40]])  # equal texts tie
    qrels = {query.query_id: {"d0": 1} for query in queries}
    return RetrievalSet(name="tiny", queries=queries, corpus=corpus, qrels=qrels)


def ranked(storage: CorpusStorage | None) -> Run:
    retriever = DenseRetriever(index=ExactIndex(num_documents_per_chunk=32))
    encoder = UniqueEncoder(encoder=tiny_encoder(), storage=storage)
    return retriever.retrieve(collection(), top_k=20, encoder=encoder)


def mapped(folder: Path) -> set[str]:
    """The files in a folder that this process maps or has open, removed ones, too."""
    if not Path("/proc/self/maps").exists():
        return set()
    lines = Path("/proc/self/maps").read_text().splitlines()
    names = [line.split(maxsplit=5)[-1] for line in lines if str(folder) in line]
    for link in Path("/proc/self/fd").iterdir():
        try:
            names.append(str(link.readlink()))
        except FileNotFoundError:
            continue
    return {name for name in names if name.startswith(str(folder))}


@pytest.mark.parametrize("on_disk", [True, False])
def test_rankings_are_the_same_to_the_bit_wherever_the_corpus_is(
    on_disk: bool, tmp_path: Path
) -> None:
    expected, found = ranked(None), ranked(CorpusStorage(folder=tmp_path, on_disk=on_disk))
    assert found == expected
    assert [list(scores) for scores in found.values()] == [list(s) for s in expected.values()]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("on_disk", [True, False])
def test_float16_moves_scores_by_its_rounding_and_rankings_hardly(
    on_disk: bool, tmp_path: Path
) -> None:
    """Numbers of a normalised embedding are rounded by 2^-11 of themselves at most, so a score of
    two of them moves by at most 2^-11 times the sum of |q_i d_i|, which is at most 1."""
    expected = ranked(None)
    found = ranked(CorpusStorage(folder=tmp_path, on_disk=on_disk, dtype="float16"))
    assert found != expected
    common = 0
    for query_id, scores in expected.items():
        both = scores.keys() & found[query_id].keys()
        common += len(both)
        for document_id in both:
            assert found[query_id][document_id] == pytest.approx(scores[document_id], abs=2**-11)
    # documents change places only where their scores are closer than twice that
    assert common >= 0.95 * sum(map(len, expected.values()))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_both_places_give_the_same_rows_in_the_order_of_the_corpus(
    dtype: str, tmp_path: Path
) -> None:
    rows = torch.randn(10, 4)
    places = [
        MemoryCorpus(num_texts=12, dim=4, dtype=dtype, what="c"),
        DiskCorpus(tmp_path, dim=4, dtype=dtype, what="c"),
    ]
    for place in places:
        for items in ([7, 1, 11], [0], [4, 3, 2, 9, 10, 5]):  # as batches come, 6 and 8 elsewhere
            place.add(np.array(items), rows[: len(items)] + items[0])
    first, second = (place.share() for place in places)
    assert first.items.tolist() == second.items.tolist() == [0, 1, 2, 3, 4, 5, 7, 9, 10, 11]
    assert first.embeddings.dtype == second.embeddings.dtype == getattr(torch, dtype)
    assert np.array_equal(array(first.embeddings), array(second.embeddings))
    assert torch.equal(second.embeddings[6:7], (rows[:1] + 7).to(second.embeddings.dtype))
    assert second.embeddings.choose(np.array([9, 0])).shape == (2, 4)


def test_a_rank_without_a_text_has_an_empty_share(tmp_path: Path) -> None:
    share = DiskCorpus(tmp_path, dim=4, dtype="float32", what="c").share()
    assert (len(share.items), share.embeddings.shape) == (0, (0, 4))


def test_the_file_is_gone_with_the_encoder_and_never_are_there_two(tmp_path: Path) -> None:
    if not Path("/proc/self/maps").exists():
        pytest.skip("needs /proc")
    storage = CorpusStorage(folder=tmp_path, on_disk=True)
    encoder = UniqueEncoder(encoder=tiny_encoder(), storage=storage)
    encoder.encode_share(documents(texts(40)), "document")
    assert len(mapped(tmp_path)) == 1
    encoder.encode_share(documents(texts(40, seed=1)), "document")
    gc.collect()
    assert len(mapped(tmp_path)) == 1
    assert list(tmp_path.iterdir()) == []  # it has no name from the beginning
    del encoder
    gc.collect()
    assert mapped(tmp_path) == set()


def test_a_killed_process_leaves_nothing(tmp_path: Path) -> None:
    code = f"""
        import os, signal, numpy, torch
        from pathlib import Path
        from quarry.retrieval.corpus_embeddings import DiskCorpus
        place = DiskCorpus(Path({str(tmp_path)!r}), dim=4, dtype="float32", what="c")
        place.add(numpy.arange(3), torch.zeros(3, 4))
        assert os.fstat(place._file.fileno()).st_size == 48
        os.kill(os.getpid(), signal.SIGKILL)
    """
    process = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False)
    assert process.returncode == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("on_disk", "available", "kind", "why"),
    [
        ("auto", 4 * 100 * 32 * 4 - 1, DiskCorpus, "more than 25% of the 50.0 KiB of memory"),
        ("auto", 4 * 100 * 32 * 4, MemoryCorpus, "at most 25% of the 50.0 KiB of memory"),
        (True, 2**40, DiskCorpus, "evaluation.corpus_on_disk=true"),
        (False, 1, MemoryCorpus, "evaluation.corpus_on_disk=false"),
    ],
)
def test_the_place_follows_from_the_memory_and_one_line_says_why(
    on_disk: bool | Literal["auto"],
    available: int,
    kind: type,
    why: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    memory = SimpleNamespace(available=available)
    monkeypatch.setattr(corpus_embeddings.psutil, "virtual_memory", lambda: memory)
    caplog.set_level(logging.INFO)
    storage = CorpusStorage(folder=tmp_path, on_disk=on_disk)
    for _ in range(2):  # of the next evaluation nothing new is to be said
        assert type(storage.open(num_texts=100, dim=32, what="tiny corpus")) is kind
    (line,) = caplog.messages
    assert line.startswith("tiny corpus (100 texts x 32 float32): 12.5 KiB of embeddings ")
    where = f"on disk, in {tmp_path}" if kind is DiskCorpus else "in memory"
    assert f"{where}: {why}" in line


@pytest.mark.parametrize(
    ("ranks", "num_bytes", "expected"),
    [
        ([("a", 400)] * 2, 100, (False, 400)),
        ([("a", 400)] * 2, 101, (True, 400)),
        ([("a", 400), ("b", 400)], 200, (False, 400)),  # each node holds half of it
        ([("a", 400), ("b", 396)], 200, (True, 396)),
        ([("a", 400), ("a", 400), ("b", 150)], 120, (True, 150)),
    ],
)
def test_the_ranks_of_a_node_share_its_memory(
    ranks: list[tuple[str, int]], num_bytes: int, expected: tuple[bool, int]
) -> None:
    assert exceeds_memory(num_bytes, ranks) == expected


def test_a_disk_that_is_too_small_is_told_before_anything_is_encoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = SimpleNamespace(free=100 * 32 * 4 - 1)
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: usage)
    model, passes = tiny_bi_encoder(), []
    model.register_forward_pre_hook(lambda *_: passes.append(1))
    for dtype, is_refused in (("float32", True), ("float16", False)):
        storage = CorpusStorage(folder=tmp_path, on_disk=True, dtype=dtype)
        encoder = UniqueEncoder(encoder=tiny_encoder(model=model), storage=storage)
        if not is_refused:
            encoder.encode_share(documents(texts(100)), "document", label="msmarco corpus")
            continue
        with pytest.raises(UserError) as caught:
            encoder.encode_share(documents(texts(100)), "document", label="msmarco corpus")
        for part in (
            "msmarco corpus (100 texts x 32 float32) need 12.5 KiB", f"in {tmp_path}",
            "12.5 KiB free", "hydra.run.dir=DIR", "evaluation.corpus_dtype=float16",
            "evaluation.corpus_on_disk=false",
        ):  # fmt: skip
            assert part in str(caught.value)
        assert passes == []


def test_a_disk_that_becomes_full_is_one_message_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite, num_left = os.pwrite, [5]

    def write(file: int, data: memoryview, offset: int) -> int:
        num_left[0] -= 1
        if num_left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return pwrite(file, data, offset)

    monkeypatch.setattr(vector_files.os, "pwrite", write)
    model = tiny_bi_encoder().train()
    storage = CorpusStorage(folder=tmp_path, on_disk=True)
    encoder = UniqueEncoder(encoder=tiny_encoder(model=model), storage=storage)
    with pytest.raises(UserError) as caught:
        encoder.encode_share(documents(texts(100)), "document", label="msmarco corpus")
    for part in ("became full (No space left on device)", "msmarco corpus", "None of them is left"):
        assert part in str(caught.value)
    assert mapped(tmp_path) == set(tmp_path.iterdir()) == set()
    assert model.training, "the encoder has ended in order"
    monkeypatch.undo()
    assert len(encoder.encode_share(documents(texts(100)), "document").items) == 100


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot be written to .*evaluation\.corpus_on_disk=false"):
        DiskCorpus(tmp_path / "file", dim=4, dtype="float32", what="c")


def test_a_number_that_float16_cannot_hold_is_refused(tmp_path: Path) -> None:
    for place in (
        MemoryCorpus(num_texts=1, dim=1, dtype="float16", what="c"),
        DiskCorpus(tmp_path, dim=1, dtype="float16", what="c"),
    ):
        with pytest.raises(UserError, match=r"holds 7e\+04, more than float16 can.*corpus_dtype="):
            place.add(np.array([0]), torch.tensor([[7e4]]))
