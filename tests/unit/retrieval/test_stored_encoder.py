"""The store: each text encoded once, nothing damaged used, and mistakes that end in a message."""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from helpers.models import letter_tokenizer, tiny_bi_encoder
from helpers.stores import DIM, PROMPT, array, documents, stored, texts, tiny_encoder
from quarry.data.tokenization import TextTokenizer, TokenizedText
from quarry.errors import UserError
from quarry.models.bi_encoder import BiEncoder
from quarry.retrieval.dense import DenseRetriever
from quarry.retrieval.index.exact import ExactIndex
from quarry.retrieval.store import room, segment, vector_files
from quarry.retrieval.store.journal import Journal
from quarry.retrieval.stored_encoder import StoredEncoder
from quarry.types import Document, Query, RetrievalSet, Role

# fp32 sums of another batch's shape; vectors have length 1
OTHER_BATCHES = 1e-6


class Counted:
    """A store's encoder that counts the texts that its model and its tokenizer see."""

    def __init__(self, store: Path, *, dtype: str = "float32", max_tokens: int = 200) -> None:
        self.num_encoded = self.num_tokenized = 0
        counted = self

        class Tokenizer(TextTokenizer):
            def __call__(
                self, items: Sequence[Query | Document], role: Role
            ) -> list[TokenizedText]:
                counted.num_tokenized += len(items)
                return super().__call__(items, role)

        def count(_: BiEncoder, args: tuple[Any]) -> None:
            self.num_encoded += len(args[0])

        model = tiny_bi_encoder()
        model.register_forward_pre_hook(count)
        tokenizer = Tokenizer(tokenizer=letter_tokenizer(), prompt=PROMPT)
        encoder = tiny_encoder(model=model, tokenizer=tokenizer, max_tokens=max_tokens)
        self.encoder: StoredEncoder = stored(store, encoder=encoder, dtype=dtype)

    def encode(self, corpus: Sequence[Document], *, label: str = "corpus") -> np.ndarray:
        return array(self.encoder.encode(corpus, "document", label=label))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture(autouse=True)
