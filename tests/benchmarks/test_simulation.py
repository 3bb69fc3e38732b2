"""The simulator: that the world is what it says, that the bound bounds, that our scheduler is driven rightly."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.simulation.bound import SLOT_S, TOGETHER_S, clairvoyant, utility
from benchmarks.simulation.policies import Trace, make_trace, ours, timely_accuracy
from benchmarks.simulation.static import CHOICES, TEACHER, best_by_budget, by_budget, static
from benchmarks.simulation.traffic import SHAPES, arrivals
from benchmarks.simulation.world import DEADLINES_S, EDGES, FIXED_SHARE, MAX_BATCH_ROWS, MEMBER_S, World, make_world


@pytest.fixture(scope="module")
def world() -> World:
    return make_world()


def lone(world: World, budget_s: float) -> Trace:
    """Requests so far apart that each has the device to itself."""
    arrived = np.arange(400) * 1.0
    return make_trace(world, arrived, np.full(400, budget_s), np.random.default_rng(0))


def test_the_chain_is_the_ladder_that_was_meant(world: World):
    accuracy = world.profile().accuracy
    assert (accuracy[0], accuracy[-2], accuracy[-1]) == pytest.approx((0.886, 0.940, 0.955), abs=0.003)
    assert world.moves.sum(axis=2) == pytest.approx(np.ones((6, 10)))


def test_what_a_band_promises_is_kept_on_average(world: World):
    paths = world.paths(20_000, np.random.default_rng(0))
    promised = world.ahead[0][paths[:, 0], -2].mean()
    assert world.ahead[-1][paths[:, -1], 0].mean() == pytest.approx(promised, abs=0.003)


@pytest.mark.parametrize("shape", SHAPES)
def test_traffic_has_the_rate_that_was_asked_for(shape: str):
    counts = [len(arrivals(shape, 100.0, 3000, np.random.default_rng(seed))) for seed in range(8)]
    assert np.mean(counts) == pytest.approx(3000, rel=0.15)


@pytest.mark.parametrize(("budget_s", "depth"), [(0.0016, 0), (0.0018, 1), (0.0035, 2), (0.1, 8)])
def test_alone_every_request_gets_what_fits(world: World, budget_s: float, depth: int):
    assert set(ours(world, lone(world, budget_s)).depth.tolist()) == {depth}


def test_who_is_unsure_goes_straight_to_the_teacher_where_there_is_no_time_for_the_way(world: World):
    trace = lone(world, 0.018)
    depth = ours(world, trace).depth
    assert set(depth[trace.paths[:, 0] < 5].tolist()) == {8}


def test_the_bound_is_met_by_an_idle_device_and_never_exceeded_by_a_busy_one(world: World):
    idle = lone(world, 0.1)
    assert clairvoyant(world, idle) == pytest.approx(world.profile().accuracy[-1], abs=0.002)
    random = np.random.default_rng(3)
    arrived = arrivals("poisson", 20 / sum(MEMBER_S), 1500, random)
    busy = make_trace(world, arrived, random.choice([0.02, 0.05, 0.1], len(arrived)), random)
    bound = clairvoyant(world, busy)
    reached = [timely_accuracy(busy, served) for served in (ours(world, busy), static(busy, [0]), static(busy, [7]))]
    assert max(reached) < bound < 0.94, "twenty times the load must cost accuracy, of the clairvoyant too"


def test_a_rows_utility_is_concave_and_ends_at_all_that_there_is(world: World):
    ends = []
    for budget_s in (0.001, 0.002, 0.02, 0.1):
        shape = utility(world, budget_s)
        slopes = shape.accuracy / shape.seconds
        assert (np.diff(slopes) < 0).all()
        ends.append(shape.accuracy.sum())
    assert ends[0] == 0
    assert ends[1] == pytest.approx(world.profile().accuracy[0])
    assert ends[3] == pytest.approx(world.profile().accuracy[-1], abs=1e-4)
    assert ends[1] < ends[2] <= ends[3]


def test_of_a_crowd_the_clairvoyant_serves_as_many_as_there_is_time_for(world: World):
    """A hundred requests at once, due in one slot: it has that slot, and rows in a batch of all share what is fixed."""
    crowd = make_trace(world, np.zeros(100), np.full(100, 0.99 * SLOT_S), np.random.default_rng(0))
    each_s = MEMBER_S[0] * (FIXED_SHARE / MAX_BATCH_ROWS + 1 - FIXED_SHARE)
    assert clairvoyant(world, crowd) == pytest.approx(SLOT_S / each_s * world.profile().accuracy[0] / 100, rel=1e-6)


def test_requests_that_are_solved_for_together_cost_what_the_cheapest_of_them_costs(world: World):
    """The first is gone before the crowd comes, and shares no step: it must not make the crowd dearer."""
    budget_s = 0.99 * TOGETHER_S
    arrived = np.array([0.0, *[budget_s + 1e-6] * 100])
    crowd = make_trace(world, arrived, np.full(101, budget_s), np.random.default_rng(0))
    each_s = MEMBER_S[0] * (FIXED_SHARE / MAX_BATCH_ROWS + 1 - FIXED_SHARE)
    assert clairvoyant(world, crowd) == pytest.approx(SLOT_S / each_s * world.profile().accuracy[0] / 101, rel=1e-6)


def test_who_asks_to_leave_when_sure_leaves_then(world: World):
    trace = lone(world, 0.1)
    depth = ours(world, trace, 0.98).depth
    sure = trace.paths[:, 0] > EDGES.index(0.98)
    assert set(depth[sure].tolist()) == {1}
    assert 8 in depth[~sure]


def mixed(world: World) -> Trace:
    """Requests of all three budgets, 60 % of what the device can do for them."""
    random = np.random.default_rng(3)
    arrived = arrivals("poisson", 0.6 / sum(MEMBER_S), 500, random)
    return make_trace(world, arrived, random.choice(DEADLINES_S, len(arrived)), random)


def test_a_plan_of_one_choice_is_that_choice(world: World):
    trace = mixed(world)
    for choice, members in CHOICES.items():
        np.testing.assert_array_equal(by_budget(trace, (choice,) * 3).depth, static(trace, members).depth)


def test_a_plan_gives_each_budget_its_members_and_alone_each_has_them(world: World):
    arrived = np.arange(300) * 1.0
    trace = make_trace(world, arrived, np.tile(DEADLINES_S, 100), np.random.default_rng(0))
    assert by_budget(trace, ("depth 3", "depth 7", TEACHER)).depth.reshape(-1, 3).tolist() == [[3, 7, 8]] * 100


def test_a_plan_may_be_better_than_any_one_choice_and_is_never_worse(world: World):
    trace = mixed(world)
    plan, reached = best_by_budget(trace)
    assert reached == timely_accuracy(trace, by_budget(trace, plan))
    assert reached > max(timely_accuracy(trace, static(trace, members)) for members in CHOICES.values())
    changed = [(*plan[:at], other, *plan[at + 1 :]) for at in range(3) for other in CHOICES]
    assert reached == max(timely_accuracy(trace, by_budget(trace, other)) for other in changed)


def test_a_static_server_drops_the_hopeless_and_gives_the_others_its_time(world: World):
    """Two come at once; the first has no time for the teacher, and is not tried."""
    trace = make_trace(world, np.zeros(2), np.array([0.014, 0.0152]), np.random.default_rng(0))
    assert static(trace, CHOICES[TEACHER]).depth.tolist() == [0, 8]
    assert static(trace, CHOICES[TEACHER], fifo=True).depth.tolist() == [0, 0], "a plain one tries both"


def test_a_running_teacher_is_given_up_for_who_would_have_none_behind_it(world: World):
    """The first have been at the teacher for 3 ms when others come who have time for it too, just."""
    arrived, random = np.arange(400) * 1.0, np.random.default_rng(0)
    first = make_trace(world, arrived, np.full(400, 0.1), random)
    late = make_trace(world, arrived + 0.0151, np.full(400, 0.0175), random)
    both = Trace(
        *(
            np.stack([getattr(first, name), getattr(late, name)], axis=1).reshape(800, *getattr(first, name).shape[1:])
            for name in ("arrived", "due", "paths", "worth")
        )
    )
    served = ours(world, both)
    assert 0 < served.given_up <= 400
    depth = served.depth.reshape(400, 2)
    assert (depth[:, 0] == 8).all(), "there was time to begin anew"
    assert (depth[:, 1] == 8).mean() > 0.3, "not a single one, behind the teacher"


def test_where_durations_are_uncertain_a_first_member_is_tried_and_a_second_needs_a_margin(world: World):
    """A member lasts 1.7 ms, or longer or shorter by a fifth: one that is to be in time as a rule needs some 2.4 ms."""
    random, arrived = np.random.default_rng(0), np.arange(400) * 0.1
    scant, two = (make_trace(world, arrived, np.full(400, budget_s), random) for budget_s in (0.0018, 0.0035))
    assert (ours(world, scant).depth == 1).all()
    assert 0.4 < (ours(world, scant, noise=0.2).depth > 0).mean() < 0.8, "as often as it is in time by chance"
    assert (ours(world, two).depth == 2).all()
    assert (ours(world, two, noise=0.2).depth[100:] > 1).mean() < 0.4, "by chance half of them would be in time"


@pytest.mark.parametrize("depth", range(1, 8))
def test_what_a_row_can_reach_is_the_prefix_for_which_it_has_time(world: World, depth: int):
    """Or a little more: the answers of some bands get no better, and stay as they are."""
    reached = utility(world, depth * MEMBER_S[0] + 1e-4).accuracy.sum()
    accuracy = world.profile().accuracy
    assert accuracy[depth - 1] - 1e-6 <= reached < accuracy[depth]
