"""Reads what Weights & Biases wrote offline: `run-*.wandb`, protobuf in LevelDB's log format."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_BLOCK = 32_768
_HEADER_OF_FILE = 7
_HEADER_OF_RECORD = struct.Struct("<IHB")  # checksum, length, type
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


@dataclass(frozen=True)
class Identity:
    id: str
    group: str
    name: str
    job_type: str
    tags: list[str]


def history(run: Path) -> list[dict[str, Any]]:
    """What was logged, one dict a call of `log`; of what is nested, the keys joined by dots."""
    rows = []
    for record in _records(run):
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            rows.append({i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in items})
    return rows


def metric_axes(run: Path) -> dict[str, str]:
    """Metric, or pattern of metrics -> what it is drawn over."""
    axes = {}
    for record in _records(run):
        if record.WhichOneof("record_type") == "metric":
            axes[record.metric.glob_name or record.metric.name] = record.metric.step_metric
    return axes


def tables(run: Path, key: str) -> list[list[dict[str, Any]]]:
    """The tables that were logged under a key, in order, each as rows of column -> cell."""
    found = []
    for row in history(run):
        if f"{key}.path" in row:
            table = json.loads((_folder(run) / "files" / row[f"{key}.path"]).read_text())
            found.append(
                [dict(zip(table["columns"], cells, strict=True)) for cells in table["data"]]
            )
    return found


def identities(run: Path) -> list[Identity]:
    """Of each offline run below a run directory, in order of their start."""
    return [identity(folder) for folder in sorted((run / "wandb").glob("offline-run-*"))]


def identity(folder: Path) -> Identity:
    """Of the run of a directory, or of one of its offline runs."""
    found = next(r.run for r in _records(folder) if r.WhichOneof("record_type") == "run")
    return Identity(
        id=found.run_id,
        group=found.run_group,
        name=found.display_name,
        job_type=found.job_type,
        tags=list(found.tags),
    )


def config(run: Path) -> dict[str, Any]:
    """What the run was told of its configuration, as it was last."""
    found = {}
    for record in _records(run):
        if record.WhichOneof("record_type") == "config":
            found |= {i.key: json.loads(i.value_json) for i in record.config.update if i.key}
    return found


def summary(run: Path) -> dict[str, Any]:
    """The summary as it was last; of what is nested, the keys joined by dots."""
    found = {}
    for record in _records(run):
        if record.WhichOneof("record_type") == "summary":
            items = record.summary.update
            found |= {i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in items}
    return found


def artifacts(run: Path) -> dict[str, dict[str, Path]]:
    """Artifacts that are no tables: name -> name of a file in it -> where it lies on disk."""
    found = {}
    for record in _records(run):
        if record.WhichOneof("record_type") == "artifact" and record.artifact.type != "run_table":
            entries = record.artifact.manifest.contents
            found[record.artifact.name] = {i.path: Path(i.local_path) for i in entries}
    return found


def _folder(run: Path) -> Path:
    if run.name.startswith("offline-run-"):
        return run
    (folder,) = (run / "wandb").glob("offline-run-*")
    return folder


def _records(run: Path) -> Iterator[Any]:
    from wandb.proto import wandb_internal_pb2

    (file,) = _folder(run).glob("run-*.wandb")
    for data in _payloads(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        yield record


def _payloads(content: bytes) -> Iterator[bytes]:
    assert content[:4] == b":W&B"
    position, parts = _HEADER_OF_FILE, b""
    while position + _HEADER_OF_RECORD.size <= len(content):
        left = _BLOCK - position % _BLOCK
        if left < _HEADER_OF_RECORD.size:
            position += left
            continue
        _, length, kind = _HEADER_OF_RECORD.unpack_from(content, position)
        position += _HEADER_OF_RECORD.size
        parts += content[position : position + length]
        position += length
        if kind in (_FULL, _LAST):
            yield parts
            parts = b""
        else:
            assert kind in (_FIRST, _MIDDLE), kind
