"""LoRA's fast path with dropout == the plain formula with the same mask, however it is run; and the
masks are as independent draws would be."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from peft import LoraConfig, TaskType, get_peft_model
from torch import Tensor, nn
from torch.nn.functional import linear

from helpers.models import tiny_qwen
from quarry.data.packing import pack
from quarry.models.adapters import lora_products
from quarry.models.adapters.fast_lora import FastLoraLinear, use_fast_lora
from quarry.models.adapters.hashed_dropout import draw_seeds, dropped, is_kept
from quarry.models.adapters.lora_dropout import checkpoint_contexts
from quarry.models.adapters.lora_factors import fast_layers
from quarry.models.adapters.lora_products import Dropout, fp8_product
from quarry.models.backbones.text_model import text_model
from quarry.models.bi_encoder import BiEncoder
from quarry.models.compilation import compile_layers
from quarry.models.fp8 import Fp8Linear
from quarry.models.gradient_checkpointing import SELECTIVE
from quarry.models.pooling.mean import Mean

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SOME = ["down_proj"]
P = 0.3
TOKENS = pack([[5, 6, 7, 8], [9], list(range(20, 51))])
OTHER_TOKENS = pack([list(range(60, 70)), [1, 2, 3]])


def bi_encoder(
    *,
    compiled: bool | str | None = None,
    checkpointing: bool = False,
    projections: Sequence[str] = PROJECTIONS,
) -> BiEncoder:
    """LoRA with dropout on projections of two layers in fp64, in training.

    Args:
        compiled: the gradient checkpointing of compiled layers; None: they are not compiled.
        projections: which; compiling all seven takes a minute.
    """
    config = LoraConfig(
        task_type=TaskType.FEATURE_EXTRACTION, r=4, lora_alpha=12, lora_dropout=P,
        target_modules=[*projections],
    )  # fmt: skip
    backbone = get_peft_model(tiny_qwen(dtype=torch.float64), config)
    torch.manual_seed(1)
    for name, parameter in backbone.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    assert use_fast_lora(backbone).reasons == {}
    if checkpointing or compiled:
        contexts = checkpoint_contexts(backbone)
        text_model(backbone).gradient_checkpointing_enable(
            {"use_reentrant": False, "context_fn": contexts}
        )
    model = BiEncoder(backbone=backbone, pooling=Mean()).train()
    if compiled is not None:
        torch._dynamo.reset()  # else the layers would run what an earlier test has compiled
        compile_layers(
            text_model(backbone),
            gradient_checkpointing=compiled,
            backend="aot_eager_decomp_partition",
        )
    return model


def objective(embeddings: Tensor) -> Tensor:
    target = torch.linspace(-1, 1, embeddings.numel(), dtype=embeddings.dtype)
    return (embeddings * target.view_as(embeddings)).sum()


def gradients(model: BiEncoder) -> dict[str, Tensor]:
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    assert found
    return found


def run(model: BiEncoder) -> tuple[Tensor, dict[str, Tensor]]:
    """Embeddings and gradients of one pass, always with the same random numbers."""
    torch.manual_seed(7)
    embeddings = model(TOKENS)
    objective(embeddings).backward()
    return embeddings.detach(), gradients(model)


@contextmanager
def plain_formula(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In place of the hand-written products: ten lines of autograd, scaled as peft scales."""

    def forward(layer: FastLoraLinear, x: Tensor) -> Tensor:
        seed = layer.dropout_seed
        assert seed is not None
        rows = x.reshape(-1, x.shape[-1])
        mask = is_kept(rows, seed, P).double() / (1 - P)
        base = linear(rows, layer.base_layer.weight, layer.base_layer.bias)
        update = linear(rows * mask, layer.lora_A["default"].weight)
        update = linear(update, layer.lora_B["default"].weight) * layer.scaling["default"]
        return (base + update).view(*x.shape[:-1], -1)

    with monkeypatch.context() as patch:
        patch.setattr(FastLoraLinear, "forward", forward)
        yield


