"""Quarry's own files are recognized by more than a part of their names."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from helpers.made_cache import make_cache
from quarry.stand_ins.made_folder import PREFIXES
from quarry.stand_ins.replica import QwenReplica, QwenVLReplica
from quarry.tasks.own_cache_files import matching, model_of_store, stores, tables


def test_names_match_as_a_whole_and_in_their_folder(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("a1", "a12", "ba1", "sub/a1"):
        (tmp_path / name).touch()
    assert [path.name for path in matching(tmp_path, ["a[0-9]"])] == ["a1"]
    assert list(matching(tmp_path, ["sub/a[0-9]"])) == [tmp_path / "sub" / "a1"]
    assert not list(matching(tmp_path / "nothing", ["a[0-9]"]))


def test_a_truncated_table_is_ours_and_the_table_of_others_is_not(tmp_path: Path) -> None:
    make_cache(tmp_path / "cache", tmp_path / "data")
    ours = next((tmp_path / "cache").glob("corpus-*.arrow"))
    ours.write_bytes(ours.read_bytes()[:1000])
    theirs = tmp_path / "theirs.arrow"
    batch = pa.record_batch({"mine": [1]})
    with pa.ipc.new_file(str(theirs), batch.schema) as writer:
        writer.write_batch(batch)
    empty = tmp_path / "empty.arrow"
    empty.touch()
    assert tables([ours, theirs, empty, tmp_path]) == [ours]


@pytest.mark.parametrize("contract", ["{}", "[]", "no", json.dumps({"weights": "x"})])
def test_a_folder_without_weights_in_its_contract_is_no_store(
    tmp_path: Path, contract: str
) -> None:
    (tmp_path / "contract.json").write_text(contract)
    assert stores([tmp_path]) == []
    assert model_of_store(tmp_path) is None


def test_all_made_folders_are_known_by_their_first_part() -> None:
    assert {QwenReplica.name, QwenVLReplica.name} <= set(PREFIXES)
