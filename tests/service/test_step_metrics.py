"""What is counted of the device's steps."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from service.engine.step import Step
from service.step_metrics import StepMetrics
from tests.fakes import ticket


def test_a_step_that_was_given_up_is_counted_as_that_alone():
    registry = CollectorRegistry()
    steps = StepMetrics(registry)
    steps.serve("tiny/1", 2)
    steps.done(Step("tiny/1", 0, (ticket(3),), 3), 0.01)
    steps.done(Step("tiny/1", 1, (ticket(3),), 3), None)
    steps.done(Step("tiny/1", 1, (), 3), 0.01)

    def counted(name: str) -> list[float | None]:
        return [registry.get_sample_value(name, {"model": "tiny/1", "member": member}) for member in ("0", "1")]

    assert counted("anytime_member_duration_seconds_count") == [1, 0]
    assert counted("anytime_batch_rows_sum") == [3, 0]
    assert counted("anytime_steps_given_up_total") == [0, 1]
    steps.forget("tiny/1")
    assert counted("anytime_steps_given_up_total") == [None, None]
    steps.done(Step("tiny/1", 1, (ticket(3),), 3), None)
