"""Define the settings of significance tests, and refuse settings that can find no difference."""

from __future__ import annotations

from dataclasses import dataclass

from quarry.errors import UserError
from quarry.metrics.significance import NUM_PERMUTATIONS


@dataclass(frozen=True, kw_only=True)
class SignificanceTest:
    """Settings of the paired randomization test in `quarry.metrics.significance`.

    Attributes:
        alpha: significance level of all tests of a table together (family-wise error rate).
        num_permutations: maximum number of random sign flips.
        seed: seed of the sign flips.
    """

    alpha: float = 0.05
    num_permutations: int = NUM_PERMUTATIONS
    seed: int = 42

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise UserError(
                f"task.alpha={self.alpha}: must be above 0 and below 1. Fix: task.alpha=0.05"
            )
        if self.num_permutations < 1:
            raise UserError(f"task.num_permutations={self.num_permutations}: must be 1 or more")


def refuse_too_few_permutations(num_comparisons: int, test: SignificanceTest) -> None:
    """Refuse too few permutations for any of `num_comparisons` tests to be significant.

    Raises:
        UserError: the smallest possible corrected p-value exceeds alpha; the message names a
            sufficient number.
    """
    if num_comparisons > test.alpha * (test.num_permutations + 1):
        raise UserError(
            f"task.num_permutations={test.num_permutations}: too few for any of {num_comparisons} "
            f"comparisons to be significant at task.alpha={test.alpha}: the smallest corrected "
            f"p-value is {num_comparisons} / {test.num_permutations + 1}. Fix: "
            f"task.num_permutations={int(10 * num_comparisons / test.alpha)}."
        )
