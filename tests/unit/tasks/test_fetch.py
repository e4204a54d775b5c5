"""task=fetch on a hub of this machine: what is listed, what comes, and what does not."""

from __future__ import annotations

import json
import shutil
import socket
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import constants
from omegaconf import DictConfig

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "config"))
from configurations import composed, opened

from helpers.adapters import adapter_folder, base_folder
from helpers.hub_repos import write_lines, write_mteb
from helpers.hub_server import (
    TOKEN,
    StandInHub,
    commit_of,
    go_online,
    large_copies,
    served_hub,
    use_hub,
)
from helpers.models import tiny_folder
from helpers.rerankers import classifier_folder
from quarry.config.instantiate import build
from quarry.data.msmarco import HUB_FILE, HUB_ID
from quarry.errors import UserError
from quarry.models.backbones.fingerprint import weights_digest
from quarry.models.backbones.model_files import is_unknown
from quarry.runtime import hub_fetching
from quarry.runtime.hub_files import grouped
from quarry.runtime.hub_listing import list_in_cache
from quarry.sweep.listing import composed_sweep
from quarry.sweep.start import StudyStart
from quarry.tasks.fetch import fetch
from quarry.tasks.fetch_needs import hub_files_of
from quarry.tasks.fetch_page import readable_size

pytestmark = pytest.mark.timeout(60)

MODEL = "model.path=acme/tiny"
SET = ("benchmark=hub", "benchmark.repo=acme/facts")
WEIGHTS = "model.safetensors"
TINY_FILES = ["config.json", WEIGHTS, "tokenizer.json", "tokenizer_config.json"]
FACTS = ["README.md", "corpus.jsonl", "qrels/test.jsonl", "qrels/train.jsonl", "queries.jsonl"]


