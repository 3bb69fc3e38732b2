"""`serve-ensemble` as a process: what it says when it cannot start, and how it ends."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from bundle import Bundle
from service.client import AnytimeClient, AnytimeError
from service.engine.providers import has_cuda_driver


def command(models: Path, **environment: str) -> tuple[list[str], dict[str, str]]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ANYTIME_")}
    added = {"ANYTIME_MODELS_DIR": str(models), "ANYTIME_PORT": "0", "ANYTIME_DEVICE": "cpu", **environment}
    return [sys.executable, "-m", "service"], clean | added


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"ANYTIME_MODELS": "absent"}, "There is no bundle 'absent'"),
        ({"ANYTIME_PORT": "http"}, "ANYTIME_PORT: Input should be a valid integer"),
        ({"ANYTIME_MAX_ROWS": "5000"}, "max_rows exceeds max_queue_rows"),
        pytest.param(
            {"ANYTIME_DEVICE": "cuda"},
            "no CUDA driver",
            marks=pytest.mark.skipif(has_cuda_driver(), reason="has a CUDA driver"),
        ),
        ({"ANYTIME_API_KEYS": "short"}, "ANYTIME_API_KEYS: each key must have at least 16 characters."),
        ({"ANYTIME_HOST": "0.0.0.0"}, "0.0.0.0 can be reached from other machines: set ANYTIME_API_KEYS"),
        ({"ANYTIME_HOST": "192.0.2.1", "ANYTIME_ALLOW_ANONYMOUS": "true"}, "cannot listen on 192.0.2.1, port 0"),
        ({"ANYTIME_TLS_CERTIFICATE": "absent.pem", "ANYTIME_TLS_KEY": "absent.pem"}, "cannot use the certificate"),
    ],
)
def test_it_says_in_one_line_why_it_cannot_start(
    tiny: Bundle, models: Path, environment: dict[str, str], sentence: str
):
    arguments, env = command(models, **environment)
    ended = subprocess.run(arguments, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    (line,) = [line for line in ended.stderr.splitlines() if not line.startswith("{")]
    assert line.startswith("serve-ensemble: ")
    assert sentence in line


def test_a_misspelt_setting_is_named(models: Path):
    arguments, env = command(models, ANYTIME_MAX_ROW="5")
    ended = subprocess.run(arguments, env=env, capture_output=True, text=True, timeout=60, check=False)
    said = [json.loads(line)["message"] for line in ended.stderr.splitlines() if line.startswith("{")]
    assert "ANYTIME_MAX_ROW is no setting and changes nothing: `serve-ensemble --help` lists them" in said


def test_help_lists_every_setting(models: Path):
    arguments, env = command(models)
    printed = subprocess.run([*arguments, "--help"], env=env, capture_output=True, text=True, timeout=60, check=True)
    assert "ANYTIME_RESERVE_MS (default 2.0)" in printed.stdout


@pytest.fixture
def certificate(tmp_path: Path) -> dict[str, str]:
    """Settings with a certificate for localhost that nobody has signed."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl to make a certificate")
    paths = {"ANYTIME_TLS_CERTIFICATE": str(tmp_path / "chain.pem"), "ANYTIME_TLS_KEY": str(tmp_path / "key.pem")}
    make = [
        openssl,
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    into = ["-out", paths["ANYTIME_TLS_CERTIFICATE"], "-keyout", paths["ANYTIME_TLS_KEY"]]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*make, *into, *names], check=True, capture_output=True)
    return paths


