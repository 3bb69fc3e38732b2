from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.cost import CostModel
from service.engine.predictions import Predictions
from service.engine.shared_cost import SharedCost
from tests.fakes import costs

KEY = "tiny/1", 0


def humped() -> Predictions:
    """Eight rows are shared out and take 8 ms; four or fewer are not, and take 3 ms a row."""
    model_costs = CostModel()
    member = SharedCost({4: [0.006], 8: [0.008]}, {rows: [0.003 * rows] for rows in (1, 2, 4, 8)}, 0.95)
    for _ in range(2):
        member.observe(4, 0.030, now=0.0)
    model_costs.add("tiny/1", [member])
    return Predictions(model_costs)


@pytest.mark.parametrize(
    ("seconds", "rows"), [(0.002, 0), (0.003, 1), (0.0059, 1), (0.0075, 2), (0.008, 8), (0.009, 8), (1.0, 8)]
)
def test_a_larger_batch_may_be_faster_than_a_smaller_one(seconds: float, rows: int):
    assert humped().most_rows(KEY, seconds, 8, 0.0) == rows


def test_a_batch_is_full_where_more_rows_make_none_faster():
    assert humped().full_rows(KEY, 8, 0.0) == 8, "past sizes at which they do not"
    assert Predictions(costs(0.010, per_row=0.010)).full_rows(KEY, 64, 0.0) == 1
    assert Predictions(costs(0.010, per_row=0.001)).full_rows(KEY, 48, 0.0) == 48
    assert Predictions(costs(0.010, per_row=0.009)).full_rows(KEY, 64, 0.0) == 8


@given(st.floats(1e-3, 1e-2), st.floats(1e-6, 1e-2), st.integers(1, 100), st.floats(1e-4, 1.0))
def test_no_more_rows_would_fit(base: float, per_row: float, largest: int, seconds: float):
    predictions = Predictions(costs(base, per_row=per_row))
    most = predictions.most_rows(KEY, seconds, largest, 0.0)
    assert most == max(
        (rows for rows in range(1, largest + 1) if predictions.batch_s(KEY, rows, 0.0) <= seconds), default=0
    )
