"""Compiled layers give the same, in few graphs, and fall back to plain ones with one warning."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.symbolic_shapes import free_symbols
from torch.nn.parallel import DistributedDataParallel
from transformers.modeling_layers import GradientCheckpointingLayer

from helpers.models import tiny_qwen
from quarry.data.packing import pack
from quarry.errors import UserError
from quarry.models.adapters.fast_lora import use_fast_lora
from quarry.models.adapters.lora import LoRA
from quarry.models.bi_encoder import BiEncoder
from quarry.models.compilation import compile_layers
from quarry.models.gradient_checkpointing import SELECTIVE
from quarry.models.pooling.mean import Mean
from quarry.types import TokenBatch

LENGTHS = [
    [7, 3], [1, 1, 30, 4], [12, 9, 5], [40, 2], [3, 3, 3, 3, 3, 3, 3], [5, 6], [9, 9, 8], [64, 1],
    [2, 2], [17, 4, 1, 1],
]  # fmt: skip


@pytest.fixture(autouse=True)
def _no_graphs_of_other_tests() -> Iterator[None]:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


def batches() -> list[TokenBatch]:
    random = np.random.default_rng(0)
    return [pack([random.integers(0, 128, n) for n in lengths]) for lengths in LENGTHS]


def lora_model(*, trains_embeddings: bool = False) -> BiEncoder:
    """The first layer differs from the second, and has a graph of its own: its input has no
    gradient unless token embeddings are trained."""
    adapter = LoRA(r=2, alpha=4, dropout=0.0, target_modules=["q_proj", "down_proj"])
    backbone = adapter(tiny_qwen())
    for name, parameter in backbone.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    use_fast_lora(backbone)
    backbone.get_input_embeddings().weight.requires_grad_(trains_embeddings)
    return BiEncoder(backbone=backbone, pooling=Mean()).train()


def num_graphs() -> int:
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def step(model: BiEncoder, tokens: TokenBatch) -> tuple[Tensor, list[Tensor]]:
    model.zero_grad()
    embeddings = model(tokens)
    embeddings.square().cumsum(0).sum().backward()
    return embeddings.detach(), [p.grad for p in model.parameters() if p.grad is not None]


def test_ten_sizes_of_training_batches_take_two_graphs_and_equal_plain_layers() -> None:
    plain, compiled = lora_model(), lora_model()
    compiled.load_state_dict(plain.state_dict())
    assert compile_layers(compiled.backbone, backend="aot_eager") == 2
    for tokens in batches():
        embeddings, gradients = step(compiled, tokens)
        expected, expected_gradients = step(plain, tokens)
        # fp32; the compiled form of the update is summed in another order
        torch.testing.assert_close(embeddings, expected, atol=1e-5, rtol=0)
        for ours, theirs in zip(gradients, expected_gradients, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    assert num_graphs() == 2
    assert not torch._dynamo.utils.counters["graph_break"]


def test_factors_that_are_cast_at_once_are_cast_in_no_layer() -> None:
    model = lora_model()
    model.backbone.to(torch.bfloat16)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
    expected = step(model, batches()[0])
    ranks: list[tuple[int, torch.dtype]] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        ranks.extend((2, x.dtype) for x in inputs if isinstance(x, Tensor) and 2 in x.shape)
        return graph.forward

    compile_layers(model.backbone, backend=backend)
    embeddings, gradients = step(model, batches()[0])
    assert torch.equal(embeddings, expected[0])
    for ours, theirs in zip(gradients, expected[1], strict=True):
        assert torch.equal(ours, theirs)
    assert set(ranks) == {(2, torch.bfloat16)}
    for tokens in batches()[1:]:
        step(model, tokens)
    assert num_graphs() == 2


def test_factors_that_are_cast_at_once_have_the_sizes_of_parameters() -> None:
    """Sizes that are symbols would go on to the states, and with them into every kernel."""
    model = lora_model()
    model.backbone.to(torch.bfloat16)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
    symbols: dict[str, set[Any]] = {}

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        for node in graph.graph.find_nodes(op="placeholder"):
            if "cast_" in node.name:
                symbols[node.name] = free_symbols(node.meta["example_value"].shape)
        return graph.forward

    compile_layers(model.backbone, backend=backend)
    step(model, batches()[0])
    assert len(symbols) == 4  # A and B of two projections
    assert not any(symbols.values()), symbols


def test_encoding_takes_one_graph_for_all_layers() -> None:
    model = BiEncoder(backbone=tiny_qwen(num_hidden_layers=3), pooling=Mean()).eval()
    with torch.inference_mode():
        expected = [model(tokens) for tokens in batches()]
        compile_layers(model.backbone, backend="eager")
        # as many borders as a head has entries, to begin with: no tie may come of it
        model(pack([[1, 2]] * 7))
        for tokens, theirs in zip(batches(), expected, strict=True):
            torch.testing.assert_close(model(tokens), theirs, atol=1e-5, rtol=0)
    assert num_graphs() == 1


def num_kept(model: BiEncoder, tokens: TokenBatch) -> int:
    """Numbers that a training step keeps for its backward pass, parameters aside."""
    parameters = {parameter.data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def pack_hook(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in parameters:
            kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack_hook, lambda tensor: tensor):
        model(tokens)
    return sum(kept.values())


def test_with_checkpointing_compiled_layers_keep_little_and_give_the_same_gradients() -> None:
    plain = lora_model(trains_embeddings=True)  # one graph, as compiling is what takes time
    tokens = batches()[3]
    num: dict[bool | str, int] = {}
    for checkpointing in (False, SELECTIVE, True):
        model = lora_model(trains_embeddings=True)
        model.load_state_dict(plain.state_dict())
        torch._dynamo.reset()
        compile_layers(
            model.backbone,
            gradient_checkpointing=checkpointing,
            backend="aot_eager_decomp_partition",
        )
        for ours, theirs in zip(step(model, tokens)[1], step(plain, tokens)[1], strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
        num[checkpointing] = num_kept(model, tokens)
    assert num[True] < 0.4 * num[False]
    assert num[True] < num[SELECTIVE] < 0.9 * num[False]
    assert num_graphs() > 0


@pytest.mark.parametrize("checkpointing", [False, SELECTIVE, True])
def test_where_compiling_fails_checkpointing_is_that_of_the_plain_layers(
    checkpointing: bool | str,
) -> None:
    model = lora_model()
    model.backbone.gradient_checkpointing_enable({"use_reentrant": False})
    compile_layers(model.backbone, gradient_checkpointing=checkpointing, backend=no_compiler)
    step(model, batches()[0])
    layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    assert len(layers) == 2
    assert {layer.gradient_checkpointing for layer in layers} == {bool(checkpointing)}


def test_layers_stay_whole_in_a_data_parallel_model() -> None:
    model = lora_model()
    num_compiled = []

    def count(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        num_compiled.append(len(inputs))
        return graph.forward

    compile_layers(model.backbone, backend=count)
    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1
    )
    try:
        # buckets smaller than a layer, where dynamo would cut
        parallel = DistributedDataParallel(model, bucket_cap_mb=0.001)
        parallel(batches()[0]).sum().backward()
    finally:
        torch.distributed.destroy_process_group()
    assert len(num_compiled) == 2  # the first layer's input asks for no gradient


def no_compiler(graph: torch.fx.GraphModule, inputs: Any) -> Any:
    raise OSError("no C++ compiler here")


def test_a_failure_falls_back_to_plain_layers_with_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = lora_model()
    expected = model(batches()[0])
    compile_layers(model.backbone, backend=no_compiler)
    for tokens in batches()[:2]:
        step(model, tokens)
    assert torch.equal(model(batches()[0]), expected)
    (record,) = (r for r in caplog.records if r.name == "quarry.models.compilation")
    assert "could not be compiled" in record.getMessage()
    assert "no C++ compiler here" in record.getMessage()
    assert "model.compile=false" in record.getMessage()


def test_an_error_of_the_model_is_not_taken_for_one_of_compiling() -> None:
    model = lora_model()
    compile_layers(model.backbone, backend="eager")
    tokens = pack([[500]])  # no such token
    with pytest.raises(IndexError):
        model(tokens)


def test_names_copies_and_pickles_are_of_the_plain_model() -> None:
    model = lora_model()
    names = list(model.state_dict())
    expected = model(batches()[0])
    compile_layers(model.backbone, backend="eager")
    model(batches()[0])
    assert list(model.state_dict()) == names
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(copied(batches()[0]), expected)


def test_a_backbone_without_layers_is_refused() -> None:
    with pytest.raises(UserError, match=r"model\.compile=true: Linear has no layers"):
        compile_layers(nn.Linear(2, 2))