@pytest.fixture(scope="module", autouse=True)
def _conf() -> Iterator[None]:
    with opened():
        yield


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in all forms, its adapter, and a test collection."""
    root = tmp_path_factory.mktemp("hub")
    large_copies(tiny_folder(root / "tiny"))
    write_mteb(root / "facts")
    base = base_folder(root / "base")
    adapter_folder(root / "adapter", base)
    config = root / "adapter" / "adapter_config.json"
    settings = json.loads(config.read_text()) | {"base_model_name_or_path": "acme/base"}
    config.write_text(json.dumps(settings))
    return root


@pytest.fixture
def hub(tmp_path: Path, folders: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInHub]:
    def shown(*paragraphs: str, result_line: str) -> None:
        print(*paragraphs, result_line, sep="\n")

    monkeypatch.setattr("quarry.tasks.fetch.show", shown)
    with served_hub() as served:
        use_hub(monkeypatch, served, tmp_path / "cache")
        served.add("acme/tiny", folders / "tiny")
        served.add("acme/facts", folders / "facts", kind="datasets")
        yield served


@cache
def evaluation(*overrides: str) -> DictConfig:
    """Return a configuration, which nothing here changes."""
    return composed("eval", "task=fetch", *overrides)


@cache
def training(*overrides: str) -> DictConfig:
    return composed("train", "task=fetch", "model=local", MODEL, *overrides)


def refused(config: DictConfig) -> str:
    with pytest.raises(UserError) as caught:
        fetch(config)
    return str(caught.value)


def snapshot(tmp_path: Path, name: str, commit: str = "") -> Path:
    folder = tmp_path / "cache" / name.replace("/", "--") / "snapshots"
    return folder / (commit or commit_of(name.partition("--")[2]))


def cached(tmp_path: Path, name: str, commit: str = "") -> list[str]:
    """Return the files of a repository ("models--acme/tiny") in the hub's cache."""
    folder = snapshot(tmp_path, name, commit)
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_what_is_read_comes_and_no_other_form_of_it(
    hub: StandInHub, tmp_path: Path, folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = fetch(evaluation(MODEL, *SET))
    out = capsys.readouterr().out
    assert cached(tmp_path, "models--acme/tiny") == TINY_FILES
    assert cached(tmp_path, "datasets--acme/facts") == FACTS
    num_bytes = sum((folders / "tiny" / name).stat().st_size for name in TINY_FILES)
    num_bytes += sum((folders / "facts" / name).stat().st_size for name in FACTS)
    assert result["fetch/num_bytes"] == num_bytes
    assert (result["fetch/num_files"], result["fetch/num_failed"]) == (9, 0)
    assert result["fetch/num_fetched_bytes"] == num_bytes
    lines = [line.split() for line in out.splitlines()]
    assert ["repository", "commit", "files", "size", "in", "the", "cache", "to", "fetch", "read",
            "by"] in lines  # fmt: skip
    row = next(line for line in lines if line[:1] == ["datasets/acme/facts"])
    assert row[1:3] == [commit_of("acme/facts")[:8], "5"]
    assert row[-1] == "facts"
    assert "All of it is in the hub's cache" in out


def test_a_second_time_nothing_is_downloaded(
    hub: StandInHub, capsys: pytest.CaptureFixture[str]
) -> None:
    fetch(evaluation(MODEL, *SET))
    num_files = len(hub.downloads())
    result = fetch(evaluation(MODEL, *SET))
    assert len(hub.downloads()) == num_files
    assert result["fetch/num_fetched_bytes"] == 0
    assert "was in the cache" in capsys.readouterr().out


def test_what_another_commit_has_in_common_is_not_fetched_again(
    hub: StandInHub, tmp_path: Path, folders: Path
) -> None:
    fetch(evaluation(MODEL, "benchmark=none"))
    newer = shutil.copytree(folders / "tiny", tmp_path / "newer")
    (newer / "README.md").write_text("another")
    hub.add("acme/tiny", newer, commit="1" * 40)
    result = fetch(evaluation(MODEL, "benchmark=none"))
    assert result["fetch/num_fetched_bytes"] == 0
    assert hub.downloads().count(WEIGHTS) == 1
    assert cached(tmp_path, "models--acme/tiny", "1" * 40) == TINY_FILES


def test_the_commit_that_is_pinned_comes(hub: StandInHub, tmp_path: Path, folders: Path) -> None:
    old = commit_of("acme/facts")
    newer = shutil.copytree(folders / "facts", tmp_path / "newer")
    write_lines(newer / "queries.jsonl", [{"_id": "1", "text": "another"}])
    hub.add("acme/facts", newer, kind="datasets", commit="2" * 40)
    fetch(evaluation("retriever=bm25", *SET, f"benchmark.revision={old}"))
    repository = tmp_path / "cache" / "datasets--acme--facts"
    assert [path.name for path in (repository / "snapshots").iterdir()] == [old]
    assert not (tmp_path / "cache" / "models--acme--tiny").exists()  # BM25 needs no model


def test_an_adapter_brings_its_base(hub: StandInHub, tmp_path: Path, folders: Path) -> None:
    hub.add("acme/adapter", folders / "adapter")
    hub.add("acme/base", folders / "base")
    fetch(evaluation("model.path=acme/adapter", "benchmark=none"))
    own = cached(tmp_path, "models--acme/adapter")
    assert own == ["adapter_config.json", "adapter_model.safetensors"]
    assert {"config.json", WEIGHTS, "tokenizer.json"} <= set(cached(tmp_path, "models--acme/base"))


def test_modules_of_sentence_transformers_come_with_the_weights_that_are_read(
    hub: StandInHub, tmp_path: Path, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = shutil.copytree(folders / "tiny", tmp_path / "own")
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Dense": "Dense"}
    modules = [
        {"path": path, "type": f"sentence_transformers.models.{kind}"}
        for path, kind in kinds.items()
    ]
    dense = {"in_features": 32, "out_features": 8, "bias": False}
    for name, content in (
        ("modules", modules), ("1_Pooling/config", {"pooling_mode": "cls"}),
        ("2_Dense/config", dense), ("config_sentence_transformers", {}),
    ):  # fmt: skip
        (own / name).parent.mkdir(exist_ok=True)
        (own / f"{name}.json").write_text(json.dumps(content))
    for name in (WEIGHTS, "pytorch_model.bin"):
        (own / "2_Dense" / name).write_bytes(b"weights")
    hub.add("acme/own", own)
    config = evaluation("model.path=acme/own", "benchmark=none")
    fetch(config)
    assert cached(tmp_path, "models--acme/own") == sorted(
        [*TINY_FILES, "1_Pooling/config.json", "2_Dense/config.json", f"2_Dense/{WEIGHTS}",
         "config_sentence_transformers.json", "modules.json"]
    )  # fmt: skip
    offline(monkeypatch, is_told=True)
    spec = build(config.model)
    assert [each.out_features for each in spec.source.projections()] == [8]


def test_offline_it_is_known_that_a_model_has_no_modules(
    hub: StandInHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch(evaluation(MODEL, "benchmark=none"))
    offline(monkeypatch, is_told=True)
    assert not is_unknown("acme/tiny", "modules.json")


def test_offline_the_weights_that_came_have_a_digest(
    hub: StandInHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the snapshot lacks the other forms, which the hub's library knows of."""
    fetch(evaluation(MODEL, "benchmark=none"))
    offline(monkeypatch, is_told=True)
    digest = weights_digest("acme/tiny", memo=tmp_path / "memo")
    local = weights_digest(str(snapshot(tmp_path, "models--acme/tiny")), memo=tmp_path / "memo")
    assert digest == local


def test_shards_come_with_their_index_and_a_missing_one_is_named(
    hub: StandInHub, tmp_path: Path, folders: Path
) -> None:
    shards = shutil.copytree(folders / "tiny", tmp_path / "shards")
    (shards / WEIGHTS).unlink()
    names = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    index = {"weight_map": dict(zip("ab", names, strict=True))}
    (shards / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    for name in names:
        (shards / name).write_bytes(name.encode())
    hub.add("acme/shards", shards)
    fetch(evaluation("model.path=acme/shards", "benchmark=none"))
    assert set(names) < set(cached(tmp_path, "models--acme/shards"))
    (shards / names[1]).unlink()
    hub.add("acme/short", shards)
    text = refused(evaluation("model.path=acme/short", "benchmark=none"))
    assert f"acme/short: {names[1]} of {WEIGHTS}.index.json missing (1 in all)" in text


def test_a_model_that_is_pickled_alone_is_refused_before_it_comes(
    hub: StandInHub, tmp_path: Path, folders: Path
) -> None:
    pickled = shutil.copytree(folders / "tiny", tmp_path / "pickled")
    (pickled / WEIGHTS).unlink()
    hub.add("acme/pickled", pickled)
    text = refused(evaluation("model.path=acme/pickled", "benchmark=none"))
    assert f"acme/pickled: has no {WEIGHTS} or {WEIGHTS}.index.json" in text
    assert "pytorch_model.bin" not in hub.downloads()


@pytest.mark.parametrize("is_trusted", [False, True])
def test_code_comes_where_it_may_run(
    hub: StandInHub, tmp_path: Path, folders: Path, is_trusted: bool
) -> None:
    own = shutil.copytree(folders / "tiny", tmp_path / "own")
    config = json.loads((own / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "acme/code--modeling.Model", "AutoConfig": "own.Config"}
    (own / "config.json").write_text(json.dumps(config))
    (own / "own.py").write_text("x = 1")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "modeling.py").write_text("x = 1")
    hub.add("acme/own", own)
    hub.add("acme/code", tmp_path / "code")
    trusted = f"model.trust_remote_code={str(is_trusted).lower()}"
    fetch(evaluation("model.path=acme/own", "benchmark=none", trusted))
    assert ("own.py" in cached(tmp_path, "models--acme/own")) is is_trusted
    assert cached(tmp_path, "models--acme/code") == (["modeling.py"] if is_trusted else [])


def test_a_reranker_comes_with_its_tokenizer(hub: StandInHub, tmp_path: Path) -> None:
    classifier_folder(tmp_path / "reranker", "bert")
    hub.add("acme/reranker", tmp_path / "reranker")
    fetch(
        evaluation(
            "retriever=reranked", "retriever@retriever.first_stage=bm25",
            "retriever.reranker.path=acme/reranker", *SET,
        )
    )  # fmt: skip
    assert cached(tmp_path, "models--acme/reranker") == TINY_FILES


def test_training_sets_of_the_hub(hub: StandInHub, tmp_path: Path) -> None:
    write_lines(tmp_path / "pairs" / "train.jsonl", [{"anchor": "a", "positive": "b"}])
    hub.add("acme/pairs", tmp_path / "pairs", kind="datasets")
    fetch(training("data=hub", "data.path=acme/pairs", "benchmark=none"))
    assert cached(tmp_path, "datasets--acme/pairs") == ["train.jsonl"]
    write_lines(tmp_path / "msmarco" / HUB_FILE, [{"query": "a"}])
    write_lines(tmp_path / "msmarco" / "other.jsonl.gz", [{"query": "a"}])
    hub.add(HUB_ID, tmp_path / "msmarco", kind="datasets")
    fetch(training("data=msmarco", "benchmark=none"))
    assert cached(tmp_path, f"datasets--{HUB_ID}") == [HUB_FILE]
    own = training("data=msmarco", "data.path=FILE", "benchmark=none")
    assert all(files.kind == "model" for files in hub_files_of(own))


def test_what_is_made_or_lies_here_needs_no_hub(
    hub: StandInHub, folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fetch(composed("train", "task=fetch"))["fetch/num_repositories"] == 0
    local = evaluation(f"model.path={folders / 'tiny'}", "benchmark=stdlib_code")
    assert fetch(local)["fetch/num_repositories"] == 0
    assert "Nothing of this command comes from the hub." in capsys.readouterr().out
    assert hub.asked == []


def test_public_sets_are_fetched_at_their_commits_without_files_that_are_not_read() -> None:
    files = hub_files_of(evaluation("retriever=bm25", "benchmark=msmarco"))
    by_repo = {each.repo: each for each in files}
    assert set(by_repo) == {
        "mteb/msmarco", "Tevatron/msmarco-passage", "Tevatron/msmarco-passage-corpus",
    }  # fmt: skip
    assert by_repo["mteb/msmarco"].revision == "c5a29a104738b98a9e76336939199e264163d4a0"
    assert by_repo["mteb/msmarco"].chosen(FACTS) == set(FACTS) - {"corpus.jsonl"}
    queries = by_repo["Tevatron/msmarco-passage"]
    assert queries.chosen(["dev.jsonl.gz", "train.jsonl.gz"]) == {"dev.jsonl.gz"}
    for name, number in (("beir", 26), ("coir", 10)):
        suite = hub_files_of(evaluation("retriever=bm25", f"benchmark={name}"))
        assert len({each.repo for each in suite}) == number
        assert all(len(each.revision or "") == 40 for each in suite)


def test_a_connection_that_breaks_is_taken_up_where_it_broke(
    hub: StandInHub, tmp_path: Path, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.file_download.time", SimpleNamespace(sleep=lambda _: None))
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1024)
    hub.cut.add(WEIGHTS)
    fetch(evaluation(MODEL, "benchmark=none"))
    readable_size = (folders / "tiny" / WEIGHTS).stat().st_size
    assert hub.ranges == [f"bytes={readable_size // 2 // 1024 * 1024}-"]  # what came in full chunks
    assert (snapshot(tmp_path, "models--acme/tiny") / WEIGHTS).read_bytes() == (
        folders / "tiny" / WEIGHTS
    ).read_bytes()


def test_one_repository_that_fails_does_not_stop_the_others(
    hub: StandInHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.failing.add(WEIGHTS)
    text = refused(evaluation(MODEL, *SET))
    assert "1 of 2 repositories did not come" in text
    assert "- acme/tiny: " in text
    assert "500" in text
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows if row[-1:] == ["FAILED"]] == ["acme/tiny"]
    assert cached(tmp_path, "datasets--acme/facts") == FACTS
    hub.failing.clear()
    before = len(hub.downloads())
    fetch(evaluation(MODEL, *SET))
    assert hub.downloads().count(WEIGHTS) == 2
    assert len(hub.downloads()) == before + 1  # all that had come stayed


def test_a_repository_that_is_not_there(hub: StandInHub, tmp_path: Path) -> None:
    text = refused(evaluation("model.path=acme/none", *SET))
    assert "- acme/none: the hub has no such repository, or a private one" in text
    assert f"{hub.address}/acme/none" in text
    assert cached(tmp_path, "datasets--acme/facts") == FACTS
    text = refused(evaluation(MODEL, "model.revision=v9", "benchmark=none"))
    assert "acme/tiny@v9: it has no revision v9" in text


def test_a_gated_repository_needs_its_terms_accepted_and_a_token(
    hub: StandInHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.gated.add("models/acme/tiny")
    for token in (None, "hf_of_another"):
        if token is not None:
            monkeypatch.setenv("HF_TOKEN", token)
        text = refused(evaluation(MODEL, *SET))
        assert "acme/tiny: its files are given to those who have accepted its terms" in text
        assert f"accept them at {hub.address}/acme/tiny" in text
        assert "hf auth login" in text
        assert WEIGHTS not in hub.downloads()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    fetch(evaluation(MODEL, *SET))
    assert cached(tmp_path, "models--acme/tiny") == TINY_FILES


def test_a_disk_that_is_too_small_is_refused_before_anything_comes(
    hub: StandInHub, tmp_path: Path, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = SimpleNamespace(free=2**10)
    monkeypatch.setattr(hub_fetching.shutil, "disk_usage", lambda _: usage)
    text = refused(evaluation(MODEL, *SET))
    num_bytes = sum((folders / "tiny" / name).stat().st_size for name in TINY_FILES)
    num_bytes += sum((folders / "facts" / name).stat().st_size for name in FACTS)
    assert (
        f"HF_HUB_CACHE={tmp_path / 'cache'}: {readable_size(num_bytes)} are to be fetched" in text
    )
    assert "1.0 KiB are free there; nothing was fetched. Fix: HF_HOME=DIR" in text
    assert WEIGHTS not in hub.downloads()
    assert not (tmp_path / "cache" / "datasets--acme--facts").exists()


def test_a_commit_that_changes_meanwhile_is_told(
    hub: StandInHub, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    download = hub_fetching.snapshot_download

    def later(*args: Any, **kwargs: Any) -> str:
        hub.add("acme/tiny", folders / "tiny", commit="3" * 40)
        return str(download(*args, **kwargs))

    monkeypatch.setattr(hub_fetching, "snapshot_download", later)
    text = refused(evaluation(MODEL, "benchmark=none"))
    assert f"commit {'3' * 40} came (expected: {commit_of('acme/tiny')}" in text


def test_a_file_of_another_size_is_named(hub: StandInHub, tmp_path: Path) -> None:
    fetch(evaluation(MODEL, "benchmark=none"))
    weights = snapshot(tmp_path, "models--acme/tiny") / WEIGHTS
    blob = weights.resolve()
    blob.write_bytes(b"cut")
    text = refused(evaluation(MODEL, "benchmark=none"))
    assert f"{weights} has 3 bytes (expected: " in text
    assert f"delete {blob}" in text


def offline(monkeypatch: pytest.MonkeyPatch, *, is_told: bool) -> None:
    """Without a network, with HF_HUB_OFFLINE or with a hub that does not answer."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", is_told)
    if not is_told:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            address = f"http://127.0.0.1:{unused.getsockname()[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", address)


@pytest.mark.parametrize("is_told", [True, False])
def test_without_a_network_what_is_there_is_said(
    hub: StandInHub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    is_told: bool,
) -> None:  # fmt: skip
    offline(monkeypatch, is_told=is_told)
    why = "HF_HUB_OFFLINE=1" if is_told else f"{constants.ENDPOINT} does not answer"
    text = refused(evaluation(MODEL, *SET))
    assert text.startswith(f"{why}: nothing can be fetched, and the hub's cache (")
    assert "lacks 2 of 2 repositories" in text
    go_online(monkeypatch)
    monkeypatch.setattr(constants, "ENDPOINT", hub.address)
    fetch(evaluation(MODEL, *SET))
    hub.asked.clear()
    offline(monkeypatch, is_told=is_told)
    why = "HF_HUB_OFFLINE=1" if is_told else f"{constants.ENDPOINT} does not answer"
    capsys.readouterr()
    assert fetch(evaluation(MODEL, *SET))["fetch/num_failed"] == 0
    out = capsys.readouterr().out
    assert f"The hub could not be asked: {why}." in out
    assert "All of it is in the hub's cache" in out
    assert hub.asked == []


def test_without_a_network_what_is_missing_is_named(
    hub: StandInHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch(evaluation(MODEL, *SET))
    offline(monkeypatch, is_told=True)
    (snapshot(tmp_path, "datasets--acme/facts") / "corpus.jsonl").unlink()
    text = refused(evaluation(MODEL, *SET))
    assert "lacks 1 of 2 repositories" in text
    assert "- datasets/acme/facts: corpus.jsonl is missing" in text


def test_of_a_cache_without_a_listing_names_tell_what_is_missing(
    hub: StandInHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = snapshot(tmp_path, "datasets--acme/facts", "a4" * 20)
    for number in (0, 2):
        write_lines(folder / f"corpus-0000{number}-of-00003-ab{number}.jsonl", [{"_id": "1"}])
    offline(monkeypatch, is_told=True)
    config = evaluation("retriever=bm25", *SET, f"benchmark.revision={'a4' * 20}")
    assert "corpus-00001-of-00003 is missing" in refused(config)
    write_lines(folder / "corpus-00001-of-00003-ab1.jsonl", [{"_id": "1"}])
    assert list_in_cache(grouped(hub_files_of(config))[0]).flaws() == []


def test_a_sweep_fetches_for_all_its_jobs_and_starts_none(
    hub: StandInHub, tmp_path: Path, folders: Path
) -> None:
    hub.add("acme/other", folders / "base")
    folder = tmp_path / "study"
    sweep = composed_sweep(
        "eval", "task=fetch", "model.path=acme/tiny,acme/other", *SET, f"hydra.sweep.dir={folder}"
    )
    with pytest.raises(SystemExit) as caught:
        StudyStart().on_multirun_start(sweep)
    assert caught.value.code == 0
    assert not folder.exists()
    for name in ("tiny", "other"):
        assert WEIGHTS in cached(tmp_path, f"models--acme/{name}")
    assert hub.downloads().count("corpus.jsonl") == 1


def test_a_job_that_cannot_work_is_named_before_anything_comes(
    hub: StandInHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = composed_sweep(
        "eval", "task=fetch", MODEL, *SET, "evaluation.num_examples=0,-1",
        f"hydra.sweep.dir={tmp_path / 'study'}",
    )  # fmt: skip
    with pytest.raises(SystemExit) as caught:
        StudyStart().on_multirun_start(sweep)
    assert caught.value.code == 2
    assert "evaluation.num_examples=-1:\n" in capsys.readouterr().err
    assert not (tmp_path / "cache" / "datasets--acme--facts").exists()


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(0, "0 B"), (1023, "1,023 B"), (1024, "1.0 KiB"), (2**20 - 1, "1,024.0 KiB"),
     (3 * 2**29, "1.5 GiB"), (2**51, "2,048.0 TiB")],
)  # fmt: skip
def test_sizes_have_the_unit_that_fits(num_bytes: int, text: str) -> None:
    assert readable_size(num_bytes) == text
