"""Times the ways to run LoRA layers, on random weights in the shape of Qwen2.5-7B, on one GPU.

    PYTHONPATH=src python bench/probe_layers.py [--num-layers 8] [--max-s 220]

Per way: forward of 32k tokens of passages, and forward plus backward of 8 queries x 16 passages
with lengths as in MS MARCO. Only real tokens count, and useful work only: 2N FLOP a token forward,
4N for training LoRA. The check columns compare embeddings and gradients of one batch with peft's
own path in bf16. Ways that would begin after --max-s seconds are left out.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from peft import LoraConfig, TaskType, get_peft_model
from torch import Tensor
from torch.nn.functional import cosine_similarity
from transformers import PreTrainedModel, Qwen2Config, Qwen2Model

from quarry.data.packing import pack
from quarry.models.adapters.fast_lora import use_fast_lora
from quarry.models.adapters.lora_products import merged_product, split_product
from quarry.models.bi_encoder import BiEncoder
from quarry.models.compilation import compile_layers
from quarry.models.fp8 import use_fp8
from quarry.models.pooling.last_token import LastToken
from quarry.types import TokenBatch

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
HIDDEN, INTERMEDIATE, NUM_HEADS, NUM_KV_HEADS = 3584, 18944, 28, 4
NUM_WEIGHTS = 2 * HIDDEN * HIDDEN * (1 + NUM_KV_HEADS / NUM_HEADS) + 3 * HIDDEN * INTERMEDIATE
"""N of one layer."""
VOCABULARY = 32_000
WARM_UP, STEPS = 3, 8


@dataclass(frozen=True, kw_only=True)
class Way:
    name: str
    prepare: Callable[[PreTrainedModel], object] = lambda backbone: None
    is_compiled: bool = False
    has_adapter: bool = True


def merged(backbone: PreTrainedModel) -> None:
    use_fast_lora(backbone, product=merged_product)


def split(backbone: PreTrainedModel) -> None:
    use_fast_lora(backbone, product=split_product)


def fp8(backbone: PreTrainedModel) -> None:
    use_fp8(backbone, is_trained_through=True)
    use_fast_lora(backbone)


def fp8_encoding(backbone: PreTrainedModel) -> None:
    use_fp8(backbone, is_trained_through=False)


WAYS = [  # the reference first, then by interest: time may run out
    Way(name="LoRA, peft"),
    Way(name="LoRA, merged, compiled", prepare=merged, is_compiled=True),
    Way(name="LoRA, split, compiled", prepare=split, is_compiled=True),
    Way(name="LoRA, fp8, compiled", prepare=fp8, is_compiled=True),
    Way(name="LoRA, merged", prepare=merged),
    Way(name="LoRA, split", prepare=split),
    Way(name="LoRA, fp8", prepare=fp8),
    Way(name="no adapter", has_adapter=False),
    Way(name="no adapter, compiled", is_compiled=True, has_adapter=False),
    Way(
        name="no adapter, fp8, compiled", prepare=fp8_encoding, is_compiled=True, has_adapter=False
    ),
    Way(name="LoRA, peft, compiled", is_compiled=True),
]


def build(way: Way, *, num_layers: int, device: str) -> BiEncoder:
    """The same weights for every way; B is not zero, as after some training."""
    config = Qwen2Config(
        hidden_size=HIDDEN,
        intermediate_size=INTERMEDIATE,
        num_hidden_layers=num_layers,
        num_attention_heads=NUM_HEADS,
        num_key_value_heads=NUM_KV_HEADS,
        vocab_size=VOCABULARY,
        use_cache=False,
    )
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)  # no fp32 copy in between
    with torch.device(device):
        backbone: PreTrainedModel = Qwen2Model(config)
    torch.set_default_dtype(torch.float32)
    backbone.requires_grad_(False)
    if way.has_adapter:
        lora = LoraConfig(
            task_type=TaskType.FEATURE_EXTRACTION, r=16, lora_alpha=64, target_modules=PROJECTIONS
        )
        backbone = get_peft_model(backbone, lora)
        torch.manual_seed(1)
        for name, parameter in backbone.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=2e-3)
    way.prepare(backbone)
    model = BiEncoder(backbone=backbone, pooling=LastToken())
    if way.is_compiled:
        compile_layers(backbone)
    return model


def lengths(
    num_texts: int, *, mean: float, std: float, low: int, high: int, seed: int
) -> list[int]:
    """Log-normal, cut, and one end token more."""
    variance = np.log(1 + (std / mean) ** 2)
    drawn = np.random.default_rng(seed).lognormal(
        np.log(mean) - variance / 2, np.sqrt(variance), num_texts
    )
    return [int(n) + 1 for n in np.clip(drawn.round(), low, high)]


def batch(text_lengths: Sequence[int], *, seed: int, device: str) -> TokenBatch:
    random = np.random.default_rng(seed)
    return pack([random.integers(0, VOCABULARY, n) for n in text_lengths]).to(device)


def training_batch(seed: int, *, device: str, num_queries: int = 8, group: int = 16) -> TokenBatch:
    queries = lengths(num_queries, mean=11, std=4, low=4, high=30, seed=seed)
    passages = lengths(num_queries * group, mean=78, std=32, low=12, high=154, seed=seed + 1000)
    return batch([*queries, *passages], seed=seed, device=device)


def encoding_batch(seed: int, *, device: str, budget: int = 32_768) -> TokenBatch:
    passages = sorted(lengths(600, mean=78, std=32, low=12, high=154, seed=seed), reverse=True)
    fits = int(np.searchsorted(np.cumsum(passages), budget, side="right"))
    return batch(passages[:fits], seed=seed, device=device)


def loss(embeddings: Tensor) -> Tensor:
    target = torch.linspace(-1, 1, embeddings.numel(), device=embeddings.device)
    return (embeddings * target.view_as(embeddings)).sum()


def train_step(model: BiEncoder, tokens: TokenBatch) -> None:
    model.zero_grad(set_to_none=True)
    loss(model(tokens)).backward()


@torch.inference_mode()
def encode_step(model: BiEncoder, tokens: TokenBatch) -> None:
    model(tokens)


def measure(
    step: Callable[[BiEncoder, TokenBatch], None], model: BiEncoder, batches: Sequence[TokenBatch]
) -> tuple[float, float]:
    """(tokens/s, peak GiB) over all but the first batches."""
    for tokens in batches[:WARM_UP]:
        step(model, tokens)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    for tokens in batches[WARM_UP:]:
        step(model, tokens)
    torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    num_tokens = sum(tokens.num_tokens for tokens in batches[WARM_UP:])
    return num_tokens / seconds, torch.cuda.max_memory_allocated() / 2**30


def fingerprint(model: BiEncoder, tokens: TokenBatch) -> tuple[Tensor, Tensor]:
    """Embeddings of a batch, and all gradients in one row (empty without an adapter)."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if trained:
        train_step(model.train(), tokens)
    with torch.inference_mode():
        embeddings = model.eval()(tokens)
    grads = [parameter.grad.float().flatten() for parameter in trained]
    model.zero_grad(set_to_none=True)
    return embeddings.clone(), torch.cat(grads) if grads else torch.empty(0)


