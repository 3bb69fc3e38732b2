from __future__ import annotations

import numpy as np
import pytest

from service.engine.host_rows import HostRows, gather

ONE, OTHER = np.arange(12.0).reshape(6, 2), np.arange(100.0, 108.0).reshape(4, 2)


def test_a_batch_that_stayed_together_is_not_copied():
    batch = gather([HostRows(ONE, 1, 3), HostRows(ONE, 3, 4), HostRows(ONE, 4, 6)])
    assert np.shares_memory(batch, ONE)
    np.testing.assert_array_equal(batch, ONE[1:])


@pytest.mark.parametrize(
    "parts",
    [
        [HostRows(ONE, 0, 2), HostRows(OTHER, 2, 3)],
        [HostRows(ONE, 0, 2), HostRows(ONE, 3, 5)],
        [HostRows(ONE, 2, 4), HostRows(ONE, 0, 2)],
        [HostRows(ONE, 0, 2), HostRows(ONE, 2, 3), HostRows(ONE, 2, 3)],
    ],
)
def test_rows_from_here_and_there_are_joined_in_order(parts: list[HostRows]):
    batch = gather(parts)
    assert not np.shares_memory(batch, ONE)
    np.testing.assert_array_equal(batch, np.concatenate([part.array[part.start : part.stop] for part in parts]))
