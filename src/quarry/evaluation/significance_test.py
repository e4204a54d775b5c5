"""State how differences between systems are tested, and refuse tests that could find nothing."""

from __future__ import annotations

from dataclasses import dataclass

from quarry.errors import UserError
from quarry.metrics.significance import NUM_PERMUTATIONS


@dataclass(frozen=True, kw_only=True)
class SignificanceTest:
    """How differences are tested: see `quarry.metrics.significance`.

    Attributes:
        alpha: the chance of any false alarm in a table.
        num_permutations: tosses of the signs, at most.
        seed: of the tosses.
    """

    alpha: float = 0.05
    num_permutations: int = NUM_PERMUTATIONS
    seed: int = 42

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise UserError(f"task.alpha={self.alpha}: a chance, above 0 and below 1, such as 0.05")
        if self.num_permutations < 1:
            raise UserError(f"task.num_permutations={self.num_permutations} must be 1 or more")


def refuse_too_few_permutations(num_comparisons: int, test: SignificanceTest) -> None:
    """Refuse so few permutations that no comparison among so many could be significant.

    Raises:
        UserError: that is so; the message has a number that is enough.
    """
    if num_comparisons > test.alpha * (test.num_permutations + 1):
        raise UserError(
            f"task.num_permutations={test.num_permutations} cannot tell {num_comparisons} "
            f"comparisons apart from chance at task.alpha={test.alpha}: the smallest p-value is "
            f"1 / {test.num_permutations + 1}, times {num_comparisons}. Set task.num_permutations="
            f"{int(10 * num_comparisons / test.alpha)}."
        )
