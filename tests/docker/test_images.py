"""The images are made by the same steps that the tests run on: same constraints, same extras, files that exist."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from pydantic import ValidationError

from service.settings import Settings
from tests.docker.files import DOCKER, ROOT, arguments, environment, instructions, stages

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
IMAGES = {"service.Dockerfile": "serve-ensemble", "training.Dockerfile": "train-ensemble"}
BY_IMAGE = pytest.mark.parametrize("dockerfile", IMAGES)


def copied(dockerfile: str) -> list[str]:
    """What each COPY takes from the repository."""
    copies = [text.split() for text in arguments(instructions(dockerfile), "COPY")]
    return [source for words in copies if not words[0].startswith("--from") for source in words[:-1]]


def pins(path: str) -> dict[str, str]:
    lines = [line.strip() for line in (ROOT / path).read_text().splitlines()]
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pairs}


@BY_IMAGE
def test_dependencies_are_installed_from_the_constraints_with_extras_that_exist(dockerfile: str):
    [install] = [
        text for text in arguments(instructions(dockerfile), "RUN") if "pip install" in text and "--no-deps" not in text
    ]
    assert " -c constraints.txt " in install
    [extras] = re.findall(r'"\.(\$\{EXTRAS:\+\[\$EXTRAS\]\}|\[\w+\])"', install)
    default = dict(text.partition("=")[::2] for text in arguments(instructions(dockerfile), "ARG")).get("EXTRAS")
    assert (default or extras.strip("[]")) in PROJECT["optional-dependencies"]


def test_an_empty_extras_argument_asks_for_the_bare_package():
    [install] = [text for text in arguments(instructions("service.Dockerfile"), "RUN") if "EXTRAS" in text]
    [wanted] = re.findall(r'"\.[^"]*"', install)
    for extras, expected in (("", "."), ("cuda", ".[cuda]")):
        shell = subprocess.run(
            ["/bin/sh", "-c", f"printf %s {wanted}"],
            env={"EXTRAS": extras},
            capture_output=True,
            text=True,
            check=True,
        )
        assert shell.stdout == expected


@pytest.mark.parametrize("extra", ["", "train"])
def test_every_dependency_is_pinned(extra: str):
    wanted = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    names = {re.split(r"[\[<>=;~! ]", requirement)[0] for requirement in wanted} - {"onnxruntime"}  # of other platforms
    assert names <= set(pins("constraints.txt"))


def test_no_onnxruntime_is_taken_whose_cuda_graphs_read_what_is_no_longer_theirs():
    # microsoft/onnxruntime#32121, in 1.30.0.
    wanted = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["cuda"]]
    floors = [re.findall(r">=1\.(\d+)", text) for text in wanted if text.startswith("onnxruntime-gpu")]
    assert len(floors) == 2
    assert all(int(minor) >= 30 for [minor] in floors)


def test_the_cuda_pins_are_of_nothing_else():
    cuda = pins("docker/constraints-cuda.txt")
    assert {"nvidia-cudnn-cu13", "nvidia-cublas"} <= set(cuda)
    assert all(name.startswith("nvidia-") for name in cuda)
    assert not set(cuda) & set(pins("constraints.txt"))


def test_no_command_asks_for_torch_with_other_cuda_libraries_than_its_own():
    commands = [
        line
        for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docker/*.Dockerfile")]
        for line in page.read_text().splitlines()
        if "pip install" in line and "constraints-cuda.txt" in line
    ]
    assert commands
    assert [line for line in commands if "train" in line.split("[")[-1]] == []


@pytest.mark.parametrize(("dockerfile", "source"), [(image, source) for image in IMAGES for source in copied(image)])
def test_what_is_copied_exists_and_reaches_the_builder(dockerfile: str, source: str):
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    assert f"!{source}" in ignored
    assert (ROOT / source).exists()


def test_nothing_reaches_the_builder_unasked():
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert let_in == {source for image in IMAGES for source in copied(image)}


def test_each_image_holds_one_side_of_the_bundle():
    assert "training" not in copied("service.Dockerfile")
    assert "service" not in copied("training.Dockerfile")


@BY_IMAGE
def test_bases_are_slim_and_of_one_pinned_version(dockerfile: str):
    froms = [text.split() for text in arguments(instructions(dockerfile), "FROM")]
    stages_before = {words[2] for words in froms if len(words) == 3}
    [base] = [words[0] for words in froms if words[0] not in stages_before]
    assert re.fullmatch(r"python:3\.\d+-slim-\w+", base)
    minor = base.split("-")[0].removeprefix("python:")
    assert f"Programming Language :: Python :: {minor}" in PROJECT["classifiers"]


@BY_IMAGE
def test_the_entry_point_is_ours_without_a_shell_and_without_root(dockerfile: str):
    image = stages(dockerfile)[-1]
    [entry] = arguments(image, "ENTRYPOINT")
    assert json.loads(entry)[0] == IMAGES[dockerfile]
    assert IMAGES[dockerfile] in PROJECT["scripts"]
    [user] = arguments(image, "USER")
    assert int(user.split(":")[0]) >= 1000
    assert [word for word, _ in image].index("USER") > [word for word, _ in image].index("RUN")


def test_the_trainer_takes_every_subcommand_and_writes_to_its_volume():
    image = stages("training.Dockerfile")[-1]
    [entry], [folder], [volume] = (arguments(image, word) for word in ("ENTRYPOINT", "WORKDIR", "VOLUME"))
    assert json.loads(entry) == ["train-ensemble"], "`search` and `reproduce` must be its first word"
    assert Path(folder) / "models" == Path(volume), "where bundles go unless `--models` says otherwise"


@BY_IMAGE
def test_what_is_removed_is_the_other_command(dockerfile: str):
    [removed] = re.findall(r"rm /opt/venv/bin/(\S+)", " ".join(arguments(stages(dockerfile)[-1], "RUN")))
    assert {removed, IMAGES[dockerfile]} == set(PROJECT["scripts"])


@BY_IMAGE
def test_the_label_has_the_version_of_the_project(dockerfile: str):
    assert f"VERSION={PROJECT['version']}" in arguments(stages(dockerfile)[-1], "ARG")


def test_the_environment_is_one_that_the_service_reads(monkeypatch: pytest.MonkeyPatch):
    given = {
        name: value
        for name, value in environment(stages("service.Dockerfile")[-1]).items()
        if name.startswith("ANYTIME_")
    }
    assert {name.removeprefix("ANYTIME_").lower() for name in given} <= set(Settings.model_fields)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError, match="ANYTIME_ALLOW_ANONYMOUS=true to serve everyone"):
        Settings()  # who may ask is for whoever runs the image to choose
    monkeypatch.setenv("ANYTIME_ALLOW_ANONYMOUS", "true")
    settings = Settings()
    assert (settings.host, settings.models_dir) == ("0.0.0.0", Path("/models"))
    assert arguments(stages("service.Dockerfile")[-1], "EXPOSE") == [str(settings.port)]


@BY_IMAGE
def test_nothing_is_reported_to_anyone(dockerfile: str):
    assert environment(stages(dockerfile)[-1])["ORT_DISABLE_TELEMETRY"] == "1"


@contextmanager
def answering(status: int) -> Iterator[int]:
    """A server on loopback that gives `status` at /healthz and 404 elsewhere; yields its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/healthz" else 404)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def test_the_command_shown_chooses_who_may_ask():
    text = (DOCKER / "service.Dockerfile").read_text()
    [run] = [line for line in text.splitlines() if "docker run" in line]
    assert "-p 127.0.0.1:8000:8000 -e ANYTIME_ALLOW_ANONYMOUS=true" in run


@pytest.mark.parametrize(("status", "code"), [(200, 0), (404, 1), (503, 1)])
def test_the_health_check_tells_sound_from_unsound(status: int, code: int):
    [check] = arguments(stages("service.Dockerfile")[-1], "HEALTHCHECK")
    command = json.loads(check[check.index("[") :])
    assert command[0] == "python"
    with answering(status) as port:
        # A proxy of the environment must not be asked for loopback.
        env = {"ANYTIME_PORT": str(port), "http_proxy": "http://127.0.0.1:1"}
        run = subprocess.run([sys.executable, *command[1:]], env=env, capture_output=True, check=False)
    assert run.returncode == code


def test_the_health_check_fails_where_nobody_listens():
    [check] = arguments(stages("service.Dockerfile")[-1], "HEALTHCHECK")
    with answering(200) as port:
        pass
    command = [sys.executable, *json.loads(check[check.index("[") :])[1:]]
    run = subprocess.run(command, env={"ANYTIME_PORT": str(port)}, capture_output=True, check=False)
    assert run.returncode == 1
