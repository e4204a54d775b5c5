"""Compare a training step of a small model launched by Python with its CUDA graph replay.

    python bench/graph_trial.py                                    (a 0.5B, 16 x 16, one minute)

Both steps have the same kernels: packed texts with LoRA through compiled layers, InfoNCE, backward,
clipping, fused AdamW. The graph holds everything except the optimizer, for one shape. A batch of
another shape would be padded to the next captured one: `padding` is the share of tokens that this
adds on average, with shapes that differ by --step. Neither step has Lightning or a data loader;
`run.py --only train_05b` measures `train.py`.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_

from quarry.data.packing import pack
from quarry.models.bi_encoder import BiEncoder
from quarry.types import TokenBatch
from result_line import hand_over
from step_modes import WAYS, built, clocked

NUM_QUERIES, NUM_PASSAGES = 16, 256
TEMPERATURE = 0.05
NUM_WARM_UP, NUM_ROUNDS, NUM_STEPS = 4, 7, 8
GIB = 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="Qwen/Qwen2.5-0.5B", help="whose shapes")
    parser.add_argument("--step", type=float, default=1 / 16, help="between shapes, of the largest")
    arguments = parser.parse_args()
    model = built(WAYS["plain"], name=arguments.model)
    hand_over(measured(model) | {"padding": padding(arguments.step)})


def measured(model: BiEncoder) -> dict[str, Any]:
    """Return milliseconds a step of both ways, as medians of alternating rounds."""
    tokens = batch(np.random.default_rng(0)).to("cuda")
    factors = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(factors, lr=1e-4, fused=True)

    def launched() -> None:
        optimizer.zero_grad(set_to_none=False)
        loss_of(model, tokens).backward()
        clip_grad_norm_(factors, 1.0)

    losses: list[Tensor] = []
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # keep the warm-up's memory out of the graph
        for _ in range(NUM_WARM_UP):
            launched()
    torch.cuda.current_stream().wait_stream(side)
    before = torch.cuda.memory_allocated()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        optimizer.zero_grad(set_to_none=False)
        losses.append(loss_of(model, tokens))
        losses[0].backward()
        clip_grad_norm_(factors, 1.0)

    ways: dict[str, Callable[[], object]] = {"launched": launched, "replayed": graph.replay}
    gradients = {name: gradients_of(factors, way) for name, way in ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(NUM_ROUNDS):
        for name, way in ways.items():

            def steps(way: Callable[[], object] = way) -> None:
                for _ in range(NUM_STEPS):
                    way()
                    optimizer.step()

            seconds[name].append(clocked(steps) / NUM_STEPS)
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    difference = max(
        float((one - other).abs().max() / one.abs().max().clamp_min(1e-12))
        for one, other in zip(*gradients.values(), strict=True)
    )
    return {
        "num_tokens": tokens.num_tokens,
        **{f"{name}_ms": 1e3 * median for name, median in medians.items()},
        "ratio": medians["launched"] / medians["replayed"],
        "graph_gib": (torch.cuda.memory_reserved() - before) / GIB,
        "largest_gradient_difference": difference,
    }


def batch(random: np.random.Generator) -> TokenBatch:
    """Return a contrastive batch in the lengths of MS MARCO, queries first."""
    lengths = [*random.poisson(11, NUM_QUERIES), *random.normal(78, 24, NUM_PASSAGES)]
    sizes = np.clip(np.asarray(lengths), 4, 154).astype(int)
    return pack([random.integers(0, 150_000, size) for size in sizes])


def padding(step: float) -> float:
    """Return the share of tokens that padding to the next shape adds."""
    random = np.random.default_rng(1)
    numbers = np.array([batch(random).num_tokens for _ in range(200)])
    shape = step * numbers.max()
    return float((np.ceil(numbers / shape) * shape / numbers).mean() - 1)


def loss_of(model: BiEncoder, tokens: TokenBatch) -> Tensor:
    with torch.autocast("cuda", dtype=torch.bfloat16, cache_enabled=False):
        embeddings = model(tokens)
    queries, passages = embeddings[:NUM_QUERIES], embeddings[NUM_QUERIES:]
    positives = torch.arange(NUM_QUERIES, device=embeddings.device) * (NUM_PASSAGES // NUM_QUERIES)
    return cross_entropy(queries @ passages.T / TEMPERATURE, positives)


def gradients_of(factors: Sequence[Tensor], step: Callable[[], object]) -> list[Tensor]:
    step()
    torch.cuda.synchronize()
    return [one.grad.clone() for one in factors if one.grad is not None]


if __name__ == "__main__":
    main()
