from __future__ import annotations

import pytest

from bundle import Bundle, Outlook
from service.engine.profile import Profile
from tests.fakes import profile


def test_without_an_outlook_every_sample_is_worth_the_prefixs_mean(tiny: Bundle):
    subject = Profile.of(tiny.manifest)
    assert subject.at_start(2) == pytest.approx((0.0, 1.4, 1.5, 1.6))
    assert subject.after(2, [0.1, 0.9]) == pytest.approx((1.5, 1.6))
    assert not subject.jumps


def test_accuracies_that_fall_with_depth_promise_nothing():
    assert profile(0.8, 0.7, 0.9).at_start(1) == (0.0, 0.8, 0.8, 0.9)


def test_the_outlook_is_looked_up_by_confidence(tiny: Bundle):
    bands = (
        Outlook(up_to=0.5, share=0.4, accuracy=(0.3, 0.5, 0.6)),
        Outlook(up_to=1.0, share=0.6, accuracy=(0.9, 0.95, 0.95)),
    )
    first, *others = tiny.manifest.prefixes
    manifest = tiny.manifest.model_copy(
        update={"prefixes": (first.model_copy(update={"outlook": bands, "temperature": 2.0}), *others)}
    )
    subject = Profile.of(manifest)
    assert subject.temperature == (2.0, 1.0, 1.0)
    assert subject.after(1, [0.5]) == (0.3, 0.5, 0.6), "the edge belongs to its band"
    assert subject.after(1, [1.0 + 1e-12]) == (0.9, 0.95, 0.95)
    assert subject.after(1, [0.2, 0.7]) == pytest.approx((1.2, 1.45, 1.55))
    assert subject.after(1, []) == (0.0, 0.0, 0.0)


def test_only_a_last_member_that_replaces_and_reads_nothing_can_be_run_at_any_depth(tiny: Bundle):
    *others, last = tiny.manifest.members
    for combine, connections, jumps in (
        ("replace", (), True),
        ("replace", last.connections, False),
        ("mean", (), False),
    ):
        changed = last.model_copy(update={"combine": combine, "connections": connections})
        manifest = tiny.manifest.model_copy(update={"members": (*others, changed)})
        assert Profile.of(manifest).jumps is jumps
