from __future__ import annotations

import numpy as np

from benchmarks.prefixes import measure
from benchmarks.repository import MODELS
from bundle import open_bundle
from bundle.reference import running_average
from training.data import digits


def test_all_but_flops_is_computed_from_the_answers():
    manifest = open_bundle(MODELS, "digits").manifest
    y = np.array([0, 1, 2, 3])
    sure, unsure = 40 * np.eye(10)[y], np.zeros((4, 10))
    wrong = np.roll(sure, 1, axis=0)
    answers = [wrong, unsure, *[sure] * (len(manifest.members) - 2)]
    rows = measure(manifest, answers, y)
    assert rows[0][:2] == ("0.00 %", "0.00 %")
    assert rows[1] == ("25.00 %", "25.00 %", "2.303", "0.150"), "of ten classes alike the first is named"
    assert (rows[-1][:2], float(rows[-1][2]), float(rows[-1][3])) == (("100.00 %", "100.00 %"), 0, 0)


def test_on_the_held_out_split_they_are_what_the_manifest_says_calibrated():
    bundle = open_bundle(MODELS, "digits")
    training = bundle.manifest.training
    assert training is not None
    held_out = digits.load(training.seed).test
    rows = measure(bundle.manifest, list(running_average(bundle, held_out.x)), np.asarray(held_out.y))
    for prefix, row in zip(bundle.manifest.prefixes, rows, strict=True):
        assert prefix.calibrated is not None
        assert row == (
            f"{100 * prefix.quality:.2f} %",
            f"{100 * (prefix.agreement or 0):.2f} %",
            f"{prefix.calibrated.nll:.3f}",
            f"{prefix.calibrated.ece:.3f}",
        )


def test_without_a_teacher_among_the_stages_there_is_no_agreement():
    manifest = open_bundle(MODELS, "digits").manifest
    alone = manifest.model_copy(update={"members": manifest.members[:6], "prefixes": manifest.prefixes[:6]})
    assert {row[1] for row in measure(alone, [np.eye(10)] * 6, np.arange(10))} == {"-"}
