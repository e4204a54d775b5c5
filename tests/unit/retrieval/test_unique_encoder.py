"""Equal texts go through the model once a call, and their embeddings are equal to the bit."""

from __future__ import annotations

import torch

from helpers.models import tiny_bi_encoder
from helpers.stores import array, documents, texts, tiny_encoder
from quarry.retrieval.unique_encoder import UniqueEncoder


def test_each_text_once_and_every_item_its_own() -> None:
    model = tiny_bi_encoder()
    num_texts: list[int] = []
    model.register_forward_pre_hook(lambda _, args: num_texts.append(len(args[0])))
    different = texts(40)
    corpus = documents(different + different[::-1] + different[:7])
    embeddings = UniqueEncoder(encoder=tiny_encoder(model=model)).encode(corpus, "document")
    assert sum(num_texts) == 40
    found = array(embeddings)
    assert found.shape == (87, 32)
    assert (found[:40] == found[40:80][::-1]).all()
    assert (found[:7] == found[80:]).all()
    # the same texts in the same order are the same batches
    assert torch.equal(embeddings[:40], tiny_encoder().encode(corpus[:40], "document"))


def test_it_is_where_its_model_is() -> None:
    encoder = UniqueEncoder(encoder=tiny_encoder())
    assert encoder.device == torch.device("cpu")
    assert array(encoder.encode([], "query")).shape == (0, 32)
