from __future__ import annotations

import pytest

from quarry.errors import UserError
from quarry.tasks.optimized_metric import check_optimized_metric, optimized_metric_of

NAMES = ["val/alpha/ndcg_at_10", "val/mean/ndcg_at_10"]


def test_a_metric_that_nothing_measures_is_refused_with_what_there_is() -> None:
    check_optimized_metric(None, [])
    check_optimized_metric("mean/ndcg_at_10", NAMES)
    with pytest.raises(UserError, match="There is alpha/ndcg_at_10, mean/ndcg_at_10"):
        check_optimized_metric("alpha/ndcg@10", NAMES)
    with pytest.raises(UserError, match="benchmark=none has no metrics"):
        check_optimized_metric("mean/ndcg_at_10", [])


def test_the_best_model_goes_before_the_last() -> None:
    result = {"untrained/mean/x": 0.1, "trained/mean/x": 0.2}
    assert optimized_metric_of(result, "mean/x") == 0.2
    assert optimized_metric_of(result | {"best/mean/x": 0.3}, "mean/x") == 0.3
    assert optimized_metric_of({"val/mean/x": 0.4}, "mean/x") == 0.4
    with pytest.raises(UserError, match=r"the result has untrained/mean/x, trained/mean/x"):
        optimized_metric_of(result, "mean/y")
