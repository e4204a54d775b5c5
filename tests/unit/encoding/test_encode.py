"""task=encode makes the vectors of the model, once, and refuses what is of another command."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hydra import initialize_config_dir

from helpers.commands import ROOT
from helpers.encoding import configured, encode, write_corpus
from quarry.assembly.loaded_encoder import PreparedEncoder, load_encoder
from quarry.config.schema import register_schemas
from quarry.data.document_source import find_source
from quarry.encoding import block_encoder, work_folder
from quarry.encoding.block_encoder import BlockEncoder
from quarry.encoding.encode import Output, encode_corpus
from quarry.encoding.manifest import MANIFEST, digest_of
from quarry.encoding.status import shown_status, status_of
from quarry.encoding.vector_folder import VectorFolder
from quarry.errors import UserError
from quarry.runtime import disk_errors, ownership
from quarry.types import Document, Query


@pytest.fixture(scope="module", autouse=True)
def _conf() -> Iterator[None]:
    torch.set_num_threads(1)
    register_schemas()
    with initialize_config_dir(config_dir=str(ROOT / "conf"), version_base="1.3"):
        yield


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a corpus of 342 texts, and its vectors in `v` as one process makes them."""
    folder = tmp_path_factory.mktemp("encode")
    write_corpus(folder / "corpus.jsonl", 300)
    encode(folder, *call(folder, "v"))
    return folder


def call(home: Path, output: str, *more: str) -> tuple[str, ...]:
    return (
        f"task.corpus={home / 'corpus.jsonl'}", f"task.output={home / output}",
        "task.block_size=100", *more,
    )  # fmt: skip


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_vectors_are_those_of_the_model(home: Path) -> None:
    folder = VectorFolder.open(home / "v")
    folder.verify()
    rows = [json.loads(line) for line in (home / "corpus.jsonl").read_text().splitlines()]
    documents = [Document(document_id=row["_id"], text=row["text"]) for row in rows]
    expected = load_encoder(configured(home)).encoder.encode(documents, "document")
    assert list(folder.ids) == [row["_id"] for row in rows]
    # batches differ from those of one call over all texts, and with them the last bits
    torch.testing.assert_close(folder.embeddings[0:343], expected, atol=1e-5, rtol=0)
    assert [block.num_texts for block in folder.manifest.blocks] == [100, 100, 100, 43]


def test_the_manifest_says_what_it_is_of(home: Path) -> None:
    content = json.loads((home / "v" / MANIFEST).read_text())
    config = configured(home)
    contract = load_encoder(config).embedding_contract(config)
    assert content["contract_digests"] == {role: digest_of(each) for role, each in contract.items()}
    assert content["source"]["corpus"] == str(home / "corpus.jsonl")
    assert content["plan"] == {"block_size": 100, "max_tokens_per_batch": 200}
    assert content["model"] == str(home / "tiny")
    assert {"quarry", "torch"} <= content["versions"].keys()


@pytest.fixture
def no_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object, **__: object) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(PreparedEncoder, "load", load)