def _small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine vectors a file: every segment has many, and batches lie across their borders."""
    monkeypatch.setattr(segment, "MAX_FILE_BYTES", 9 * DIM * 4 + 100)


def plainly_encoded(corpus: Sequence[Document]) -> np.ndarray:
    return tiny_encoder().encode(corpus, "document").numpy()


def segments(store: Path) -> list[Path]:
    return sorted(path.parent for path in store.glob("*/*/manifest.json"))


def test_the_bits_are_those_of_an_encoder_without_a_store(store: Path) -> None:
    corpus = documents(texts(150))
    expected = plainly_encoded(corpus)
    assert np.array_equal(Counted(store).encode(corpus), expected)
    assert np.array_equal(Counted(store).encode(corpus), expected)
    assert len(list(store.rglob("vectors-*.bin"))) == -(-150 // 9)


def test_equal_texts_are_encoded_once(store: Path) -> None:
    different = texts(100)
    corpus = documents(different + different[::-1] + different[:50])
    counted = Counted(store)
    found = counted.encode(corpus)
    assert (counted.num_encoded, counted.num_tokenized) == (100, 100)
    assert np.array_equal(found[:100], plainly_encoded(corpus[:100]))
    assert np.array_equal(found[100:200], found[:100][::-1])


def test_what_is_stored_is_not_even_tokenized(store: Path) -> None:
    corpus = documents(texts(100))
    expected = Counted(store).encode(corpus)
    counted = Counted(store, max_tokens=77)  # another plan finds the same texts
    assert np.array_equal(counted.encode(corpus[::-1]), expected[::-1])
    assert (counted.num_encoded, counted.num_tokenized) == (0, 0)


def test_texts_of_other_sets_are_taken_from_the_store(store: Path) -> None:
    fever, more = texts(120), texts(30, seed=1)
    Counted(store).encode(documents(fever), label="fever corpus")
    climate = documents([*more[:10], *fever[::2], *more[10:], *fever[:10]])
    counted = Counted(store)
    found = counted.encode(climate, label="climate corpus")
    assert counted.num_encoded == 30
    assert np.abs(found - plainly_encoded(climate)).max() <= OTHER_BATCHES
    assert len(segments(store)) == 2
    # a third set with texts of both
    again = Counted(store)
    mixed = documents(fever[100:] + more)
    assert np.abs(again.encode(mixed) - plainly_encoded(mixed)).max() <= OTHER_BATCHES
    assert again.num_encoded == 0


@pytest.mark.parametrize("changed", ["name", "dtype"])
def test_another_contract_finds_nothing(store: Path, changed: str) -> None:
    corpus = documents(texts(20))
    stored(store).encode(corpus, "document")
    other = {"name": {"name": "other"}, "dtype": {"dtype": "float16"}}[changed]
    stored(store, **other).encode(corpus, "document")
    assert len(segments(store)) == len({path.parent for path in segments(store)}) == 2


def test_half_precision(store: Path) -> None:
    corpus = documents(texts(30))
    found = Counted(store, dtype="float16").encode(corpus)
    assert found.dtype == np.float16
    assert np.array_equal(found, plainly_encoded(corpus).astype(np.float16))


def test_a_number_that_half_precision_cannot_hold(store: Path) -> None:
    encoder = tiny_encoder(model=tiny_bi_encoder())
    encoder.model.is_normalized = False
    encoder.model.pooling = lambda states, tokens: states[tokens.cu_seqlens[1:].long() - 1] * 1e6
    result = stored(store, encoder=encoder, dtype="float16")
    with pytest.raises(UserError, match=r"more than float16 can\. Set evaluation\.store_dtype="):
        result.encode(documents(["abc"]), "document")


def test_nothing_is_nothing(store: Path) -> None:
    assert Counted(store).encode([]).shape == (0, DIM)
    assert not store.exists()


def spoil(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def cut(path: Path, length: int) -> None:
    os.truncate(path, length)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "a flipped bit": lambda folder: spoil(folder / "vectors-00003.bin", 123),
    "a cut file": lambda folder: cut(folder / "vectors-00003.bin", 500),
    "an empty file": lambda folder: cut(folder / "vectors-00003.bin", 0),
    "a missing file": lambda folder: (folder / "vectors-00003.bin").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_vectors_are_found_said_once_and_redone(
    store: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    corpus = documents(texts(150))
    expected = Counted(store).encode(corpus)
    (folder,) = segments(store)
    DAMAGES[damage](folder)
    counted = Counted(store)
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(counted.encode(corpus), expected)
    (message,) = [record.getMessage() for record in caplog.records]
    assert str(folder) in message
    assert "is damaged: the vectors of" in message
    # the batches that the file has a part of
    assert 1 <= counted.num_encoded <= 40
    assert f"of {counted.num_encoded} texts" in message
    caplog.clear()
    again = Counted(store)
    assert np.array_equal(again.encode(corpus), expected)
    assert (again.num_encoded, caplog.records) == (0, [])


def restated(folder: Path, **more: object) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | more))


def test_only_what_is_taken_from_another_sets_segment_is_redone(store: Path) -> None:
    fever = texts(150)
    expected = Counted(store).encode(documents(fever))
    (folder,) = segments(store)
    spoil(folder / "vectors-00000.bin", 0)
    counted = Counted(store)
    found = counted.encode(documents(fever[:140]))
    assert 1 <= counted.num_encoded <= 30
    assert np.abs(found - expected[:140]).max() <= OTHER_BATCHES
    # and the first set, whose batch it was, has its own bits again
    assert np.abs(Counted(store).encode(documents(fever)) - expected).max() <= OTHER_BATCHES


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: spoil(folder / "texts.bin", 40),
        lambda folder: cut(folder / "texts.bin", 40),
        lambda folder: (folder / "texts.bin").unlink(),
        lambda folder: cut(folder / "manifest.json", 0),
        lambda folder: (folder / "manifest.json").write_text('{"format": 1}'),
        lambda folder: (folder / "manifest.json").write_text("[1]"),
        lambda folder: restated(folder, dtype="object"),
        lambda folder: restated(folder, dtype="float16"),
        lambda folder: restated(folder, dim=DIM + 1),
        lambda folder: (folder / "manifest.json").open("ab").truncate(2**30),
        lambda folder: (folder / "vectors-00000.bin").open("ab").truncate(2**40),
        lambda folder: (folder / "texts.bin").open("ab").truncate(2**40),
        lambda folder: (folder / "finished-1-a.bin").open("ab").truncate(2**40),
        lambda folder: os.mkfifo(folder / "vectors-99999.bin"),
        lambda folder: (folder / "vectors-99999.bin").mkdir(),
    ],
)
def test_a_segment_that_cannot_be_trusted_is_made_anew(
    store: Path, damage: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    corpus = documents(texts(50))
    expected = Counted(store).encode(corpus)
    (folder,) = segments(store)
    damage(folder)
    counted = Counted(store)
    assert np.array_equal(counted.encode(corpus), expected)
    assert counted.num_encoded == 50
    assert [str(folder) in record.getMessage() for record in caplog.records] == [True]
    again = Counted(store)
    assert np.array_equal(again.encode(corpus), expected)
    assert again.num_encoded == 0


def test_another_version_is_refused_with_a_remedy_and_nothing_is_lost(store: Path) -> None:
    corpus = documents(texts(20))
    Counted(store).encode(corpus)
    (folder,) = segments(store)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"format": 2}))
    before = {path: path.read_bytes() for path in store.rglob("*.*")}
    counted = Counted(store)
    with pytest.raises(UserError) as caught:
        counted.encode(corpus)
    message = str(caught.value)
    for part in (str(folder), "format 2", "reads and writes 1", "Delete", "paths.store_dir=DIR"):
        assert part in message
    assert counted.num_encoded == 0
    assert {path: path.read_bytes() for path in store.rglob("*.*")} == before


def with_free_space(monkeypatch: pytest.MonkeyPatch, num_bytes: int) -> None:
    usage = SimpleNamespace(free=num_bytes)
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: usage)


def test_an_index_larger_than_the_disk_is_refused_before_it_is_begun(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = documents(texts(100))
    needed = 100 * (DIM * 4 + 16)
    with_free_space(monkeypatch, needed - 1)
    counted = Counted(store)
    with pytest.raises(UserError) as caught:
        counted.encode(corpus, label="fever corpus")
    message = str(caught.value)
    for part in (
        "fever corpus (100 texts x 32 float32) need 14.1 KiB", "has 14.1 KiB free",
        "paths.store_dir=DIR", "evaluation.store_dtype=float16", "evaluation.store=false",
    ):  # fmt: skip
        assert part in message
    assert (counted.num_encoded, counted.num_tokenized) == (0, 0)
    with_free_space(monkeypatch, needed)
    assert np.array_equal(Counted(store).encode(corpus), plainly_encoded(corpus))


def test_room_is_asked_for_what_is_still_to_be_written(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = documents(texts(100))
    expected = plainly_encoded(corpus)
    full_after(monkeypatch, num_writes=8)
    with pytest.raises(UserError):
        Counted(store).encode(corpus)
    monkeypatch.undo()
    with_free_space(monkeypatch, 90 * (DIM * 4 + 16))
    assert np.array_equal(Counted(store).encode(corpus), expected)


def full_after(monkeypatch: pytest.MonkeyPatch, *, num_writes: int) -> None:
    """The disk takes so many writes, then half of one, then no more."""
    pwrite, num_left = vector_files.os.pwrite, [num_writes]

    def write(file: int, data: memoryview, offset: int) -> int:
        num_left[0] -= 1
        if num_left[0] == -1:
            return pwrite(file, data[: len(data) // 2], offset)
        if num_left[0] < -1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return pwrite(file, data, offset)

    monkeypatch.setattr(vector_files.os, "pwrite", write)


def test_a_disk_that_becomes_full_leaves_what_was_finished(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = documents(texts(100))
    full_after(monkeypatch, num_writes=20)
    with pytest.raises(UserError) as caught:
        Counted(store).encode(corpus)
    for part in ("became full (No space left on device)", "are kept", "paths.store_dir=DIR"):
        assert part in str(caught.value)
    monkeypatch.undo()
    counted = Counted(store)
    assert np.array_equal(counted.encode(corpus), plainly_encoded(corpus))
    assert 0 < counted.num_encoded < 90


def test_a_call_that_goes_on_keeps_its_own_bits_whatever_others_have_stored_since(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = texts(100)
    full_after(monkeypatch, num_writes=20)
    with pytest.raises(UserError):
        Counted(store).encode(documents(words))
    monkeypatch.undo()
    num_segments = 6
    for number in range(num_segments):  # by a model that is not quite the same
        other = tiny_encoder()
        with torch.no_grad():
            other.model.backbone.norm.weight[0] *= 1.5
        stored(store, encoder=other).encode(documents(words[80 + number : 81 + number]), "document")
    assert len(segments(store)) > 1
    assert np.array_equal(
        Counted(store).encode(documents(words)), plainly_encoded(documents(words))
    )


def test_a_full_disk_may_show_in_the_journal_first(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def add(*_: object) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(Journal, "add", add)
    with pytest.raises(UserError, match=r"became full \(Disk quota exceeded\)"):
        Counted(store).encode(documents(["abc"]))


def test_a_complete_store_is_read_without_writing_or_locking(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = documents(texts(40))
    expected = Counted(store).encode(corpus)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    monkeypatch.setattr(vector_files.os, "pwrite", refuse)
    counted = Counted(store)
    assert np.array_equal(counted.encode(corpus[5:]), expected[5:])
    with pytest.raises(UserError) as caught:
        counted.encode(documents(["new"]), label="scifact corpus")
    for part in ("Read-only file system", "not all embeddings of scifact corpus", "store=false"):
        assert part in str(caught.value)
    assert counted.num_encoded == 0


def test_a_disk_that_forgets_ends_in_a_message(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_files, "write_all", lambda *_: None)
    with pytest.raises(UserError, match="does not hold what was just written"):
        Counted(store).encode(documents(texts(5)))


def test_the_store_can_be_deleted_at_any_time(store: Path) -> None:
    corpus = documents(texts(20))
    counted = Counted(store)
    expected = counted.encode(corpus)
    for path in sorted(store.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    assert np.array_equal(counted.encode(corpus), expected)
    assert counted.num_encoded == 40


def test_the_folder_says_what_it_holds(store: Path) -> None:
    Counted(store).encode(documents(texts(20)), label="scifact corpus")
    (folder,) = segments(store)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["what"] == "scifact corpus"
    assert manifest["num_texts"] == 20
    assert manifest["made_by"] == {"torch": str(torch.__version__)}
    contract = json.loads((folder.parent / "contract.json").read_text())
    assert contract == {"model": "tiny", "role": "document", "dim": DIM, "store_dtype": "float32"}


def test_retrieval_over_the_store_equals_retrieval_in_memory(store: Path) -> None:
    """Several segments, documents that are equal, and one query that is a document."""
    words = texts(90)
    dataset = RetrievalSet(
        name="letters",
        queries=[Query(query_id=f"q{i}", text=text) for i, text in enumerate(words[:9])],
        corpus=documents([*words[20:], *words[:60]]),
        qrels={},
    )
    Counted(store).encode(documents(words[:30]))
    retriever = DenseRetriever(index=ExactIndex(num_documents_per_chunk=32))
    found = retriever.retrieve(dataset, top_k=130, encoder=Counted(store).encoder)
    expected = retriever.retrieve(dataset, top_k=130, encoder=tiny_encoder())
    corpus = dataset.corpus
    for query_id, scores in found.items():
        assert scores == pytest.approx(expected[query_id], abs=OTHER_BATCHES)
        of_text: dict[str, set[float]] = {}
        for document_id, score in scores.items():
            of_text.setdefault(corpus[int(document_id[1:])].text, set()).add(score)
        assert len(of_text) == 90
        assert all(len(scores) == 1 for scores in of_text.values())
