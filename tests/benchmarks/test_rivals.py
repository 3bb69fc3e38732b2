"""The rivals compute what the service computes: else they would win by doing less."""

from __future__ import annotations

from pathlib import Path

import httpx
import numpy as np
import pytest

from benchmarks.chain import pixels, write_chain
from benchmarks.rivals.bare import NPY, create_app
from benchmarks.rivals.ensemble import Ensemble, from_npy, softmax, to_npy
from bundle import open_bundle
from bundle.reference import running_average

MODELS = Path(__file__).parents[2] / "models"


@pytest.mark.parametrize("members", [1, 3])
def test_the_ensemble_is_the_reference(tmp_path: Path, members: int):
    bundle = write_chain(tmp_path, members=3)
    x = pixels(2)
    expected = list(running_average(bundle, x))[members - 1]
    np.testing.assert_allclose(Ensemble(bundle.path, members).run(x), expected, atol=1e-4)


@pytest.mark.parametrize("members", [1, 6, 7])
def test_a_last_stage_replaces_the_mean_as_the_manifest_says(members: int):
    bundle = open_bundle(MODELS, "digits")
    x = np.random.default_rng(0).integers(0, 17, (5, *bundle.manifest.input.shape)).astype(bundle.manifest.input.dtype)
    expected = list(running_average(bundle, x))[members - 1]
    np.testing.assert_allclose(Ensemble(bundle.path, members).run(x), expected, atol=1e-4)


@pytest.mark.anyio
async def test_the_bare_server_answers_both_forms(tmp_path: Path):
    bundle = write_chain(tmp_path, members=2)
    x = pixels(1)
    *_, expected = running_average(bundle, x)
    transport = httpx.ASGITransport(create_app(Ensemble(bundle.path, 2)))
    async with httpx.AsyncClient(transport=transport, base_url="http://bare") as client:
        text = (await client.post("/predict", json={"inputs": x.tolist()})).json()["predictions"]
        assert [one["index"] for one in text] == expected.argmax(1).tolist()
        binary = await client.post("/predict", content=to_npy(x), headers={"content-type": NPY})
        np.testing.assert_allclose(from_npy(binary.content), softmax(expected), atol=1e-4)
