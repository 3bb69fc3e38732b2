from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from service.settings import Settings, misspelt

KEY = "a-key-of-some-length"


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ANYTIME_PORT", "9000")
    monkeypatch.setenv("ANYTIME_MODELS_DIR", "/data/bundles")
    monkeypatch.setenv("ANYTIME_MODELS", "digits, cifar10/3")
    settings = Settings()
    assert (settings.port, settings.models_dir, settings.models) == (
        9000,
        Path("/data/bundles"),
        ("digits", "cifar10/3"),
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "http"),
        ("PORT", "70000"),
        ("HOST", ""),
        ("DEVICE", "tpu"),
        ("EXECUTION", "concurrent"),
        ("MAX_ROWS", "0"),
        ("COST_QUANTILE", "1.5"),
        ("MODELS", "digits/latest"),
        ("RESERVE_MS", "-1"),
        ("DRAIN_S", "inf"),
        ("MAX_QUEUE_MS", "nan"),
        ("MODELS", "digits/" + "1" * 300),
    ],
)
def test_a_wrong_value_is_refused_at_start(monkeypatch: pytest.MonkeyPatch, name: str, value: str):
    monkeypatch.setenv(f"ANYTIME_{name}", value)
    with pytest.raises(ValidationError, match=rf"(?m)^{name.lower()}$"):
        Settings()


def test_a_request_that_could_never_be_admitted_is_a_contradiction():
    with pytest.raises(ValidationError, match="max_rows exceeds max_queue_rows"):
        Settings(max_rows=100, max_queue_rows=10)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_on_loopback_nothing_has_to_be_chosen(host: str):
    assert Settings(host=host).api_keys == ()


def test_an_ipv6_address_may_be_given_as_in_a_url():
    assert Settings(host="[::1]").host == "::1"
    with pytest.raises(ValidationError, match=":: can be reached"):
        Settings(host="[::]")


@pytest.mark.parametrize("where", [{"host": "0.0.0.0"}, {"host": "::"}, {"host": "example.org"}])
def test_elsewhere_who_may_ask_must_be_chosen(where: dict[str, str]):
    with pytest.raises(ValidationError, match="set ANYTIME_API_KEYS, or ANYTIME_ALLOW_ANONYMOUS=true"):
        Settings(**where)
    assert Settings(**where, allow_anonymous=True).api_keys == ()
    assert not Settings(**where, api_keys=KEY).allow_anonymous


def test_the_admin_address_counts_once_there_is_an_admin_port():
    assert Settings(admin_host="0.0.0.0").admin_port is None
    with pytest.raises(ValidationError, match=r"0\.0\.0\.0 can be reached"):
        Settings(admin_host="0.0.0.0", admin_port=9000)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"api_keys": KEY, "allow_anonymous": True}, "contradict"),
        ({"api_keys": f"{KEY},short"}, "at least 16"),
        ({"tls_key": "key.pem"}, "go together"),
        ({"admin_port": 8000}, "choose another"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, Any], sentence: str):
    with pytest.raises(ValidationError, match=sentence):
        Settings(**changes)


def test_keys_do_not_show():
    settings = Settings(api_keys=f"{KEY}, {KEY}2")
    assert [key.get_secret_value() for key in settings.api_keys] == [KEY, f"{KEY}2"]
    assert KEY not in repr(settings)


def test_every_setting_is_documented():
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_what_looks_like_a_setting_and_is_none_is_found():
    assert misspelt(["ANYTIME_PORT", "anytime_port", "ANYTIME_PROT", "PATH", "Anytime_Max_Row"]) == [
        "ANYTIME_PROT",
        "Anytime_Max_Row",
    ]