def test_with_a_certificate_it_speaks_https_only(tiny: Bundle, models: Path, certificate: dict[str, str]):
    arguments, env = command(models, **certificate, ANYTIME_API_KEYS="a-key-of-some-length")
    with subprocess.Popen(arguments, env=env, stderr=subprocess.PIPE, text=True) as process:
        address = next(address_of(line) for line in map(json.loads, process.stderr) if address_of(line))
        assert address.startswith("https://127.0.0.1:")
        trusted = ssl.create_default_context(cafile=certificate["ANYTIME_TLS_CERTIFICATE"])
        assert httpx.get(f"{address}/healthz", verify=trusted).json() == {"status": "ok"}
        assert httpx.get(f"{address}/models", verify=trusted).status_code == 401
        stream = f"{address.replace('https', 'wss')}/stream"
        # The second comes from elsewhere, but is let in as far as that.
        for key, status in (("wrong", 401), ("a-key-of-some-length", 403)):
            headers = {"x-api-key": key, "origin": "https://example.com"}
            with pytest.raises(InvalidStatus) as caught:
                connect(stream, ssl=trusted, additional_headers=headers, proxy=None)
            assert caught.value.response.status_code == status
        with AnytimeClient(address, api_key="a-key-of-some-length", ssl=trusted) as client:
            while not client.ready():
                pass
            assert [card.name for card in client.models()] == ["tiny"]
            with pytest.raises(AnytimeError) as refused:
                next(client.stream([]))
            assert refused.value.code == "not_streamable", "that far it trusts the certificate"
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{address.replace('https', 'http')}/healthz")
        probe = [sys.executable, "-m", "service.probe"]
        port = {"ANYTIME_PORT": address.rpartition(":")[2]}
        assert subprocess.run(probe, env=env | port, check=False).returncode == 0
        assert subprocess.run(probe, env=env | port | {"ANYTIME_TLS_CERTIFICATE": ""}, check=False).returncode == 1
        process.terminate()
        process.stderr.read()
        assert process.wait(60) == 0


def test_a_handshake_that_does_not_come_is_not_waited_for(tiny: Bundle, models: Path, certificate: dict[str, str]):
    arguments, env = command(models, **certificate, ANYTIME_HEAD_TIMEOUT_S="0.1")
    with subprocess.Popen(arguments, env=env, stderr=subprocess.PIPE, text=True) as process:
        address = next(address_of(line) for line in map(json.loads, process.stderr) if address_of(line))
        with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), timeout=30) as wire:
            assert wire.recv(1) == b""
        process.terminate()
        process.stderr.read()
        assert process.wait(60) == 0


def address_of(line: dict[str, str]) -> str | None:
    return line["message"].split()[3] if line["message"].startswith("Uvicorn running on") else None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_zero_and_structured_logs(tiny: Bundle, models: Path, number: signal.Signals):
    """With a state kept for a minute, and new versions looked for every millisecond."""
    arguments, env = command(models, ANYTIME_MODELS_POLL_S="0.001")
    with subprocess.Popen(arguments, env=env, stderr=subprocess.PIPE, text=True) as process:
        lines = []
        for line in process.stderr:
            lines.append(json.loads(line))
            if lines[-1]["message"] == "ready":
                break
        (address,) = [line["message"] for line in lines if line["message"].startswith("Uvicorn running on")]
        url = address.split()[3]
        assert httpx.get(f"{url}/healthz").json() == {"status": "ok"}
        wanted = {"inputs": [[1, 2, 3, 4]], "max_members": 1, "keep_ms": 60_000}
        assert httpx.post(f"{url}/predict", json=wanted).json()["kept_ms"] == 60_000
        process.send_signal(number)
        lines += [json.loads(line) for line in process.stderr]
        assert process.wait(60) == 0
    assert {"time", "level", "logger", "message"} <= set(lines[0])
    assert any("serving tiny/1 on CPUExecutionProvider" in line["message"] for line in lines)
    assert lines[-1]["message"].startswith("Finished server process")


@pytest.mark.skipif(
    sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2, reason="needs Linux's affinity and two cores"
)
def test_the_device_thread_has_a_core_to_itself(tiny: Bundle, models: Path):
    arguments, env = command(models)
    with subprocess.Popen(arguments, env=env, stderr=subprocess.PIPE, text=True) as process:
        address = next(address_of(line) for line in map(json.loads, process.stderr) if address_of(line))
        alone: set[int] = set()
        with AnytimeClient(address) as client:
            # It may be given up as soon as others compute there, but while the members are measured it has been seen.
            while not alone and not client.ready():
                alone = cores_of_one(process.pid)
        process.terminate()
        process.stderr.read()
        assert process.wait(60) == 0
    assert len(alone) == 1


def cores_of_one(process: int) -> set[int]:
    """Cores on which only one thread of a process may run, and this nowhere else."""
    granted = []
    for task in Path(f"/proc/{process}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            granted.append(os.sched_getaffinity(int(task.name)))
    single = [cores for cores in granted if len(cores) == 1 and sum(cores <= others for others in granted) == 1]
    return single[0] if len(single) == 1 else set()