def compare(ours: Tensor, theirs: Tensor) -> str:
    """Relative error / smallest cosine of the rows."""
    if ours.numel() == 0:
        return "-"
    error = float((ours - theirs).norm() / theirs.norm())
    cosine = float(cosine_similarity(ours, theirs, dim=-1).min())
    return f"{error:.1e} / {cosine:.5f}"


def matrix_rate(size: int = 8192) -> float:
    """TFLOP/s of a square product in bf16."""
    a = torch.randn(size, size, device="cuda", dtype=torch.bfloat16)
    b = torch.randn_like(a)
    for _ in range(5):
        a @ b
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(20):
        a @ b
    torch.cuda.synchronize()
    return 20 * 2 * size**3 / (time.perf_counter() - start) / 1e12


def row(
    way: Way, *, num_layers: int, references: dict[bool, tuple[Tensor, Tensor]]
) -> Sequence[str]:
    device = "cuda"
    start = time.perf_counter()
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model = build(way, num_layers=num_layers, device=device)
    weights = NUM_WEIGHTS * num_layers
    prints = fingerprint(model, training_batch(99, device=device))
    # the first way with (or without) an adapter is plain bf16
    expected = references.setdefault(way.has_adapter, prints)
    cells = [way.name]
    steps = WARM_UP + STEPS
    batches = [encoding_batch(i, device=device) for i in range(steps)]
    rate, peak = measure(encode_step, model.eval(), batches)
    cells += [f"{rate:,.0f}", f"{2 * weights * rate / 1e12:.0f}", f"{peak:.1f}"]
    if way.has_adapter:
        batches = [training_batch(i, device=device) for i in range(steps)]
        rate, peak = measure(train_step, model.train(), batches)
        cells += [f"{rate:,.0f}", f"{4 * weights * rate / 1e12:.0f}", f"{peak:.1f}"]
    else:
        cells += ["-"] * 3
    cells += [compare(ours, theirs) for ours, theirs in zip(prints, expected, strict=True)]
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    return [*cells, str(graphs), f"{time.perf_counter() - start:.0f}"]


HEADER = (
    "way", "encode tok/s", "TFLOP/s", "GiB", "train tok/s", "TFLOP/s", "GiB",
    "embeddings", "gradients", "graphs", "s in all",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-layers", type=int, default=8)
    parser.add_argument("--max-s", type=float, default=220, help="begin nothing after this")
    arguments = parser.parse_args()
    start = time.perf_counter()
    print(  # noqa: T201
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, "
        f"{arguments.num_layers} layers, 8192^3 product in bf16: {matrix_rate():.0f} TFLOP/s"
    )
    print("| " + " | ".join(HEADER) + " |\n" + "|---" * len(HEADER) + "|", flush=True)  # noqa: T201
    references: dict[bool, tuple[Tensor, Tensor]] = {}
    for way in WAYS:
        if time.perf_counter() - start > arguments.max_s:
            print(f"| {way.name} | left out: no time |", flush=True)  # noqa: T201
            continue
        try:
            cells = row(way, num_layers=arguments.num_layers, references=references)
        except (
            RuntimeError,
            ValueError,
            AssertionError,
        ) as error:  # one way must not cost the table
            cells = [way.name, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"]
        print("| " + " | ".join(cells) + " |", flush=True)  # noqa: T201
        gc.collect()
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
