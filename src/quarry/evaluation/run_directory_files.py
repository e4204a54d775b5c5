"""Write and read the results of an evaluation: `metrics.json`, per-query values and TREC runs.

Tables and plots are made from these files. Only rank 0 may write.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path

from quarry.errors import MissingPathError, UserError
from quarry.evaluation.shown_caveats import TRAINING_DATA, caveats_of
from quarry.metrics.run_files import write_run
from quarry.runtime.files import write_json, write_text
from quarry.runtime.renamed_keys import with_renamed_keys
from quarry.types import Report, SetResult

METRICS_FILE = "metrics.json"

_SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_DIGEST_SUFFIX = re.compile(r"--[0-9a-f]{8}$")
_MAX_NAME_LENGTH = 80  # two names and a suffix stay well under the 255 bytes of a file name


def safe_name(name: str) -> str:
    """Return a form of `name` for file names and result lines: only ``[A-Za-z0-9._-]``.

    Safe names are returned unchanged. Other names are cleaned and get a digest of the original as
    a suffix, so that names that clean to the same text stay distinct. The result depends on the
    name alone: a later run finds, or replaces, the same file. It is never empty, never begins with
    a dot or hyphen (a hidden file, an option), and has at most 80 characters.
    """
    is_safe = _SAFE.fullmatch(name) and len(name) <= _MAX_NAME_LENGTH
    # a name that looks like a digested one is digested, too: it could be another name's file
    if is_safe and not _DIGEST_SUFFIX.search(name):
        return name
    cleaned = re.sub(r"[^A-Za-z0-9._-]+", "_", name).lstrip(".-")
    suffix = f"--{_digest(name)}"
    return (cleaned[: _MAX_NAME_LENGTH - len(suffix)] or "_") + suffix


def per_query_path(directory: Path, *, set_name: str, retriever: str) -> Path:
    """Return the path of the JSONL file of one retriever's per-query values on one set."""
    return directory / "per_query" / f"{_stem(set_name, retriever)}.jsonl"


def run_path(directory: Path, *, set_name: str, retriever: str) -> Path:
    """Return the path of the TREC run file of one retriever on one set."""
    return directory / "runs" / f"{_stem(set_name, retriever)}.trec"


def write_results(
    reports: Sequence[Report], directory: Path, *, merge: bool = False
) -> tuple[Report, ...]:
    """Write `metrics.json` and `per_query/` below `directory`, which may be new.

    A new result replaces the older one of its set and retriever. With `merge`, all other results
    of an older `metrics.json` are kept.

    Returns:
        The reports that `metrics.json` now holds, older retrievers first; those of `reports` are
        in their own order. Results from the older file have empty `per_query` and `run`.

    Raises:
        UserError: a retriever or set is named twice; or, without `merge`, older results would be
            lost; or two retrievers were measured on different states of a set (its size, its
            convention). Nothing is written then.
    """
    _require_unique_names(reports)
    metrics_path = directory / METRICS_FILE
    older = read_reports(directory) if metrics_path.exists() else ()
    if not merge:
        _refuse_loss(older, reports, metrics_path)
    merged = _merged(older, reports)
    document = metrics_document(merged)  # checks the sets before the first file is written

    for report in reports:
        for result in report.results:
            path = per_query_path(directory, set_name=result.name, retriever=report.retriever)
            write_text(path, _per_query_lines(result))
    write_json(metrics_path, document)
    return merged


def write_runs(reports: Sequence[Report], directory: Path) -> None:
    """Write the rankings of `reports` below `directory` as TREC run files, tagged by retriever.

    Raises:
        UserError: an id cannot be written in TREC format (it contains white space).
    """
    for report in reports:
        for result in report.results:
            path = run_path(directory, set_name=result.name, retriever=report.retriever)
            write_run(path, result.run, tag=safe_name(report.retriever))


