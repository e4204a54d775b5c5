"""`python eval.py task=rescore`: an earlier run under all conventions, and what it needs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from helpers.commands import Result

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collection with titles; query d0 has a document's id, query lost finds nothing."""
    path = tmp_path_factory.mktemp("sets") / "one"
    (path / "qrels").mkdir(parents=True)
    texts = ["read the line", "read the line", "read it", "close files"]
    documents = [{"_id": f"d{i}", "title": "Guide", "text": t} for i, t in enumerate(texts)]
    queries = [{"_id": "d0", "text": "read line"}, {"_id": "lost", "text": "zebra"}]
    for name, records in (("corpus", documents), ("queries", queries)):
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (path / f"{name}.jsonl").write_text(lines)
    (path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nd0\td0\t1\nlost\td3\t1\n")
    return path


@pytest.fixture(scope="module")
def run(command: Run, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "bm25"
    result = command(
        "eval.py", "retriever=bm25", "benchmark=folder", f"benchmark.path={data}", "logger=none",
        f"hydra.run.dir={path}",
    )  # fmt: skip
    assert result.code == 0, result.err
    return path


def test_all_conventions_side_by_side_and_the_run_stays_as_it_is(
    command: Run, run: Path, data: Path, tmp_path: Path
) -> None:
    before = (run / "metrics.json").read_bytes()
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    moved = Path(shutil.copytree(data, tmp_path / "moved" / "one"))
    result = command(
        "eval.py", "task=rescore", f"run={copy}", f"benchmark.path={moved}",
        "benchmark.remove_self_match=true",
    )  # fmt: skip
    assert result.code == 0, result.err
    rows = [line.split() for line in result.out.splitlines()]
    # d0 has the text of d1, which ties before it: rank 2; the other query finds nothing
    assert ["as_run", "0.3155", "0.5000", "0.2500"] in rows
    assert ["beir", "0.0000", "0.0000", "0.0000"] in rows  # d0 is gone
    assert ["coir", "-", "-", "-"] in rows
    assert ["study", "0.6309", "1.0000", "0.5000"] in rows  # the other query does not count
    assert "- title joined -> none (coir): titles are part of what was encoded" in result.out
    assert "- missing_queries zero -> left_out (study): nDCG@10 0.31546 -> 0.63093" in result.out
    assert result.last_line == (
        "nDCG@10 as_run=0.3155 beir=0.0000 mteb=0.0000 pyserini=0.0000 study=0.6309"
    )
    document = json.loads((copy / "rescore.json").read_text())["bm25"]["one"]
    assert document["as_run"] == json.loads(before)["sets"]["one"]["bm25"]
    assert (copy / "rescore.md").read_text().startswith("# One run under several conventions")
    assert (copy / "metrics.json").read_bytes() == before
    assert json.loads(before)["convention"]["one"]["self_match_rule"].startswith("always, but ids")


def test_the_cache_of_another_machine_is_not_looked_for(
    command: Run, run: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    (tmp_path / "file").touch()
    file = copy / "config_resolved.yaml"
    stored = OmegaConf.load(file)
    stored.benchmark.cache_dir = str(tmp_path / "file" / "cannot_be_made")
    OmegaConf.save(stored, file)
    cache = tmp_path / "cache"
    result = command("eval.py", "task=rescore", f"run={copy}", f"paths.cache_dir={cache}")
    assert result.code == 0, result.err
    assert list(cache.glob("corpus-*"))


def refused(command: Run, *overrides: str) -> str:
    result = command("eval.py", "task=rescore", *overrides)
    assert result.code == 2, result.err
    assert "Traceback" not in result.err
    return result.err.split("\nError: ", 1)[1]


def test_a_malformed_line_is_named_by_file_and_number(
    command: Run, run: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    file = copy / "runs" / "one.bm25.trec"
    lines = file.read_text().splitlines()
    lines[1] = lines[1].replace(" Q0 ", " ")
    file.write_text("\n".join(lines) + "\n")
    message = refused(command, f"run={copy}")
    assert message.startswith(f"{file}:2: 5 columns where 6 are expected")
    assert not (copy / "rescore.json").exists()


def test_a_directory_without_runs_says_what_is_missing(
    command: Run, run: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    shutil.rmtree(copy / "runs")
    message = refused(command, f"run={copy}")
    assert message.startswith(f"run={copy} has no runs: runs/ holds none of the 1 rankings")
    message = refused(command, f"run={tmp_path}")
    assert "is no run directory" in message


def test_what_would_have_no_effect_is_refused(command: Run, run: Path) -> None:
    message = refused(command, f"run={run}", "convention=mteb")
    assert message.startswith("convention has no effect on task=rescore")
