"""Build the offline benchmarks: docstrings, and names, to code of Python's standard library."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from quarry.evaluation.benchmark import Benchmark, BenchmarkSet
from quarry.stand_ins.stdlib_code import stdlib_code_set
from quarry.stand_ins.stdlib_names import stdlib_names_set


def stdlib_code_benchmark(*, split: str, cache_dir: str | Path) -> Benchmark:
    """Return one set, the pairs of `split` ("test" or "dev"): each query has one document."""
    load = partial(stdlib_code_set, split=split, cache_dir=Path(cache_dir).expanduser())
    stdlib_code = BenchmarkSet(name="stdlib_code", load=load, licence="psf-2.0")
    return Benchmark(name="stdlib_code", sets=[stdlib_code])


def stdlib_benchmark(*, split: str, cache_dir: str | Path) -> Benchmark:
    """Return two sets over the same code: the pairs of `split`, and names of the definitions."""
    cache = Path(cache_dir).expanduser()
    load = partial(stdlib_names_set, split=split, cache_dir=cache)
    names = BenchmarkSet(name="stdlib_names", load=load, licence="psf-2.0")
    code = stdlib_code_benchmark(split=split, cache_dir=cache).sets
    return Benchmark(name="stdlib", sets=[*code, names])
