"""Prepare the model and texts of a profile, in a folder of `run.py` or newly written."""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from random_model import SIZES, write_model
from texts import stand_in_words, write_texts


@dataclass(frozen=True, kw_only=True, slots=True)
class ProfileInputs:
    """Folders of the model and the texts, and an empty one for the profile's output."""

    model: Path
    texts: Path
    folder: Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--size", choices=SIZES, default="7B")
    parser.add_argument("--work", type=Path, help="as in run.py, whose model and texts it takes")
    parser.add_argument("overrides", nargs="*")


def prepared(
    arguments: argparse.Namespace, *, num_examples: int, num_documents: int
) -> ProfileInputs:
    """Write missing inputs; exit if there is no GPU."""
    if not torch.cuda.is_available():
        sys.exit("Error: the profile is one of kernels, and there is no CUDA device here.")
    work = arguments.work or Path(tempfile.mkdtemp(prefix="quarry-bench-"))
    model, texts = work / f"model_{arguments.size}", work / "texts"
    if not (model / "config.json").exists():
        write_model(model, arguments.size)
    if not (texts / "corpus.jsonl").exists():
        words = stand_in_words(min(151_000, SIZES[arguments.size]["vocab_size"] // 2))
        write_texts(texts, num_examples=num_examples, num_documents=num_documents, words=words)
    folder = Path(tempfile.mkdtemp(prefix="profile_", dir=work))
    return ProfileInputs(model=model, texts=texts, folder=folder)
