"""Time encoding with and without the shared prefix and the pooled last layer, in turns.

    python bench/encode_prefix.py --model FOLDER --corpus FILE --work FOLDER
        [--prompt promptreps_base,promptreps_instruct,last_token] [KEY=VALUE ...]

One model encodes the same texts in two ways, and the order of the ways alternates between passes.
Tokens are counted as the tokenizer renders them, the shared prefix included.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from torch._dynamo.utils import counters

from measuring import (
    NUM_WARM_UP,
    agreement,
    peak,
    read_documents,
    reset_peak,
    smallest_cosine,
    synchronize,
)
from quarry.data.tokenization import TokenizedText
from quarry.models.bi_encoder import BiEncoder
from quarry.models.building import build_bi_encoder
from quarry.retrieval.encoder import Encoder
from quarry.retrieval.pass_prefix import PassPrefixes
from quarry.types import Document
from result_line import Result, hand_over, num_matrix_weights
from templates import TEMPLATES, template_parts

PLAIN, POOLED, SHARED = "plain", "pooled", "shared"
"""Ways of encoding: neither; the pooled last layer; that and the shared prefix.

A user gets the last one that applies.
"""


@contextmanager
def encoding_in(way: str, model: BiEncoder) -> Iterator[None]:
    """Make the model encode in one way, without recompiling its layers."""
    with ExitStack() as stack:
        if way != SHARED:
            stack.enter_context(patch.object(model, "encode_prefix", lambda tokens: None))
        if way == PLAIN:
            stack.enter_context(patch.object(model, "pools_in_last_layer", False))
        yield


def timed_ways(
    encoder: Encoder, documents: Sequence[Document], *, num_passes: int
) -> tuple[Result, NDArray[np.float32]]:
    """Return rates of each way with their ratios to `PLAIN`, and the last way's embeddings.

    `PLAIN` is compared with `SHARED`, or with `POOLED` where texts share no prefix.
    """
    rows = encoder.tokenizer(documents, "document")
    num_tokens = sum(map(len, rows))
    num_shared = _num_shared_tokens(encoder, rows)
    ways = (PLAIN, SHARED if num_shared else POOLED)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    found: dict[str, NDArray[np.float32]] = {}
    warm_up_s = _warm_up(encoder, documents, ways)
    reset_peak()
    num_graphs = _num_graphs()
    for number in range(num_passes):
        for way in ways if number % 2 == 0 else reversed(ways):
            with encoding_in(way, encoder.model):
                start = time.perf_counter()
                found[way] = encoder.encode(documents, "document").numpy()
                seconds[way].append(time.perf_counter() - start)
    assert _num_graphs() == num_graphs, "a layer was compiled during a timed pass"
    result = _rates(seconds, num_tokens=num_tokens, num_texts=len(documents))
    result["smallest_cosine"] = {way: smallest_cosine(found[PLAIN], found[way]) for way in ways[1:]}
    result |= {"num_shared_tokens": num_shared, "warm_up_s": warm_up_s, **peak()}
    return result, found[ways[-1]]


def _rates(seconds: dict[str, list[float]], *, num_tokens: int, num_texts: int) -> Result:
    medians = {way: statistics.median(each) for way, each in seconds.items()}
    return {
        "tokens_per_s": {way: num_tokens / median for way, median in medians.items()},
        "tokens_per_s_of_passes": {
            way: [round(num_tokens / one) for one in each] for way, each in seconds.items()
        },
        "texts_per_s": {way: num_texts / median for way, median in medians.items()},
        "times_plain": {way: medians[PLAIN] / median for way, median in medians.items()},
        "num_tokens": num_tokens,
        "num_texts": num_texts,
    }


def _warm_up(encoder: Encoder, documents: Sequence[Document], ways: Sequence[str]) -> float:
    """Encode some texts in each way, which compiles what it needs; return the seconds."""
    start = time.perf_counter()
    for way in ways:
        with encoding_in(way, encoder.model):
            encoder.encode(documents[:NUM_WARM_UP], "document")
    synchronize()
    return time.perf_counter() - start


def _num_graphs() -> int:
    return int(counters["stats"]["unique_graphs"])


def _num_shared_tokens(encoder: Encoder, rows: Sequence[TokenizedText]) -> int:
    """Return the number of tokens of the shared prefix; 0 where texts share none."""
    ids = encoder.tokenizer.shared_prefixes["document"]
    if not all(np.array_equal(row.ids[: len(ids)], ids) for row in rows):
        return 0
    prefix = PassPrefixes(encoder.model).encode(ids, device=encoder.device)
    return 0 if prefix is None else len(prefix)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="for embeddings to compare with")
    parser.add_argument("--prompt", default=",".join(TEMPLATES), help="names, with commas between")
    parser.add_argument("--num-texts", type=int)
    parser.add_argument("--num-passes", type=int, default=5)
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    documents = read_documents(arguments.corpus, limit=arguments.num_texts)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    hand_over({"flop_per_token": 2 * num_matrix_weights(arguments.model)})
    model = None
    for name in arguments.prompt.split(","):
        parts, max_tokens = template_parts(name, arguments.model, *arguments.overrides)
        if model is None:  # one set of weights, compiled once, for all prompts
            model = build_bi_encoder(parts.spec, is_trained=False, device=device)
        encoder = parts.encoder_builder(max_tokens_per_batch=max_tokens)(model)
        result, embeddings = timed_ways(encoder, documents, num_passes=arguments.num_passes)
        others = agreement(embeddings, arguments.work / f"embeddings_{name}.npy")
        hand_over({name: result | {"to_first_process": others}})


if __name__ == "__main__":
    main()
