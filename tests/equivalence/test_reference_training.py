"""Loss and gradients, of LoRA and of layers after the pooling, are those of a padded reference.

The reference is plain transformers and peft.
"""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from helpers.losses import output_of
from helpers.models import random_projections, tiny_qwen
from quarry.data.packing import pack
from quarry.losses.info_nce import InfoNCE
from quarry.models.adapters.lora import LoRA
from quarry.models.bi_encoder import BiEncoder
from quarry.models.pooling.last_token import LastToken

EOS = 0
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
NUM_QUERIES, GROUP_SIZE, TEMPERATURE = 4, 3, 0.01


def texts() -> list[list[int]]:
    """Queries, then passages grouped by query, each with its end token."""
    generator = torch.Generator().manual_seed(7)

    def text(shortest: int, longest: int) -> list[int]:
        length = int(torch.randint(shortest, longest, (), generator=generator))
        return [*torch.randint(1, 128, (length,), generator=generator).tolist(), EOS]

    queries = [text(1, 6) for _ in range(NUM_QUERIES)]
    return [*queries, *(text(2, 30) for _ in range(NUM_QUERIES * GROUP_SIZE))]


Parameters = dict[str, torch.nn.Parameter]


def lora_parameters(model: torch.nn.Module) -> Parameters:
    found = {n.split("base_model.")[-1]: p for n, p in model.named_parameters() if "lora_" in n}
    assert len(found) == 2 * 2 * len(TARGETS)
    return found


def randomize(model: torch.nn.Module) -> None:
    """A LoRA whose B is not zero, so that A has gradients, too."""
    torch.manual_seed(3)
    for parameter in lora_parameters(model).values():
        torch.nn.init.normal_(parameter, std=0.1)


def ours(dtype: torch.dtype) -> tuple[Tensor, Parameters]:
    adapter = LoRA(r=4, alpha=8, dropout=0.0, target_modules=TARGETS)
    model = BiEncoder(
        backbone=adapter(tiny_qwen(dtype=dtype)).to(dtype),
        pooling=LastToken(),
        projections=random_projections().to(dtype),
    )
    randomize(model)
    embeddings = model(pack(texts()))
    loss = output_of(
        InfoNCE(temperature=TEMPERATURE),
        embeddings[:NUM_QUERIES],
        embeddings[NUM_QUERIES:],
        torch.arange(NUM_QUERIES) * GROUP_SIZE,
    ).loss
    loss.backward()
    return loss, lora_parameters(model) | dict(model.projections.named_parameters())


def reference(dtype: torch.dtype) -> tuple[Tensor, Parameters]:
    """A padded batch, a mask, the state of the last token that is no padding, cosine / 0.01."""
    config = LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, target_modules=TARGETS)
    model = get_peft_model(tiny_qwen(dtype=dtype), config).to(dtype)
    randomize(model)
    projections = dict(random_projections().to(dtype).named_parameters())
    first, bias, second = projections.values()

    def encode(rows: list[list[int]]) -> Tensor:
        width = max(map(len, rows))
        ids = torch.tensor([row + [EOS] * (width - len(row)) for row in rows])
        lengths = torch.tensor([len(row) for row in rows])
        mask = (torch.arange(width) < lengths[:, None]).long()
        states = model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        last = states[torch.arange(len(rows)), lengths - 1]
        return normalize((last + torch.tanh(last @ first.T + bias)) @ second.T, dim=-1)

    rows = texts()
    queries, passages = encode(rows[:NUM_QUERIES]), encode(rows[NUM_QUERIES:])
    loss = cross_entropy(queries @ passages.T / TEMPERATURE, torch.arange(NUM_QUERIES) * GROUP_SIZE)
    loss.backward()
    return loss, lora_parameters(model) | projections


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [
        (torch.float64, 1e-9),
        # fp32 rounding, multiplied by 1 / 0.01 in the logits
        (torch.float32, 1e-5),
    ],
    ids=["fp64", "fp32"],
)
def test_loss_and_gradients_are_those_of_a_padded_reference(
    dtype: torch.dtype, tolerance: float
) -> None:
    (loss, found), (expected_loss, expected) = ours(dtype), reference(dtype)
    assert loss.item() > 0.1, "a loss near zero would have no gradient to compare"
    assert relative_error(loss.detach(), expected_loss.detach()) < tolerance
    assert found.keys() == expected.keys()
    gradients, wanted = (
        torch.cat([named[name].grad.flatten() for name in expected]) for named in (found, expected)
    )
    assert relative_error(gradients, wanted) < tolerance
    if dtype == torch.float64:
        for name in expected:
            assert relative_error(found[name].grad, expected[name].grad) < tolerance, name
