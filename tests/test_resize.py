"""Optimiser state that follows a table whose rows moved."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recore.contracts import RowMap
from recore.resize import follow

NONE = np.asarray([], dtype=np.int64)


@settings(deadline=None, max_examples=80)
@given(st.integers(1, 6), st.lists(st.integers(-1, 5), max_size=9))
def test_rows_follow_and_fresh_ones_are_zero(count: int, old: list[int]) -> None:
    rows = RowMap(np.asarray([row if row < count else -1 for row in old], dtype=np.int64), NONE)
    state = {
        "step": torch.tensor(7.0),
        "average": torch.arange(1.0, 1 + 2 * count).reshape(count, 2),
        "sum": torch.arange(1, 1 + count),
    }
    found = follow(state, rows)
    assert found["step"] == 7
    assert found["average"].tolist() == [
        state["average"][r].tolist() if r >= 0 else [0.0, 0.0] for r in rows.old
    ]
    assert found["sum"].tolist() == [int(state["sum"][r]) if r >= 0 else 0 for r in rows.old]
    assert found["sum"].dtype == torch.int64


def test_it_shares_no_memory_and_refuses_rows_that_never_were() -> None:
    state = {"average": torch.ones(3, 2), "step": torch.ones(())}
    found = follow(state, RowMap(np.asarray([0, 1, 2]), NONE))
    found["average"].zero_()
    found["step"].zero_()
    assert bool((state["average"] == 1).all())
    assert state["step"] == 1
    with pytest.raises(ValueError, match="'average' has 3 rows, but the map refers to row 3"):
        follow(state, RowMap(np.asarray([0, 3]), NONE))
