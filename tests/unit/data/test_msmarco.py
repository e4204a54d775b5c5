"""MS MARCO comes from a file, or from the hub, which may not be there."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from quarry.data.msmarco import msmarco_examples
from quarry.errors import MissingPathError, UserError

ROW = {
    "query_id": "1",
    "query": "what is love",
    "positive_passages": [{"docid": "7", "title": "Love", "text": "a feeling"}],
    "negative_passages": [{"docid": "8", "title": "", "text": "a song"}],
}


def test_a_copy_of_the_hubs_file_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(ROW).encode()))
    (example,) = msmarco_examples(path=path, cache_dir=tmp_path / "cache")
    assert example.query.text == "what is love"
    assert (example.positives[0].title, example.positives[0].text) == ("Love", "a feeling")
    assert [negative.document_id for negative in example.hard_negatives] == ["8"]


def test_without_the_hub_the_message_names_the_file_and_the_key(tmp_path: Path) -> None:
    # tests run with HF_HUB_OFFLINE=1, so that this asks no network
    with pytest.raises(UserError, match=r"train\.jsonl\.gz of Tevatron/.*data\.path=FILE"):
        msmarco_examples(path=None, cache_dir=tmp_path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingPathError):
        msmarco_examples(path=tmp_path / "no.jsonl", cache_dir=tmp_path)
