"""`python -m quarry train|eval|search|studies`: the commands without console scripts."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from difflib import get_close_matches

import quarry
from quarry.runtime.entry import end_with_error

COMMANDS = {
    "train": ("quarry.cli.train", "train a retriever; without arguments the demo"),
    "eval": ("quarry.cli.eval", "evaluate a model or BM25: model.path=DIR"),
    "search": ("quarry.cli.search", "search an index of task=index: search DIR TEXT"),
    "studies": ("quarry.sweep.listing", "list the studies: train study=NAME"),
}
"""Name -> module, and what it does."""

USAGE = "\n".join(
    [
        f"Quarry {quarry.__version__}: train and evaluate dense retrievers.",
        "",
        "python -m quarry COMMAND [GROUP=OPTION] [KEY=VALUE] [--multirun] [--cfg job]",
        *(f"  {name:8}  {purpose}" for name, (_, purpose) in COMMANDS.items()),
        "",
        "python -m quarry COMMAND --help lists the groups, their options and all keys.",
        "quarry-train, quarry-eval and quarry-search are the same commands.",
        "",
    ]
)


def main(arguments: Sequence[str]) -> None:
    """Run a command with the rest of the arguments, as if its module had been started."""
    name, *rest = arguments or ["--help"]
    if name in ("-h", "--help"):
        sys.stdout.write(USAGE)
        return
    if name == "--version":
        sys.stdout.write(f"{quarry.__version__}\n")
        return
    if name not in COMMANDS:
        close = get_close_matches(name, COMMANDS, n=1) or ["train", name]
        end_with_error(
            f"{name}: no command (there are {', '.join(COMMANDS)}). "
            f"Fix: python -m quarry {' '.join(close)}"
        )
    sys.argv[1:] = rest
    # as __main__, so that launchers start its other ranks by the module's name
    runpy.run_module(COMMANDS[name][0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
