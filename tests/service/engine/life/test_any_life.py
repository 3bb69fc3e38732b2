"""Any traffic through the real scheduler, worker and executors, on a clock that the test moves.

Requests of several models and streams come, share steps, fail, leave row by row, are cancelled by their deadline or
their client at any instant, are kept and go on; models come and go.
"""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.service.engine.life.bundles import bundles
from tests.service.engine.life.streams import open_stream
from tests.service.engine.life.world import World


def play(dice: random.Random, kind: str) -> None:
    """A while of traffic; then everybody has been settled, and nothing is held of anybody."""
    world = World(dice, kind)
    start = world.clock.now()
    span = dice.choice([0.05, 0.3, 1.5])
    for _ in range(dice.randint(1, 8)):
        burst = start + dice.uniform(0, span)
        for _ in range(dice.choice([1, 1, 3, 8])):
            world.at(burst, world.come)
    for _ in range(dice.choice([0, 0, 1, 4])):
        world.at(start + dice.uniform(0, span), lambda: open_stream(world))
    for _ in range(dice.choice([0, 0, 2])):
        world.at(start + dice.uniform(0, 2 * span), lambda: world.reload(dice.choice(list(bundles()))))
    world.run(start + 10.0)
    for life in world.lives.values():
        assert life.settled, "everybody is settled"
        assert life.outcome is not None
    engine, worker = world.engine, world.worker
    assert engine.waiting == 0
    assert not worker._unsettled and not worker._spare and worker._inbox.empty()
    assert not engine._optional._queues and engine._optional._lone is None
    assert not engine._mandatory._queues
    engine._lose_patience(world.clock.now() + 10)
    assert not engine._patience
    for one in world.lives:
        if one.depth == one.members_total and not one.profile.jumps and one.part is None and one.rows:
            assert not one.activations, "nothing is kept that nobody will read"
    for stream in {one.part.stream for one in world.lives if one.part is not None}:
        assert all(earlier >= later for earlier, later in pairwise(stream.done))
    assert not any(one.part for one in engine._arrears._tickets.values() if one.part.stream in world.closed)


# A smaller seed is no simpler life: nothing is shrunk.
@pytest.mark.parametrize("kind", ["one", "spread", "device"])
@settings(max_examples=50, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(dice=st.randoms(use_true_random=False))
def test_any_life(kind: str, dice: random.Random):
    play(dice, kind)