def metrics_document(reports: Sequence[Report]) -> dict[str, object]:
    """Return the content of `metrics.json` as plain data, numbers at full precision.

    Keys:
        sets: set -> retriever -> measure -> value.
        intervals: set -> retriever -> measure -> [low, high], where known.
        means: retriever -> measure -> unweighted mean over its sets, for measures that all of them
            have; a group counts as one set. Absent for a retriever with failed sets.
        failed: set -> retriever -> why there is no result.
        corpus_dtype: set -> retriever -> dtype of the embeddings that were searched.
        term_tokenizer: set -> lexical retriever -> how it split texts into terms.
        contract: retriever -> how texts were fed to its model (see `Report`).
        num_queries, num_documents, convention, group, source, licence: facts of each set.
        caveats: set, or "training data" -> caveats.
        order: the order in which to show names.

    Raises:
        UserError: two retrievers were measured on different states of a set.
    """
    facts: dict[str, dict[str, object]] = {}
    sets: dict[str, dict[str, dict[str, float]]] = {}
    intervals: dict[str, dict[str, dict[str, list[float]]]] = {}
    dtypes: dict[str, dict[str, str]] = {}
    tokenizers: dict[str, dict[str, str]] = {}
    for report in reports:
        for result in report.results:
            found = _facts(result)
            known = facts.setdefault(result.name, found)
            for key in known:
                _require_same(key, known[key], found[key], result.name, report.retriever)
            values = {measure: float(value) for measure, value in result.metrics.items()}
            sets.setdefault(result.name, {})[report.retriever] = values
            ends = {
                measure: [float(low), float(high)]
                for measure, (low, high) in result.intervals.items()
            }
            if ends:
                intervals.setdefault(result.name, {})[report.retriever] = ends
            if result.corpus_dtype is not None:
                dtypes.setdefault(result.name, {})[report.retriever] = result.corpus_dtype
            if result.term_tokenizer is not None:
                tokenizers.setdefault(result.name, {})[report.retriever] = result.term_tokenizer
    described = {
        key: {name: known[key] for name, known in facts.items()}
        for key in ("num_queries", "num_documents", "convention", "group", "source", "licence")
    }
    failed: dict[str, dict[str, str]] = {}
    for report in reports:
        for name, reason in report.failures.items():
            failed.setdefault(name, {})[report.retriever] = reason
    means = {
        report.retriever: {m: float(report.mean(m)) for m in _shared_measures(report)}
        for report in reports
        if not report.failures
    }
    order = {"retrievers": [report.retriever for report in reports], "sets": list(sets)}
    found = {"sets": sets, "intervals": intervals, "means": means, "failed": failed}
    contracts = {r.retriever: dict(r.contract) for r in reports if r.contract}
    how = {"corpus_dtype": dtypes, "term_tokenizer": tokenizers, "contract": contracts}
    caveats = {name: list(sentences) for name, sentences in caveats_of(reports).items()}
    return {**found, "order": order, **how, **described, "caveats": caveats}


def read_reports(directory: Path) -> tuple[Report, ...]:
    """Read the reports in `metrics.json`; their `per_query` and `run` are empty.

    Raises:
        MissingPathError: there is no `metrics.json` in `directory`.
        UserError: the file is not what `write_results` writes.
    """
    path = directory / METRICS_FILE
    if not path.is_file():
        raise MissingPathError(
            f"{path}: no such file. A run directory holds {METRICS_FILE} once an evaluation has "
            "finished. Fix: name such a directory."
        )
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return tuple(_report_of(document, name) for name in document["order"]["retrievers"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path}: not the metrics of an evaluation ({type(error).__name__}: {error}). "
            "Fix: move the file away, or name another run directory."
        ) from error


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def _stem(set_name: str, retriever: str) -> str:
    stem = f"{safe_name(set_name)}.{safe_name(retriever)}"
    # set "a.b" with retriever "c" must not write the file of set "a" with retriever "b.c"
    return f"{stem}--{_digest(f'{set_name}/{retriever}')}" if "." in set_name else stem


def _per_query_lines(result: SetResult) -> str:
    query_ids = dict.fromkeys(chain.from_iterable(result.per_query.values()))
    rows: Iterable[dict[str, object]] = (
        {"query_id": query_id}
        | {m: float(v[query_id]) for m, v in result.per_query.items() if query_id in v}
        for query_id in query_ids
    )
    return "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)


def _shared_measures(report: Report) -> list[str]:
    if not report.results:
        return []
    first, *others = (result.metrics for result in report.results)
    return [measure for measure in first if all(measure in other for other in others)]


