from __future__ import annotations

from pathlib import Path

import pytest

from bundle import BundleNotFound
from service.deployments import Deployments
from service.errors import UnknownModel, UnknownVersion
from tests.tiny import write_tiny


def test_every_bundle_is_served_in_its_highest_version(models: Path):
    for name in ("alpha", "beta", "alpha"):
        write_tiny(models, name=name)
    served = Deployments.open(models, ())
    assert [one.key for one in served.all()] == ["alpha/2", "beta/1"]


def test_versions_can_be_pinned_side_by_side(models: Path):
    for _ in range(3):
        write_tiny(models)
    served = Deployments.open(models, ("tiny", "tiny/1"))
    assert [one.key for one in served.all()] == ["tiny/1", "tiny/3"]
    assert served.find("tiny").key == "tiny/3"
    assert served.find("tiny", 1).key == "tiny/1"
    with pytest.raises(UnknownVersion, match="not served in version 2; served: 1, 3"):
        served.find("tiny", 2)


def test_the_name_may_be_left_out_while_there_is_one(models: Path):
    write_tiny(models, name="alpha")
    assert Deployments.open(models, ()).find(None).key == "alpha/1"
    write_tiny(models, name="beta")
    with pytest.raises(UnknownModel, match="say which in `model`: alpha, beta"):
        Deployments.open(models, ()).find(None)


def test_an_unknown_name_lists_the_known(models: Path):
    write_tiny(models, name="alpha")
    with pytest.raises(UnknownModel, match="No model 'beta' is served here; there are: alpha"):
        Deployments.open(models, ()).find("beta")


def test_an_empty_folder_says_how_to_fill_it(tmp_path: Path):
    with pytest.raises(BundleNotFound, match="train one with `train-ensemble digits`"):
        Deployments.open(tmp_path, ())
