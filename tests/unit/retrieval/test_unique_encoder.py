"""Equal texts go through the model once a call, and their embeddings are equal to the bit."""

from __future__ import annotations

import gc
import weakref

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


def counted(num_texts: list[int]) -> UniqueEncoder:
    """An encoder that notes how many texts each forward pass has."""
    model = tiny_bi_encoder()
    model.register_forward_pre_hook(lambda _, args: num_texts.append(len(args[0])))
    return UniqueEncoder(encoder=tiny_encoder(model=model))


def test_a_corpus_that_three_sets_share_is_encoded_once() -> None:
    """As in benchmark=msmarco_dl; each set has passages of its own that hold the same texts."""
    num_texts: list[int] = []
    encoder = counted(num_texts)
    different = texts(40)
    shares = [encoder.encode_share(documents(different), "document") for _ in range(3)]
    assert sum(num_texts) == 40
    expected = array(tiny_encoder().encode(documents(different), "document"))
    for share in shares:
        assert (array(share.embeddings) == expected).all()
        assert share.items.tolist() == list(range(40))
    # documents may stand twice in one set and not in the other
    share = encoder.encode_share(documents([*different, *different[:3]]), "document")
    assert sum(num_texts) == 40
    assert (array(share.embeddings)[40:] == expected[:3]).all()


def test_another_corpus_is_encoded_and_the_old_one_let_go() -> None:
    num_texts: list[int] = []
    encoder = counted(num_texts)
    different = texts(12)
    first = encoder.encode_share(documents(different), "document")
    gone = weakref.ref(first.embeddings._parts[0])  # the rows themselves
    del first
    gc.collect()
    assert gone() is not None, "it is remembered"
    encoder.encode_share(documents(different[::-1]), "document")  # other batches, so other bits
    assert sum(num_texts) == 24
    gc.collect()
    assert gone() is None
    encoder.encode_share(documents(different), "query")  # another prompt
    assert sum(num_texts) == 36


def test_nothing_outlives_the_encoder_and_the_weights_that_it_was_made_for() -> None:
    num_texts: list[int] = []
    encoder = counted(num_texts)
    corpus = documents(texts(12))
    before = array(encoder.encode_share(corpus, "document").embeddings)
    with torch.no_grad():
        for parameter in encoder.encoder.model.parameters():
            parameter.mul_(1.01)
    again = UniqueEncoder(encoder=encoder.encoder)
    assert (array(again.encode_share(corpus, "document").embeddings) != before).any()
    assert sum(num_texts) == 24