def _facts(result: SetResult) -> dict[str, object]:
    # through JSON and back, because facts that were read from a file are compared with new ones
    convention = json.loads(json.dumps(dict(result.convention)))
    return {
        "num_queries": result.num_queries,
        "num_documents": result.num_documents,
        "convention": convention,
        "group": result.group,
        "source": result.source,
        "licence": result.licence,
    }


def _report_of(document: Mapping[str, Mapping], retriever: str) -> Report:
    results = tuple(
        SetResult(
            name=name,
            metrics=document["sets"][name][retriever],
            per_query={},
            run={},
            num_queries=document["num_queries"][name],
            num_documents=document["num_documents"][name],
            convention=document["convention"][name],
            group=document["group"][name],
            source=document["source"][name],
            licence=document["licence"][name],
            intervals=_intervals_of(document["intervals"].get(name, {}).get(retriever, {})),
            # earlier versions did not write these three
            corpus_dtype=document.get("corpus_dtype", {}).get(name, {}).get(retriever),
            term_tokenizer=document.get("term_tokenizer", {}).get(name, {}).get(retriever),
            caveats=tuple(document.get("caveats", {}).get(name, ())),
        )
        for name in document["order"]["sets"]
        if retriever in document["sets"][name]
    )
    failures = {
        name: reasons[retriever]
        for name, reasons in document["failed"].items()
        if retriever in reasons
    }
    # earlier versions had none, or other key names in it
    contract = with_renamed_keys(document.get("contract", {}).get(retriever, {}))
    return Report(
        retriever=retriever,
        results=results,
        failures=failures,
        contract=contract,
        training_caveats=tuple(document.get("caveats", {}).get(TRAINING_DATA, ())),
    )


def _intervals_of(ends: Mapping[str, Sequence[float]]) -> dict[str, tuple[float, float]]:
    return {measure: (low, high) for measure, (low, high) in ends.items()}


def _merged(older: Sequence[Report], newer: Sequence[Report]) -> tuple[Report, ...]:
    """Merge reports; a newer result or failure replaces the older one of its set and retriever."""
    results: dict[str, dict[str, SetResult]] = {}
    failures: dict[str, dict[str, str]] = {}
    contracts: dict[str, Mapping[str, object]] = {}
    caveats: dict[str, tuple[str, ...]] = {}
    for report in (*older, *newer):
        caveats[report.retriever] = report.training_caveats or caveats.get(report.retriever, ())
        contracts[report.retriever] = report.contract or contracts.get(report.retriever, {})
        by_set = results.setdefault(report.retriever, {})
        reasons = failures.setdefault(report.retriever, {})
        for result in report.results:
            by_set[result.name] = result
            reasons.pop(result.name, None)
        for name, reason in report.failures.items():
            by_set.pop(name, None)
            reasons[name] = reason
    in_order = iter([report.retriever for report in newer])
    are_newer = {report.retriever for report in newer}
    return tuple(
        Report(
            retriever=name,
            results=tuple(results[name].values()),
            failures=failures[name],
            contract=contracts[name],
            training_caveats=caveats[name],
        )
        for name in (next(in_order) if name in are_newer else name for name in results)
    )


def _require_unique_names(reports: Sequence[Report]) -> None:
    names = [("retriever", report.retriever) for report in reports]
    for report in reports:
        names += [(f"set of retriever {report.retriever!r}", r.name) for r in report.results]
    for kind, name in names:
        if names.count((kind, name)) > 1:
            raise UserError(
                f"The {kind} {name!r} is reported twice. Results are stored by name. Fix: give "
                "each its own."
            )


def _refuse_loss(older: Sequence[Report], newer: Sequence[Report], path: Path) -> None:
    pairs = {(report.retriever, result.name) for report in newer for result in report.results}
    for report in older:
        for result in report.results:
            if (report.retriever, result.name) not in pairs:
                raise UserError(
                    f"{path}: holds results of {report.retriever!r} on {result.name!r} that "
                    "writing would lose. Results are only replaced by newer ones of the same "
                    "name. Fix: merge into the file, or name another run directory."
                )


def _require_same(key: str, known: object, found: object, set_name: str, retriever: str) -> None:
    if known != found:
        raise UserError(
            f"Set {set_name!r}: {key} is {found} for retriever {retriever!r} but {known} for "
            "those before it. One file compares results on the same texts under the same rules. "
            "Fix: name another run directory, or evaluate all retrievers again."
        )
