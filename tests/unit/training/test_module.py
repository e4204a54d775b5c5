"""The module under a real Trainer: it learns, logs and leaves the model in the right mode."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from helpers.losses import output_of
from helpers.models import tiny_bi_encoder, tiny_qwen
from helpers.training import loader_of, quiet_trainer
from quarry.data.packing import pack
from quarry.errors import UserError
from quarry.losses.base import Loss
from quarry.losses.info_nce import InfoNCE
from quarry.losses.loss_inputs import LossInputs
from quarry.models.adapters.lora import LoRA
from quarry.models.bi_encoder import BiEncoder
from quarry.models.pooling.mean import Mean
from quarry.training.callbacks.divergence import StopOnDivergence, TrainingDivergedError
from quarry.training.callbacks.throughput import Throughput
from quarry.training.module import RetrievalModule
from quarry.training.optim import constant_schedule, linear_schedule
from quarry.types import LossOutput, RetrievalBatch, TextHashes


def random_batch(
    *, num_queries: int = 6, num_hard_negatives: int = 1, seed: int = 0
) -> RetrievalBatch:
    random = np.random.default_rng(seed)
    group = 1 + num_hard_negatives
    lengths = random.integers(2, 12, num_queries * (1 + group))
    return RetrievalBatch(
        tokens=pack([random.integers(0, 128, length) for length in lengths]),
        num_queries=num_queries,
        positive_index=torch.arange(num_queries) * group,
    )


def retrieval_module(**more: Any) -> RetrievalModule:
    settings: dict[str, Any] = {
        "build_model": tiny_bi_encoder,
        "loss": InfoNCE(temperature=0.1),
        "optimizer": partial(torch.optim.AdamW, lr=1e-2, weight_decay=0.0),
        "scheduler": partial(constant_schedule, num_warmup_steps=0),
    } | more
    return RetrievalModule(**settings)


class Logged(pl.Callback):
    """The metrics, learning rate and mode of each step."""

    def __init__(self) -> None:
        self.metrics: list[dict[str, float]] = []
        self.rates: list[float] = []
        self.modes: list[bool] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        self.metrics.append({k: v.item() for k, v in trainer.callback_metrics.items()})
        self.modes.append(pl_module.model.training)  # type: ignore[union-attr]

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"])


def test_three_steps_on_one_batch_lower_its_loss() -> None:
    module, logged, batch = retrieval_module(), Logged(), random_batch()
    quiet_trainer(logged).fit(module, loader_of([batch] * 3))
    losses = [metrics["train/loss"] for metrics in logged.metrics]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.5 * losses[0]
    assert set(logged.metrics[0]) == {
        "train/loss", "train/accuracy", "train/positive_similarity",
    }  # fmt: skip


def test_the_loss_is_that_of_the_queries_against_the_passages() -> None:
    module, logged, batch = retrieval_module(), Logged(), random_batch()
    quiet_trainer(logged).fit(module, loader_of([batch]))
    with torch.inference_mode():
        embeddings = tiny_bi_encoder()(batch.tokens)
    expected = output_of(
        InfoNCE(temperature=0.1), embeddings[:6], embeddings[6:], batch.positive_index
    )
    assert logged.metrics[0]["train/loss"] == pytest.approx(expected.loss.item(), rel=1e-6)
    accuracy = expected.metrics["accuracy"].item()
    assert logged.metrics[0]["train/accuracy"] == pytest.approx(accuracy)


def test_equal_batches_accumulated_are_one_step_of_that_batch() -> None:
    def weights(num_batches: int, accumulate: int) -> list[torch.Tensor]:
        sgd = partial(torch.optim.SGD, lr=0.1)  # linear in the gradient: a wrong factor shows
        module = retrieval_module(optimizer=sgd)
        trainer = quiet_trainer(accumulate_grad_batches=accumulate)
        trainer.fit(module, loader_of([random_batch()] * num_batches))
        assert trainer.global_step == 1
        return [parameter.detach() for parameter in module.model.parameters()]

    for one, accumulated in zip(weights(1, 1), weights(3, 3), strict=True):
        torch.testing.assert_close(one, accumulated, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_chunks_change_nothing_under_accumulation_and_clipping(precision: str) -> None:
    def trained(grad_cache_chunk_tokens: int | None) -> tuple[list[float], torch.Tensor]:
        module = retrieval_module(
            grad_cache_chunk_tokens=grad_cache_chunk_tokens,
            scheduler=partial(linear_schedule, num_warmup_steps=1),
            optimizer=partial(torch.optim.SGD, lr=0.5),
            num_training_steps=3,
        )
        logged, batches = Logged(), [random_batch(seed=seed) for seed in range(6)]
        trainer = quiet_trainer(
            logged, accumulate_grad_batches=2, gradient_clip_val=0.5, precision=precision
        )
        trainer.fit(module, loader_of(batches))
        assert trainer.global_step == 3
        weights = torch.cat([p.detach().flatten() for p in module.model.parameters()])
        return [metrics["train/loss"] for metrics in logged.metrics], weights

    losses, weights = trained(None)
    for budget in (20, 10_000):
        found, found_weights = trained(budget)
        tolerance = 1e-5 if precision == "32-true" else 0.02  # bf16 has 8 bits
        assert found == pytest.approx(losses, rel=tolerance)
        moved = (weights - trained_not_at_all()).norm()
        assert (found_weights - weights).norm() <= tolerance * moved


def trained_not_at_all() -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in tiny_bi_encoder().parameters()])


def test_with_chunks_a_loss_that_is_no_number_stops_before_the_step() -> None:
    class Infinite(Loss):
        def forward(self, inputs: LossInputs) -> LossOutput:
            return LossOutput(loss=inputs.queries.sum() / 0.0)

    module = retrieval_module(loss=Infinite(), grad_cache_chunk_tokens=1)
    with pytest.raises(TrainingDivergedError, match="loss is -?inf"):
        quiet_trainer(StopOnDivergence(checkpoint="none")).fit(module, loader_of([random_batch()]))
    found = torch.cat([p.detach().flatten() for p in module.model.parameters()])
    assert torch.equal(found, trained_not_at_all())


def test_a_loss_receives_what_the_batch_has() -> None:
    seen: list[LossInputs] = []

    class Watching(InfoNCE):
        def forward(self, inputs: LossInputs) -> LossOutput:
            seen.append(inputs)
            return super().forward(inputs)

    ids, scores = torch.arange(12), torch.arange(12.0)
    hashes = TextHashes(queries=ids[:6], passages=ids, answered=ids)
    batch = replace(random_batch(), hashes=hashes, scores=scores)
    module = retrieval_module(loss=Watching(temperature=0.1))
    quiet_trainer().fit(module, loader_of([batch]))
    (found,) = seen
    assert found.hashes is not None
    assert found.scores is not None
    assert torch.equal(found.hashes.passages, ids)
    assert torch.equal(found.scores, scores)
    assert found.groups.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_the_schedule_moves_with_each_step() -> None:
    schedule = partial(linear_schedule, num_warmup_steps=1)
    optimizer = partial(torch.optim.SGD, lr=1e-3)
    module = retrieval_module(scheduler=schedule, optimizer=optimizer, num_training_steps=4)
    logged = Logged()
    quiet_trainer(logged, accumulate_grad_batches=2).fit(module, loader_of([random_batch()] * 8))
    assert logged.rates == pytest.approx([0.5e-3, 1e-3, 2 / 3 * 1e-3, 1 / 3 * 1e-3])


def test_the_model_is_built_once_and_trained_in_train_mode() -> None:
    built: list[BiEncoder] = []

    def build(*, device: torch.device) -> BiEncoder:
        built.append(tiny_bi_encoder(device=device))
        return built[-1]

    module, logged = retrieval_module(build_model=build), Logged()
    trainer = quiet_trainer(logged)
    assert not built
    trainer.fit(module, loader_of([random_batch()]))
    trainer.test(module, loader_of([0]), verbose=False)
    assert len(built) == 1
    assert logged.modes == [True]


def test_a_module_without_a_loss_evaluates() -> None:
    module = RetrievalModule(build_model=tiny_bi_encoder)
    quiet_trainer().test(module, loader_of([0]), verbose=False)
    assert not module.model.training


def test_throughput_counts_real_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 2))  # each look at the clock is two seconds later
    monkeypatch.setattr("quarry.training.callbacks.throughput.time.perf_counter", clock.__next__)
    batch = random_batch()
    trainer = quiet_trainer(Throughput(), log_every_n_steps=2)
    trainer.fit(retrieval_module(), loader_of([batch] * 4))
    assert trainer.callback_metrics["perf/tokens_per_s"].item() == batch.tokens.num_tokens / 2
    assert trainer.callback_metrics["perf/queries_per_s"].item() == 3


def test_under_zero3_a_model_that_was_built_whole_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("quarry.training.module.sharding_of", lambda strategy: nullcontext)
    module = retrieval_module()
    module.model = tiny_bi_encoder()
    with pytest.raises(UserError, match="strategy=zero3: .* full model already"):
        quiet_trainer().fit(module, loader_of([random_batch()]))


def lora_bi_encoder(*, device: torch.device, targets: tuple[str, ...] = ("q_proj",)) -> BiEncoder:
    del device
    adapter = LoRA(r=2, alpha=4, dropout=0.0, target_modules=targets)
    return BiEncoder(backbone=adapter(tiny_qwen()), pooling=Mean())


def test_a_checkpoint_holds_what_is_trained_and_no_more(tmp_path: Path) -> None:
    trainer = quiet_trainer(max_steps=1)
    module = retrieval_module(build_model=lora_bi_encoder)
    trainer.fit(module, loader_of([random_batch()]))
    path = tmp_path / "last.ckpt"
    trainer.save_checkpoint(path)
    state = torch.load(path, weights_only=True)["state_dict"]
    assert len(state) == 4  # A and B in two layers
    assert all("lora_" in name for name in state)

    resumed = retrieval_module(build_model=lora_bi_encoder)
    more = loader_of([random_batch()] * 2)
    quiet_trainer(max_steps=1).fit(resumed, more, ckpt_path=path, weights_only=True)
    for name, tensor in state.items():
        assert torch.equal(resumed.state_dict()[name], tensor)

    other = retrieval_module(build_model=partial(lora_bi_encoder, targets=("v_proj",)))
    with pytest.raises(UserError, match=r"does not hold the weights that are trained.*v_proj"):
        quiet_trainer(max_steps=2).fit(other, more, ckpt_path=path, weights_only=True)


class OneFactor(Loss):
    """InfoNCE times a number that is learned, with a count of its calls."""

    optimizer_group = MappingProxyType({"name": "factor", "lr": 0.5, "weight_decay": 0.0})
    calls: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.info_nce = InfoNCE(temperature=0.1)
        self.factor = nn.Parameter(torch.ones(1))
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, inputs: LossInputs) -> LossOutput:
        self.calls += 1
        return LossOutput(loss=self.info_nce(inputs).loss * self.factor[0])


@pytest.mark.parametrize("grad_cache_chunk_tokens", [None, 20])
def test_a_parameter_of_the_loss_is_trained_in_its_own_group(
    grad_cache_chunk_tokens: int | None,
) -> None:
    loss, seen = OneFactor(), []

    class Gradients(pl.Callback):
        def on_before_optimizer_step(self, *_: Any) -> None:
            assert loss.factor.grad is not None
            seen.append(loss.factor.grad.item())

    sgd = partial(torch.optim.SGD, lr=0.0)  # the model stays, and with it InfoNCE
    module = retrieval_module(
        loss=loss, optimizer=sgd, grad_cache_chunk_tokens=grad_cache_chunk_tokens
    )
    trainer = quiet_trainer(Gradients(), accumulate_grad_batches=2)
    trainer.fit(module, loader_of([random_batch()] * 4))
    with torch.inference_mode():
        embeddings = tiny_bi_encoder()(random_batch().tokens)
        plain = output_of(
            InfoNCE(temperature=0.1), embeddings[:6], embeddings[6:], random_batch().positive_index
        ).loss.item()
    assert seen == pytest.approx([plain, plain], rel=1e-5)  # once a step, the mean of two batches
    assert loss.factor.item() == pytest.approx(1 - 2 * 0.5 * plain, rel=1e-5)
    assert [group.get("name") for group in trainer.optimizers[0].param_groups][-1] == "factor"


def test_a_resumed_loss_continues_as_the_unbroken_one(tmp_path: Path) -> None:
    batches = [random_batch(seed=seed) for seed in range(2)]

    def trained(num_epochs: int, checkpoint: Path | None) -> tuple[OneFactor, pl.Trainer]:
        module = retrieval_module(build_model=lora_bi_encoder, loss=OneFactor())
        trainer = quiet_trainer(max_epochs=num_epochs)
        trainer.fit(module, loader_of(batches), ckpt_path=checkpoint, weights_only=True)
        return module.batch_loss.loss, trainer  # type: ignore[union-attr, return-value]

    path = tmp_path / "last.ckpt"
    _, first = trained(1, None)
    first.save_checkpoint(path)
    stored = torch.load(path, weights_only=True)["state_dict"]
    assert {"batch_loss.loss.factor", "batch_loss.loss.calls"} <= set(stored)
    resumed, _ = trained(2, path)
    whole, _ = trained(2, None)
    assert resumed.calls.item() == whole.calls.item() == 4
    assert torch.equal(resumed.factor, whole.factor)
    assert whole.factor.item() != stored["batch_loss.loss.factor"].item()
    plain, trainer = retrieval_module(build_model=lora_bi_encoder), quiet_trainer(max_steps=4)
    with pytest.raises(UserError, match=r"left over \['batch_loss.loss.calls"):
        trainer.fit(plain, loader_of(batches), ckpt_path=path, weights_only=True)