@pytest.mark.usefixtures("no_loading")
def test_what_is_done_is_done_without_loading_weights(home: Path) -> None:
    before = contents(home / "v")
    found = encode(home, *call(home, "v", "task.overwrite=true"))
    assert found["encode/num_encoded"] == 0
    assert found["encode/num_texts"] == 343
    assert contents(home / "v") == before


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["task.dtype=float16"], "task.dtype: float32, not float16"),
        (["task.format=npy"], "task.format: parquet, not npy"),
        (["task.role=query"], "task.role: document, not query"),
        (['prompt.document="P:{text}"'], "model or prompt"),
        (["task.splitter.unit=words", "task.splitter.size=300"], "corpus"),
        (["task.shard=0/2"], "vectors that are not in shards"),
    ],
)
@pytest.mark.usefixtures("no_loading")
def test_an_output_of_another_command_is_refused(
    home: Path, more: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    says(monkeypatch, *more)
    with pytest.raises(UserError, match=f"task.output=.*{message}.*Fix: "):
        encode(home, *call(home, "v", *more))
    assert not list(home.glob(".*.partial"))


def says(monkeypatch: pytest.MonkeyPatch, *overrides: str) -> None:
    """Makes them explicit, as on a command line: a model's own prompt gives way to them."""
    keys = [override.partition("=")[0] for override in overrides]
    monkeypatch.setattr("quarry.assembly.model_parts.explicit_keys", lambda: keys)


def test_overwriting_replaces_and_leaves_nothing_of_the_old(home: Path) -> None:
    shutil.copytree(home / "v", home / "old")
    encode(home, *call(home, "old", "task.format=npy", "task.dtype=float16", "task.overwrite=true"))
    folder = VectorFolder.open(home / "old")
    folder.verify()
    expected = VectorFolder.open(home / "v").embeddings[0:343].half()
    assert torch.equal(folder.embeddings[0:343], expected)
    assert len(list((home / "old").iterdir())) == 1 + 2 * 4
    assert not [path for path in home.iterdir() if path.name.startswith(".")]


def test_queries_are_encoded_as_queries(home: Path) -> None:
    encode(home, *call(home, "q", "task.role=query", "evaluation.store=false"))
    folder = VectorFolder.open(home / "q")
    rows = [json.loads(line) for line in (home / "corpus.jsonl").read_text().splitlines()]
    queries = [Query(query_id=row["_id"], text=row["text"]) for row in rows]
    expected = load_encoder(configured(home)).encoder.encode(queries, "query")
    torch.testing.assert_close(folder.embeddings[0:343], expected, atol=1e-5, rtol=0)


def test_a_change_that_sizes_do_not_tell_is_noticed(home: Path, tmp_path: Path) -> None:
    """As in the middle of a large file, of which the digest has both ends."""
    rows = [{"_id": f"f{i}", "text": "x" * (i + 1) + " " * 3000} for i in range(59)]
    corpus = tmp_path / "large.jsonl"
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = (f"task.corpus={corpus}", f"task.output={tmp_path / 'v'}")
    encode(home, *own)
    content = corpus.read_text()
    corpus.write_text(content)  # as it was, and touched
    assert encode(home, *own)["encode/num_encoded"] == 0
    corpus.write_text(content.replace('"f29", "text": "x', '"f29", "text": "y'))
    with pytest.raises(UserError, match="corpus was changed since.*task.overwrite=true"):
        encode(home, *own)
    before = VectorFolder.open(tmp_path / "v").embeddings[0:59]
    assert encode(home, *own, "task.overwrite=true")["encode/num_encoded"] == 59
    after = VectorFolder.open(tmp_path / "v").embeddings[0:59]
    assert (before != after).any(dim=1).nonzero().flatten().tolist() == [29]


def test_texts_that_are_truncated_are_counted(home: Path) -> None:
    limits = ("prompt.max_document_length=20", f"task.output={home / 't'}")
    encode(home, f"task.corpus={home / 'corpus.jsonl'}", *limits)
    rows = [json.loads(line) for line in (home / "corpus.jsonl").read_text().splitlines()]
    number = sum(len(row["text"]) > 19 for row in rows)  # a token each letter, and the end token
    assert VectorFolder.open(home / "t").manifest.caveats == (
        f"{number} of 343 texts looked at are longer than prompt.max_document_length=20 tokens and "
        "are truncated",
    )


def test_a_second_process_on_an_output_is_refused(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ownership, "ENDS_S", 0.0)
    partial = home / ".two.partial"
    partial.mkdir()
    with (partial / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match=r"\.two\.partial: another process"):
            encode(home, *call(home, "two"))
    assert encode(home, *call(home, "two"))["encode/num_texts"] == 343


class _KilledError(Exception):
    """Stands for a process that dies."""


def test_a_killed_call_continues_with_the_block_that_was_open(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []
    write = block_encoder.write_block

    def dying(folder: Path, number: int, **more: Any) -> object:
        encoded.append(number)
        if number == 2 and encoded.count(2) == 1:
            raise _KilledError
        return write(folder, number, **more)

    monkeypatch.setattr(block_encoder, "write_block", dying)
    with pytest.raises(_KilledError):
        encode(home, *call(home, "k"))
    partial = home / ".k.partial"
    (partial / f".vectors-00002.parquet.{os.getpid()}.tmp").write_text("half of it")
    assert not (home / "k").exists()
    (state,) = status_of(home / "k").folders
    assert (state.state, state.what) == ("open", "2 of 4 blocks are done")
    first = partial / "vectors-00000.parquet"
    first.write_bytes(first.read_bytes()[:-1] + b"?")  # damaged: its checksum says so
    with pytest.raises(UserError, match=r"unfinished work of another command .*dtype"):
        encode(home, *call(home, "k", "task.dtype=float16"))
    assert encode(home, *call(home, "k"))["encode/num_encoded"] == 243
    assert encoded == [0, 1, 2, 0, 2, 3]
    assert contents(home / "k") == contents(home / "v")
    assert not partial.exists()


@pytest.mark.parametrize("more", [(), ("task.overwrite=true",)])
def test_a_call_killed_before_the_last_rename_is_finished_by_the_next(
    home: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]
) -> None:
    if more:  # what is replaced
        shutil.rmtree(home / "n", ignore_errors=True)
        encode(home, *call(home, "n", "task.dtype=float16"))
    with monkeypatch.context() as patched:
        patched.setattr(
            work_folder.WorkFolder,
            "put_in_place",
            lambda *_, **__: (_ for _ in ()).throw(_KilledError),
        )
        with pytest.raises(_KilledError):
            encode(home, *call(home, "n", *more))
    assert encode(home, *call(home, "n", *more))["encode/num_encoded"] == 0
    assert contents(home / "n") == contents(home / "v")


def test_blocks_do_not_depend_on_what_others_have_stored_since(home: Path) -> None:
    """In any order, and each in a process of its own, the bits are those of one process."""
    jobs: list[Any] = []

    def backwards(job: Any, numbers: list[int], prepared: PreparedEncoder) -> Any:
        jobs.append(job)
        return ((n, BlockEncoder(job, prepared).encode(n)) for n in reversed(numbers))

    config = configured(home, f"paths.store_dir={home / 'other_store'}")
    reader = find_source(str(home / "corpus.jsonl"))
    output = Output(
        path=home / "b", role="document", file_format="parquet", dtype="float32", block_size=100,
        overwrite=False,
    )  # fmt: skip
    encode_corpus(config, reader, output, engine=backwards)
    assert contents(home / "b") == contents(home / "v")
    assert jobs[0].segments == ()


def test_texts_that_the_store_has_are_not_encoded_again(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    more = home / "more.jsonl"
    content = (home / "corpus.jsonl").read_text()
    more.write_text(content + '{"_id": "new", "text": "an addition"}\n')
    encode(home, f"task.corpus={more}", f"task.output={home / 'more'}")
    assert "encoding 1 of 1 texts" in caplog.text


def test_shards_make_up_the_corpus_and_know_their_state(home: Path) -> None:
    (home / "few.jsonl").write_text(
        "".join((home / "corpus.jsonl").read_text().splitlines(True)[:9])
    )
    few = (f"task.corpus={home / 'few.jsonl'}", f"task.output={home / 's'}")
    for number in (2, 0, 1):
        encode(home, *few, f"task.shard={number}/4")
    assert status_of(home / "s").result_line == "done=3 open=0 damaged=0 missing=1"
    with pytest.raises(UserError, match="1 of 4 shards are missing or not finished: 3/4"):
        VectorFolder.open(home / "s")
    encode(home, *few, "task.shard=3/4")
    folder = VectorFolder.open(home / "s")
    folder.verify()
    assert list(folder.ids) == [f"d{i}" for i in range(9)]
    expected = VectorFolder.open(home / "v").embeddings[0:9]
    torch.testing.assert_close(folder.embeddings[0:9], expected, atol=1e-5, rtol=0)
    with pytest.raises(UserError, match="holds shards of another number"):
        encode(home, *few, "task.shard=0/3")
    with pytest.raises(UserError, match="holds shards. Fix: task.shard"):
        encode(home, *few)
    file = home / "s" / "shard-00001-of-00004" / "vectors-00000.parquet"
    file.write_bytes(file.read_bytes()[:-9])
    assert encode(home, *few, "task.status=true")["encode/num_damaged"] == 1
    assert "1/4  damaged" in shown_status(home / "s", status_of(home / "s"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["task.output=null"], "task.output is not set"),
        (["task.corpus=null"], "task.corpus is not set"),
        (["task.shard=4/4"], "task.shard=4/4: out of range"),
        (["task.shard=3"], "task.shard=3: is no NUMBER/COUNT"),
        (["task.format=csv"], "task.format=.*csv"),
        (["task.dtype=int8"], "task.dtype=.*int8"),
        (["task.engine=dask"], "task.engine=.*dask"),
        (["task.num_workers=2"], "task.num_workers=2: has no effect"),
        (["task.block_size=0"], "task.block_size=0"),
        (["task.splitter.size=20", "task.splitter.overlap=20"], "task.splitter.overlap=20: "),
        (["task.splitter.size=200"], "task.splitter.size=200: has no effect on a table"),
        (["task.splitter.unit=letters"], "task.splitter.unit=.*letters"),
        (["evaluation.store_dtype=float16"], "task.dtype=float32: evaluation.store_dtype=float16"),
    ],
)
@pytest.mark.usefixtures("no_loading")
def test_values_that_cannot_be_meant_are_refused(home: Path, more: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        encode(home, *call(home, "x", *more))
    assert not (home / "x").exists()
    assert not list(home.glob(".x*"))


@pytest.mark.usefixtures("no_loading")
def test_places_that_cannot_be_written_to_are_refused(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="corpus.jsonl exists and is no folder of vectors"):
        encode(home, *call(home, "corpus.jsonl", "task.overwrite=true"))
    (home / "mine").mkdir(exist_ok=True)
    (home / "mine" / "thesis.txt").write_text("work of years")
    with pytest.raises(UserError, match="is no folder of vectors"):
        encode(home, *call(home, "mine", "task.overwrite=true"))
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(UserError, match="lies in the corpus"):
        encode(home, f"task.corpus={tmp_path}", f"task.output={tmp_path / 'out'}")
    monkeypatch.setattr(disk_errors.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(UserError, match="output of 343 texts.*has 1.0 KiB free"):
        encode(home, *call(home, "x"))
    assert not list(home.glob(".x*"))


def test_a_disk_that_fills_keeps_finished_blocks(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = block_encoder.write_block

    def full(folder: Path, number: int, **more: Any) -> object:
        if number == 1:
            raise OSError(28, "No space left on device", str(folder / "vectors-00001.parquet"))
        return write(folder, number, **more)

    with monkeypatch.context() as patched:
        patched.setattr(block_encoder, "write_block", full)
        with pytest.raises(UserError, match="the output, .* became full.*task.output=DIR.*kept"):
            encode(home, *call(home, "f"))
    assert encode(home, *call(home, "f"))["encode/num_encoded"] == 243
    assert contents(home / "f") == contents(home / "v")
