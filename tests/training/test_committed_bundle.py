"""The bundle that is committed: made by the digits recipe as it is, from a clean commit, and as good as it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bundle import open_bundle
from bundle.reference import running_average
from training.data import digits
from training.recipes import RECIPES

ROOT = Path(__file__).parent.parent.parent
BUNDLE = open_bundle(ROOT / "models", "digits", 1)


def test_it_is_what_the_recipe_makes():
    training = BUNDLE.manifest.training
    assert training is not None
    config = dict(training.config)
    assert config.pop("classes") == ["conv-2-4"]
    record = RECIPES["digits"].config.override(["with_teacher=true"]).record()
    assert config == {key: record[key] for key in config}, "settings that came later are not in it"
    assert training.refinement is not None
    assert training.refinement.kept > 0
    assert training.refinement.validation_loss < training.refinement.validation_loss_before
    assert training.data_sha256 == digits.load(training.seed).sha256()
    assert training.commit is not None
    assert not training.commit.endswith("-dirty")


def test_it_meets_its_targets_on_the_held_out_part():
    manifest = BUNDLE.manifest
    assert manifest.teacher.accuracy >= 0.98
    assert manifest.prefixes[0].flops_fraction <= 0.15
    averaged = manifest.averaged
    assert len(averaged) == len(manifest.members) - 1
    assert averaged[-1].flops_fraction <= 0.8
    assert averaged[-1].accuracy >= manifest.teacher.accuracy - 0.01
    assert averaged[-1].accuracy > averaged[0].accuracy


def test_its_last_stage_is_the_teacher():
    manifest = BUNDLE.manifest
    assert manifest.members[-1].combine == "replace"
    assert manifest.prefixes[-1].accuracy == manifest.teacher.accuracy
    assert manifest.prefixes[-1].agreement == 1


def test_its_prefixes_are_as_accurate_as_the_manifest_says():
    test = digits.load(0).test
    for prefix, logits_NL in zip(BUNDLE.manifest.prefixes, running_average(BUNDLE, test.x), strict=True):
        assert np.mean(logits_NL.argmax(axis=1) == test.y) == pytest.approx(prefix.accuracy)


def test_it_is_small_and_tells_nothing_of_the_machine_that_made_it():
    files = list((ROOT / "models" / "digits").rglob("*.*"))
    assert sum(file.stat().st_size for file in files) < 200_000
    for file in files:
        content = file.read_bytes()
        assert not any(trace in content for trace in (b"/tmp/", b"/home/", b"/root/", b"/usr/", b".py"))
