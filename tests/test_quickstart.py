"""docs/quickstart.md, executed with a smaller model: its commands and its Python."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from helpers.commands import ROOT, quiet_environment
from helpers.preloaded import PreloadedPython, Script

BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SMALLER = (
    "model.replica.hidden_size=32",
    "model.replica.intermediate_size=32",
    "model.replica.num_heads=2",
    "model.replica.vocab_size=1024",
    "trainer.max_steps=4",
    "evaluation.before_training=false",
)


def commands(page: str) -> list[list[str]]:
    """Return what follows `python` in each command, and a script for each block of Python."""
    found = []
    for language, block in BLOCK.findall(page):
        if language == "python":
            found.append([block])
        else:
            lines = block.replace("\\\n", " ").splitlines()
            words = [shlex.split(line) for line in lines]
            assert all(first == "python" for first, *_ in words)
            found += [rest for _, *rest in words]
    return found


def test_the_page_works_as_written(preloaded_python: PreloadedPython, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
    found = commands(page)
    assert len(found) == 7
    environment = quiet_environment(tmp_path) | {"PYTHONPATH": str(ROOT / "src")}
    for number, (script, *arguments) in enumerate(found):
        path = ROOT / script
        if "\n" in script:
            path = tmp_path / "use.py"
            path.write_text(script, encoding="utf-8")
        elif script == "train.py" and "task=export" not in arguments:
            arguments.extend(SMALLER)
        run = Script(
            arguments=[str(path), *arguments],
            environment=environment,
            folder=str(tmp_path),
            out=str(tmp_path / f"out{number}"),
            err=str(tmp_path / f"err{number}"),
        )
        code = preloaded_python.run(run, timeout_s=200)
        assert code == [0], (tmp_path / f"err{number}").read_text()
    assert re.search(r"^nDCG@10 test=0\.\d{4}$", (tmp_path / "out1").read_text(), re.MULTILINE)
    assert re.search(r"bm25=0\.\d{4} dense=0\.\d{4}$", (tmp_path / "out3").read_text().rstrip())
    corpus = (tmp_path / "my_data" / "test" / "corpus.jsonl").read_text().splitlines()
    ids = {json.loads(line)["id"] for line in corpus}
    hits = [line.split(" ", 1)[1] for line in (tmp_path / "out4").read_text().splitlines()]
    assert len(hits) == 3
    assert set(hits) <= ids
    assert "tensor([[" in (tmp_path / "out6").read_text()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "```sh\npython a.py b=1 \\\n    c=2\npython d.py\n```\n",
            [["a.py", "b=1", "c=2"], ["d.py"]],
        ),
        ("```python\nx = 1\n```\n", [["x = 1\n"]]),
    ],
)
def test_commands_of_a_page(text: str, expected: list[list[str]]) -> None:
    assert commands(text) == expected