def assert_equal(
    found: tuple[Tensor, dict[str, Tensor]], expected: tuple[Tensor, dict[str, Tensor]]
) -> None:
    torch.testing.assert_close(found[0], expected[0], rtol=1e-9, atol=1e-12)
    for name, gradient in expected[1].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-9, atol=1e-11, msg=name)


WAYS: dict[str, dict[str, Any]] = {
    "eager": {},
    "checkpointed": {"checkpointing": True},
    "compiled": {"compiled": False},
    "compiled-selective": {"compiled": SELECTIVE},
    "compiled-checkpointed": {"compiled": True},
}


@pytest.mark.parametrize("way", WAYS)
def test_gradients_equal_the_plain_formula(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    projections = SOME if way.startswith("compiled") else PROJECTIONS
    with plain_formula(monkeypatch):
        expected = run(bi_encoder(projections=projections))
    assert len(expected[1]) == 2 * 2 * len(projections)
    assert_equal(run(bi_encoder(**WAYS[way], projections=projections)), expected)


def test_a_repetition_gets_the_seeds_of_its_own_pass() -> None:
    """The first graph is propagated when a second pass has drawn other seeds."""
    found = []
    for checkpointing in (False, True):
        model = bi_encoder(checkpointing=checkpointing)
        torch.manual_seed(7)
        first = objective(model(TOKENS))
        second = objective(model(OTHER_TOKENS))
        model.eval()(TOKENS)
        model.train()
        first.backward()
        second.backward()
        found.append((first.detach()[None], gradients(model)))
    assert_equal(*found)


def test_without_training_nothing_is_dropped_and_nothing_drawn() -> None:
    model = bi_encoder().eval()
    state = torch.get_rng_state()
    once, again = model(TOKENS), model(TOKENS)
    assert torch.equal(once, again)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_layer_outside_a_pass_draws_its_own_seed() -> None:
    layer = fast_layers(bi_encoder().backbone)[0]
    x = torch.randn(50, layer.in_features, dtype=torch.float64)
    torch.manual_seed(0)
    once = layer(x)
    assert not torch.equal(layer(x), once)
    torch.manual_seed(0)
    assert torch.equal(layer(x), once)


def test_an_fp8_base_gets_the_same_update() -> None:
    """The update of an fp8 base is dropped as any other; its own product is not."""
    torch.manual_seed(0)
    base = Fp8Linear(nn.Linear(32, 48), is_trained_through=True)
    x = torch.randn(9, 32, requires_grad=True)
    a, b = torch.randn(4, 32, requires_grad=True), torch.randn(48, 4, requires_grad=True)
    (seed,) = draw_seeds(1, x.device)
    y = fp8_product(x, base=base, a=a, b=b, dropout=Dropout(seed, P))
    found = torch.autograd.grad(y.square().sum(), (x, a, b))
    mask = is_kept(x, seed, P)
    update = (x * mask) @ a.t() @ b.t()
    torch.testing.assert_close(y, base(x) + update, rtol=1e-5, atol=1e-5)
    dy = 2 * y.detach()
    through = torch.autograd.grad(base(x), x, dy)[0]
    parts = torch.autograd.grad(update, (x, a, b), dy)
    for ours, theirs in zip(found, (parts[0] + through, *parts[1:]), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_nothing_of_the_mask_is_stored() -> None:
    """What autograd keeps is what it keeps without dropout, and a seed of 8 bytes."""

    def kept_bytes(dropout: Dropout | None) -> int:
        x = torch.randn(64, 32, requires_grad=True)
        a, b = torch.randn(4, 32, requires_grad=True), torch.randn(48, 4, requires_grad=True)
        held: list[int] = []

        def keep(tensor: Tensor) -> Tensor:
            held.append(tensor.untyped_storage().nbytes())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            lora_products.lora_product(
                x, weight=torch.randn(48, 32), bias=None, a=a, b=b, dropout=dropout
            )
        return sum(held)

    (seed,) = draw_seeds(1, torch.device("cpu"))
    assert kept_bytes(Dropout(seed, P)) == kept_bytes(None) + 8


# ---- the masks ----

ROWS, COLUMNS, SEEDS = 800, 700, 24


@pytest.fixture(scope="module")
def masks() -> Tensor:
    """[seeds, rows, columns] of True where an entry is kept."""
    torch.manual_seed(3)
    x = torch.empty(ROWS, COLUMNS)
    return torch.stack([is_kept(x, s, P) for s in draw_seeds(SEEDS, x.device)])


def assert_binomial(counts: Tensor, *, number: int, share: float) -> None:
    """Counts of independent draws: their mean, spread and extremes.

    Bounds are for 5 standard errors, and for the extremes of as many normal numbers.
    """
    z = (counts.double() - number * share) / (number * share * (1 - share)) ** 0.5
    assert z.mean().abs() <= 5 / z.numel() ** 0.5
    if z.numel() > 1:
        assert (z.var() - 1).abs() <= 5 * (2 / z.numel()) ** 0.5
    assert z.abs().max() <= 6


@pytest.mark.parametrize(
    ("of", "number"), [((2,), COLUMNS), ((1,), ROWS), ((1, 2), ROWS * COLUMNS), ((0,), SEEDS)],
    ids=["rows", "columns", "seeds", "places"],
)  # fmt: skip
def test_counts_are_binomial(masks: Tensor, of: tuple[int, ...], number: int) -> None:
    assert_binomial(masks.sum(dim=of).flatten(), number=number, share=1 - P)


SHIFTS: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    "two seeds (layers, steps)": lambda m: (m[:-1], m[1:]),
    "neighbouring rows": lambda m: (m[:, :-1], m[:, 1:]),
    "neighbouring columns": lambda m: (m[:, :, :-1], m[:, :, 1:]),
    "rows a power of two apart": lambda m: (m[:, :-256], m[:, 256:]),
    "columns a power of two apart": lambda m: (m[:, :, :-512], m[:, :, 512:]),
}


@pytest.mark.parametrize("shift", SHIFTS)
def test_two_entries_are_kept_together_as_often_as_independent_ones(
    masks: Tensor, shift: str
) -> None:
    left, right = SHIFTS[shift](masks)
    both = (left & right).sum(dim=(1, 2))
    assert_binomial(both, number=left[0].numel(), share=(1 - P) ** 2)
    # and in places that are aligned to blocks, where a permuted mask would repeat itself
    blocks = (left ^ right)[:, :512, :128].sum(dim=(1, 2))
    assert_binomial(blocks, number=min(512, left.shape[1]) * 128, share=2 * P * (1 - P))


def test_seeds_that_share_a_word_give_independent_masks() -> None:
    x = torch.empty(ROWS, COLUMNS)
    torch.manual_seed(4)
    for word in (0, 1):
        for seed, other in zip(*[iter(draw_seeds(16, x.device))] * 2, strict=True):
            other[word] = seed[word]
            together = (is_kept(x, seed, P) & is_kept(x, other, P)).sum()
            assert_binomial(together[None], number=x.numel(), share=(1 - P) ** 2)


@pytest.mark.parametrize("p", [0.0, 1e-3, 0.1, 0.999])
def test_the_share_is_that_which_was_asked_for(p: float) -> None:
    (seed,) = draw_seeds(1, torch.device("cpu"))
    x = torch.ones(1000, 1000)
    kept = dropped(x, seed, p).sum()
    spread = (p * (1 - p) * x.numel()) ** 0.5
    assert abs(float(kept) - (1 - p) * x.numel()) <= 6 * spread


def test_as_in_pefts_own_dropout_the_expectation_is_kept() -> None:
    """The mean over many passes is the embedding without dropout, of a layer that is linear."""
    model: Sequence[FastLoraLinear] = fast_layers(bi_encoder().backbone)
    layer = model[-1]
    x = torch.randn(3, layer.in_features, dtype=torch.float64)
    torch.manual_seed(0)
    with torch.no_grad():
        draws = torch.stack([layer(x) for _ in range(3000)])
        expected = layer.eval()(x)
        spread = draws.std(dim=0) / len(draws) ** 0.5
    assert ((draws.mean(dim=0) - expected).abs() <= 6 * spread + 1e-12).all()
