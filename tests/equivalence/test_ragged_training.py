"""Queries with different numbers of hard negatives: loss and gradients are those of a reference.

The reference is plain torch and transformers: padded batches, passages in another order, and texts
that are compared as strings. With GradCache chunks or in one pass, with masks or without.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from helpers.joint_training import TOKENIZER, examples, use_wide_norms
from helpers.models import tiny_qwen
from quarry.data.collation import RetrievalCollator
from quarry.data.train_dataset import TrainDataset
from quarry.losses.info_nce import InfoNCE
from quarry.models.bi_encoder import BiEncoder
from quarry.models.pooling.mean import Mean
from quarry.training.contrastive_batch import ContrastiveBatchLoss
from quarry.training.grad_cache import GradCache
from quarry.types import TrainExample

TEMPERATURE = 0.05
TOLERANCE = 1e-9  # fp64, sums in another order

EXAMPLES = examples(12, is_ragged=True)


def backbone() -> nn.Module:
    made = tiny_qwen(dtype=torch.float64)
    use_wide_norms(made)
    return made


def gradient_of(model: nn.Module) -> Tensor:
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(gradient is not None for gradient in gradients)
    return torch.cat([gradient.flatten() for gradient in gradients if gradient is not None])


def ours(*, budget: int | None, has_masks: bool) -> tuple[Tensor, Tensor]:
    """Return loss and gradient by the dataset, the collator, packing and InfoNCE."""
    dataset = TrainDataset(EXAMPLES, num_hard_negatives=None, seed=0)
    batch = RetrievalCollator(TOKENIZER)([dataset[0, i] for i in range(len(dataset))])
    model = BiEncoder(backbone=backbone(), pooling=Mean())
    loss_of = ContrastiveBatchLoss(
        InfoNCE(temperature=TEMPERATURE, masks_same_passage=has_masks, masks_same_query=has_masks)
    )
    if budget is None:
        loss, _ = loss_of(model(batch.tokens), batch)
        loss.backward()
    else:
        cache = GradCache(chunk_tokens=budget)
        loss, _ = loss_of(cache.embed(model, batch.tokens), batch)
        loss.backward()
        cache.backward(model, list(model.parameters()))
    return loss.detach(), gradient_of(model.backbone)


def reference(*, has_masks: bool) -> tuple[Tensor, Tensor]:
    """Return them by a padded batch and a cross entropy; all positives first, then the others."""
    model = backbone()
    queries = [example.query.text for example in EXAMPLES]
    positives = [example.positives[0].text for example in EXAMPLES]
    others = [d.text for example in EXAMPLES for d in example.hard_negatives]
    passages = [*positives, *others]
    logits = embedded(model, queries, "query") @ embedded(model, passages, "document").T
    logits = logits / TEMPERATURE
    if has_masks:
        logits = logits.masked_fill(false_negatives(queries, positives, passages), -torch.inf)
    loss = cross_entropy(logits, torch.arange(len(queries)))
    loss.backward()
    return loss.detach(), gradient_of(model)


def embedded(model: nn.Module, texts: Sequence[str], role: str) -> Tensor:
    items = [
        {example.query.text: example.query for example in EXAMPLES}[text]
        if role == "query"
        else document_of(text)
        for text in texts
    ]
    rows = [torch.tensor(text.ids) for text in TOKENIZER(items, role)]  # type: ignore[arg-type]
    ids = nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = torch.arange(ids.shape[1]) < torch.tensor([len(row) for row in rows])[:, None]
    states = model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    means = (states * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
    return normalize(means, dim=-1)


def document_of(text: str) -> object:
    documents = [d for e in EXAMPLES for d in (*e.positives, *e.hard_negatives)]
    return next(document for document in documents if document.text == text)


def false_negatives(
    queries: Sequence[str], positives: Sequence[str], passages: Sequence[str]
) -> Tensor:
    return torch.tensor(
        [
            [
                column != row
                and (
                    passage == positives[row]
                    or (column < len(queries) and queries[column] == query)
                )
                for column, passage in enumerate(passages)
            ]
            for row, query in enumerate(queries)
        ]
    )


def group_sizes(of: Sequence[TrainExample]) -> set[int]:
    return {1 + len(example.hard_negatives) for example in of}


@pytest.mark.parametrize("has_masks", [False, True])
@pytest.mark.parametrize("budget", [None, 40, 200])
def test_loss_and_gradients_are_those_of_a_padded_reference(
    budget: int | None, has_masks: bool
) -> None:
    assert group_sizes(EXAMPLES) == {1, 2, 3, 4, 5, 6, 7}
    loss, gradient = ours(budget=budget, has_masks=has_masks)
    expected_loss, expected = reference(has_masks=has_masks)
    assert loss.item() > 0.1, "a loss near zero would have no gradient to compare"
    torch.testing.assert_close(loss, expected_loss, rtol=TOLERANCE, atol=0)
    assert (gradient - expected).norm() <= TOLERANCE * expected.norm()


def test_masks_make_a_difference_here() -> None:
    assert abs(reference(has_masks=True)[0] - reference(has_masks=False)[0]) > 1e-3
