"""A regression over HTTP: values instead of classes, squared error instead of accuracy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from bundle import Bundle
from bundle.reference import running_average
from service.app import create_app
from service.client import AnytimeClient, AnytimeError
from service.settings import Settings
from tests.service.server import Server, serving
from tests.tiny import samples, write_tiny

X = samples(4)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bundle, Server]]:
    models = tmp_path_factory.mktemp("models")
    bundle = write_tiny(models, task="regression")
    app = create_app(Settings(models_dir=models, device="cpu", cpu_threads=1, max_batch_rows=8))
    with serving(app) as server:
        yield bundle, server


@pytest.fixture
def client(served: tuple[Bundle, Server]) -> Iterator[AnytimeClient]:
    with AnytimeClient(served[1].url) as one:
        yield one


def metric(server: Server, name: str, members: int) -> float | None:
    registry = server.context.metrics.registry
    return registry.get_sample_value(f"anytime_{name}", {"model": "tiny/1", "members": str(members)})


@pytest.mark.parametrize("members", [1, 2, 3])
def test_values_are_those_of_the_reference(served: tuple[Bundle, Server], client: AnytimeClient, members: int):
    bundle, _ = served
    answer = client.predict(X, max_members=members)
    expected = list(running_average(bundle, X))[members - 1]
    np.testing.assert_allclose(np.array(answer.values), expected, rtol=1e-5, atol=1e-6)
    assert answer.predictions == []
    assert answer.expected_accuracy is None
    assert answer.expected_rmse == bundle.manifest.prefixes[members - 1].rmse


def test_on_the_wire_there_is_no_word_of_classes(served: tuple[Bundle, Server]):
    document = httpx.post(f"{served[1].url}/predict", json={"inputs": X.tolist()}).json()
    assert "predictions" not in document
    assert np.shape(document["values"]) == (4, 3)


def test_feedback_is_counted_as_squared_error_for_every_prefix(served: tuple[Bundle, Server], client: AnytimeClient):
    bundle, server = served
    before = [metric(server, "feedback_squared_error_total", k) for k in (1, 2, 3)]
    answer = client.predict(X)
    labels = np.arange(12.0).reshape(4, 3)
    response = client.feedback(answer.request_id, labels.tolist())
    errors = [((values - labels) ** 2).mean(axis=1) for values in running_average(bundle, X)]
    assert response.rmse == pytest.approx(np.sqrt(errors[-1].mean()), rel=1e-5)
    assert (response.members_used, response.samples, response.correct) == (3, 4, None)
    for k, error in enumerate(errors, start=1):
        after = metric(server, "feedback_squared_error_total", k)
        assert after - before[k - 1] == pytest.approx(error.sum(), rel=1e-5)
    with pytest.raises(AnytimeError, match="labelled already"):
        client.feedback(answer.request_id, labels.tolist())


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ([1.0, 2.0, 3.0, 4.0], "1.0 is not a list of 3 numbers, one for each output"),
        ([[1.0, 2.0]] * 4, "is not a list of 3 numbers"),
        (["red"] * 4, "'red' is not a list of 3 numbers"),
        ([[1.0, 2.0, 3.0]] * 3, "3 labels for 4 samples"),
        ([[1.0, 2.0, 1e300]] * 4, "labels"),
        ([[1.0, 2.0, None]] * 4, "labels"),
        ([True] * 4, "labels"),
    ],
)
def test_labels_that_do_not_fit_are_refused(client: AnytimeClient, labels: list[Any], sentence: str):
    answer = client.predict(X)
    with pytest.raises(AnytimeError) as caught:
        client.feedback(answer.request_id, labels)
    assert (caught.value.status, caught.value.code) == (422, "invalid_field")
    assert sentence in caught.value.detail
    assert client.feedback(answer.request_id, np.zeros((4, 3)).tolist()).samples == 4, "can be corrected"


def test_outputs_of_a_classifier_are_refused(client: AnytimeClient):
    with pytest.raises(AnytimeError, match="a regression has only its values") as caught:
        client.predict(X, outputs=["logits"])
    assert (caught.value.status, caught.value.code) == (422, "invalid_field")


def test_metrics_tell_rmse_and_no_accuracy(served: tuple[Bundle, Server]):
    bundle, server = served
    for prefix in bundle.manifest.prefixes:
        assert metric(server, "prefix_rmse", prefix.members) == prefix.rmse
    text = httpx.get(f"{server.url}/metrics").text
    for name in ("prefix_accuracy", "feedback_correct_rows_total", "prefix_agreeing_rows_total"):
        assert f"anytime_{name}{{" not in text, "an accuracy of 0 would be a lie"


def test_the_model_card_tells_the_task(client: AnytimeClient):
    (card,) = client.models()
    assert card.task == "regression"
    assert card.prefixes[0].rmse == pytest.approx(0.9)
    assert card.prefixes[0].accuracy is None
