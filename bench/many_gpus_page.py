"""Write the tables of docs/distributed.md from docs/many_gpus.json.

    python bench/many_gpus_page.py                                        (part of make docs)
    python bench/many_gpus_page.py --add bench/results/many_gpus_DATE_DEVICE.json ...

Files of `many_gpus.py` replace the parts that they measured; the rest stays.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from many_gpus_table import Content, listed, tables
from page import joined, runs_in_use
from quarry.runtime.files import write_json, write_text

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE, SOURCE = DOCS / "distributed.md", DOCS / "many_gpus.json"
BEGIN = "<!-- made by bench/many_gpus_page.py from docs/many_gpus.json: do not edit -->\n"
END = "<!-- end of what is made -->\n"
PACKAGES = ("torch", "transformers", "peft", "pytorch-lightning", "deepspeed")


def with_tables(text: str, content: Content) -> str:
    """Return the page with the tables, and where they were measured, between their marks."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin, "docs/distributed.md has lost the marks of its tables"
    assert end, "docs/distributed.md has lost the marks of its tables"
    runs = "".join(map(_run, runs_in_use(dict(content))))
    where = f"\n{runs}" if runs else ""
    return f"{before}{BEGIN}\n{tables(content)}{where}\n{END}{after}"


def _run(run: dict[str, Any]) -> str:
    versions = [f"{name} {run['packages'][name]}" for name in PACKAGES if run["packages"].get(name)]
    where = f"{run['num_gpus']} x {run['device']}" if run["has_gpu"] else run["device"]
    commit = ((run["git"] or {}).get("commit") or "unknown")[:12]
    return listed(
        f"- {run['date']}, `{run['command']}`, {where}, CUDA {run['cuda'] or 'none'}, "
        f"Python {run['python']}, {', '.join(versions)}; commit {commit}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--add", type=Path, nargs="+", default=[], help="results of many_gpus.py")
    arguments = parser.parse_args()
    content: Content = json.loads(SOURCE.read_text(encoding="utf-8"))
    if arguments.add:
        texts = [path.read_text(encoding="utf-8") for path in arguments.add]
        content = joined([content, *(json.loads(text) for text in texts)])
        write_json(SOURCE, content)
    write_text(PAGE, with_tables(PAGE.read_text(encoding="utf-8"), content))


if __name__ == "__main__":
    main()
