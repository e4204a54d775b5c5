"""Training that is evaluated in between == training that is not: weights, optimizer, dropout, bits.

The retriever and what saves the best model use up random numbers and change modes, as code that is
careless about them would. Also where an update is made of parts, and in mixed precision.
"""

from __future__ import annotations

import random
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from helpers.conventions import convention
from helpers.models import letter_tokenizer, tiny_qwen
from helpers.training import loader_of, quiet_trainer
from quarry.data.packing import pack
from quarry.data.prompts import Prompt
from quarry.data.tokenization import TextTokenizer
from quarry.evaluation.benchmark import Benchmark, BenchmarkSet
from quarry.evaluation.evaluator import Evaluator
from quarry.losses.info_nce import InfoNCE
from quarry.models.bi_encoder import BiEncoder
from quarry.models.pooling.mean import Mean
from quarry.retrieval.dense import DenseRetriever
from quarry.retrieval.encoder import Encoder
from quarry.retrieval.index.exact import ExactIndex
from quarry.training.callbacks import retrieval_evaluation
from quarry.training.callbacks.best_model import BestModel
from quarry.training.callbacks.retrieval_evaluation import RetrievalEvaluation
from quarry.training.module import RetrievalModule
from quarry.training.optim import constant_schedule
from quarry.types import Document, Query, RetrievalBatch, RetrievalSet, Run

# Lightning's advice on a backbone that was loaded in eval mode
pytestmark = pytest.mark.filterwarnings("ignore:Found .* in eval mode:UserWarning")

NUM_STEPS = 6


class Careless(DenseRetriever):
    """Spoils what an evaluation may spoil."""

    def __init__(self) -> None:
        super().__init__(index=ExactIndex())
        self.num_calls = 0

    def retrieve(self, dataset: RetrievalSet, *, top_k: int, encoder: Encoder | None = None) -> Run:
        assert encoder is not None
        self.num_calls += 1
        spoil(encoder.model)
        return super().retrieve(dataset, top_k=top_k, encoder=encoder)


def spoil(model: nn.Module) -> None:
    model.eval()
    torch.manual_seed(0)
    torch.rand(7)
    np.random.random(3)
    random.random()


def build_model(*, device: torch.device) -> BiEncoder:
    """With dropout in attention; one layer stays in eval mode, as a frozen one may."""
    model = BiEncoder(backbone=tiny_qwen(attention_dropout=0.1), pooling=Mean())
    dropout = nn.Dropout(0.2)
    model.backbone.embed_tokens.register_forward_hook(lambda module, args, output: dropout(output))
    model.backbone.dropout = dropout  # so that modes reach it
    return model.to(device)


class FrozenPart(RetrievalModule):
    def setup(self, stage: str) -> None:
        super().setup(stage)
        self.model.backbone.layers[0].eval()


def batches() -> list[RetrievalBatch]:
    numbers = np.random.default_rng(5)
    found = []
    for _ in range(NUM_STEPS * 2):
        lengths = numbers.integers(2, 12, 8)
        tokens = pack([numbers.integers(3, 50, length) for length in lengths])
        found.append(RetrievalBatch(tokens=tokens, num_queries=4, positive_index=torch.arange(4)))
    return found


def evaluation(retriever: Careless, every_n_steps: int) -> RetrievalEvaluation:
    data = RetrievalSet(
        name="letters",
        queries=[Query(query_id=f"q{i}", text=text) for i, text in enumerate(("abc", "xyz"))],
        corpus=[Document(document_id=t, text=t) for t in ("abcd", "wxyz", "klm", "uvw")],
        qrels={"q0": {"abcd": 1}, "q1": {"wxyz": 1}},
    )
    tokenizer = TextTokenizer(tokenizer=letter_tokenizer(), prompt=Prompt())
    return RetrievalEvaluation(
        evaluator=Evaluator(
            benchmark=Benchmark(name="b", sets=[BenchmarkSet(name="letters", load=lambda: data)]),
            measures=["nDCG@2"],
            top_k=2,
            convention=convention(),
        ),
        retriever=retriever,
        build_encoder=lambda model: Encoder(
            model=model,  # type: ignore[arg-type]
            tokenizer=tokenizer,
            max_tokens_per_batch=64,
        ),
        every_n_steps=every_n_steps,
        on_report=lambda report: None,
    )


def trained(*callbacks: Any, **settings: Any) -> tuple[dict[str, Any], list[torch.Tensor]]:
    """Weights and the optimizer's state after training, and the last random numbers."""
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)
    module = FrozenPart(
        build_model=build_model,
        loss=InfoNCE(temperature=0.1),
        optimizer=partial(torch.optim.AdamW, lr=1e-2),
        scheduler=partial(constant_schedule, num_warmup_steps=0),
    )
    trainer = quiet_trainer(*callbacks, max_steps=NUM_STEPS, max_epochs=-1, **settings)
    trainer.fit(module, loader_of(batches()))
    optimizer = trainer.optimizers[0].state_dict()["state"]
    moments = [moment for state in optimizer.values() for moment in state.values()]
    numbers = [random.random(), np.random.random(), torch.rand(()).item()]
    return module.state_dict(), [*moments, torch.tensor(numbers, dtype=torch.float64)]


@pytest.mark.parametrize(
    "settings",
    [{}, {"accumulate_grad_batches": 2}, {"precision": "bf16-mixed"}],
    ids=["plain", "accumulated", "mixed"],
)
def test_evaluations_leave_no_trace_in_training(settings: dict[str, Any], tmp_path: Path) -> None:
    expected, expected_state = trained(**settings)
    retriever = Careless()
    saved: list[int] = []

    def save(folder: Path, facts: dict[str, Any]) -> None:
        spoil(nn.Dropout())
        saved.append(facts["step"])

    watched = evaluation(retriever, every_n_steps=1)
    best = BestModel(monitor="val/letters/ndcg_at_2", folder=tmp_path / "best", save_model=save)
    found, found_state = trained(watched, best, **settings)
    assert retriever.num_calls == NUM_STEPS + 1
    assert saved
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert len(expected_state) == len(found_state)
    assert all(map(torch.equal, expected_state, found_state))


def test_the_comparison_would_notice_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    expected, _ = trained()
    name = "preserved_training_state"
    monkeypatch.setattr(retrieval_evaluation, name, lambda module: nullcontext())
    found, _ = trained(evaluation(Careless(), every_n_steps=1))
    assert not all(torch.equal(expected[name], found[name]) for name in expected)
