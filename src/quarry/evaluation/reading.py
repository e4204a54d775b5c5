"""Read the sets of a benchmark before expensive work, and check the convention on their grades."""

from __future__ import annotations

from quarry.errors import UserError
from quarry.evaluation.benchmark import Benchmark, BenchmarkSet
from quarry.evaluation.convention import Convention


def reading_error(benchmark_set: BenchmarkSet, convention: Convention) -> Exception | None:
    """Return why a set cannot be read or scored, None if it can; what is read is held by the set.

    Any exception is returned: other ranks would wait, whatever the error.
    """
    try:
        data = benchmark_set.data
    except Exception as error:  # noqa: BLE001
        return error
    level = convention.rules_on(benchmark_set).relevance_level
    highest = max((max(grades.values(), default=0) for grades in data.qrels.values()), default=0)
    if level > 1 and highest < level:
        return UserError(
            f"convention.relevance_level={level}: no grade of {benchmark_set.name} reaches it "
            f"(the highest is {highest}), and all measures but nDCG would be 0. Fix: "
            f"convention.relevance_level={max(highest, 1)}"
        )
    return None


def read_sets(benchmark: Benchmark, convention: Convention, *, needs_all: bool) -> None:
    """Read every set, or sets until one can be used: an evaluation leaves out those that cannot.

    Raises:
        UserError: some sets cannot be used, or, without `needs_all`, none can; the message has the
            reason of each. An error of another kind is raised as it is if it is the only one.
    """
    errors = []
    for benchmark_set in benchmark.sets:
        error = reading_error(benchmark_set, convention)
        if error is not None:
            errors.append(error)
        elif not needs_all:
            return
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise UserError("\n".join(map(str, errors)))
