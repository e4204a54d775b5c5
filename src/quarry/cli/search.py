"""Search an index: `quarry-search DIR TEXT`; no parser looks into the text."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from quarry.runtime.entry import shows_user_errors
from quarry.runtime.override_text import quoted

EPILOG = """\
quarry-search index 'what is a corporation?'
quarry-search index --queries queries.jsonl -k 100 --json > hits.jsonl
echo 'one query a line' | quarry-search index --queries -
quarry-search index -- '-text that begins with a dash'
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(
        prog="quarry-search",
        description="Search an index of task=index by its own model.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("index", metavar="DIR", help="a folder of task=index")
    made.add_argument("text", nargs="?", help="the query, any text")
    made.add_argument(
        "-q",
        "--queries",
        metavar="FILE",
        help="a table, or one a line; - for standard input",
    )
    made.add_argument("-k", "--top-k", type=int, default=10, help="documents a query (10)")
    made.add_argument("--hybrid", action="store_true", help="fuse with the ranking by BM25")
    made.add_argument(
        "--with",
        dest="more",
        action="append",
        default=[],
        metavar="DIR",
        help="search this index, too, and merge the results (may be repeated)",
    )
    made.add_argument("--model", metavar="PATH", help="the model, if it was moved: model.path=PATH")
    made.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an override of the model, prompt or paths (may be repeated)",
    )
    made.add_argument(
        "--json", action="store_true", default=None, help="JSON lines in a terminal, too"
    )
    made.add_argument(
        "--table", dest="json", action="store_false", help="tables where it is piped, too"
    )
    made.add_argument(
        "--check", action="store_true", help="compare all checksums of the index first"
    )
    made.add_argument("-v", "--verbose", action="store_true", help="show the log")
    return made


def run(arguments: Sequence[str]) -> None:
    """Run a command line."""
    given = parser().parse_intermixed_args(arguments)
    logging.basicConfig(
        level=logging.INFO if given.verbose else logging.WARNING,
        format="%(levelname)s %(message)s",
        stream=sys.stderr,
    )
    from quarry.tasks.search import SearchRequest, queries_of, run_search  # late: --help is quick

    model = [] if given.model is None else [f"model.path={quoted(given.model)}"]
    run_search(
        SearchRequest(
            folders=[given.index, *given.more],
            queries=queries_of(given.text, given.queries),
            top_k=given.top_k,
            hybrid=given.hybrid,
            overrides=[*model, *given.overrides],
            as_json=given.json,
            check=given.check,
        )
    )


def main() -> None:
    """Run the command line of this process."""
    with shows_user_errors():
        run(sys.argv[1:])


if __name__ == "__main__":
    main()
