"""Workers of a local Ray make the bits of one process, and leave no process behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch
from hydra import initialize_config_dir

from helpers.commands import ROOT
from helpers.encoding import encode, write_corpus
from quarry.config.schema import register_schemas
from quarry.encoding import ray_engine
from quarry.errors import UserError

pytest.importorskip("ray", reason="the extra ray is not installed")


@pytest.fixture(scope="module", autouse=True)
def _conf() -> Iterator[None]:
    torch.set_num_threads(1)
    register_schemas()
    with initialize_config_dir(config_dir=str(ROOT / "conf"), version_base="1.3"):
        yield


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))  # of the workers
    write_corpus(tmp_path / "corpus.jsonl", 300)
    return tmp_path


def rays() -> list[str]:
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
        except psutil.NoSuchProcess:
            continue
    return [line for line in found if "ray" in line]


@pytest.mark.timeout(180)
def test_workers_make_the_bits_of_one_process_and_their_errors_are_told(
    home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    corpus = (f"task.corpus={home / 'corpus.jsonl'}", "task.block_size=100")
    by_ray = ("task.engine=ray", "task.num_workers=2", f"paths.store_dir={home / 'rays'}")
    encode(home, *corpus, f"task.output={home / 'one'}")
    encode(home, *corpus, f"task.output={home / 'many'}", *by_ray)
    names = sorted(path.name for path in (home / "one").iterdir())
    assert names == sorted(path.name for path in (home / "many").iterdir())
    for name in names:  # the manifest, too: nothing in it tells who has encoded
        assert (home / "one" / name).read_bytes() == (home / "many" / name).read_bytes()
    assert "BlockWorker" not in capfd.readouterr().out
    assert rays() == []
    assert not list(Path("/tmp").glob(f"quarry-ray-{os.getpid()}-*"))


def test_what_ray_cannot_do_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call = (f"task.corpus={home / 'corpus.jsonl'}", f"task.output={home / 'x'}", "task.engine=ray")
    with monkeypatch.context() as patched:
        patched.setattr("quarry.runtime.extras.is_installed", lambda _: False)
        with pytest.raises(UserError, match=r"task.engine=ray needs ray. Fix: pip install"):
            encode(home, *call)

    class Ray:
        @staticmethod
        def cluster_resources() -> dict[str, float]:
            return {"CPU": 2.0}

    with pytest.raises(UserError, match="task.cpus_per_worker=4: Ray has 2 CPUs"):
        ray_engine._num_workers(Ray, None, 4, has_gpus=False)
    assert ray_engine._num_workers(Ray, None, 1, has_gpus=False) == 2
    assert not list(home.glob(".x*"))
