"""What all tests share: small models and where the optional test data lies."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.commands import quiet_environment
from helpers.preloaded import PreloadedPython
from quarry.runtime import secret_values

# nothing in a test may ask the network or a person
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# the processes that tests start would each compile all of quarry, a fifth of what a command costs
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# where transformers copies the code of a folder that it loads: not the user's cache, and not one
# that the tests of several processes write at once
os.environ["HF_MODULES_CACHE"] = tempfile.mkdtemp(prefix="quarry-tests-")
atexit.register(shutil.rmtree, os.environ["HF_MODULES_CACHE"], ignore_errors=True)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real test collections, kept beside the repository and not in it."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no test data at {folder}")
    return folder


@pytest.fixture(scope="session")
def qwen_tokenizer_folder() -> Path:
    """The published Qwen2.5 tokenizer, kept beside the repository and not in it."""
    folder = ROOT.parent / "shared" / "models" / "qwen2.5-tokenizer"
    if not folder.is_dir():
        pytest.skip(f"no Qwen2.5 tokenizer at {folder}")
    return folder


@pytest.fixture(scope="session")
def preloaded_python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PreloadedPython]:
    """Runs scripts without the imports of libraries, which it has made in a home of its own."""
    python = PreloadedPython(quiet_environment(tmp_path_factory.mktemp("preloaded")))
    yield python
    python.close()


@pytest.fixture(autouse=True)
def _no_secrets_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test calls a secret is none in the next."""
    monkeypatch.setattr(secret_values, "_known", {})
