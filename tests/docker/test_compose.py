"""compose.yaml, prometheus.yml and Grafana's provisioning name each other's hosts, ports and paths."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from service.settings import Settings
from tests.docker.files import DOCKER, ROOT, arguments, dashboard, environment, read_yaml, stages

COMPOSE = read_yaml("compose.yaml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
GPU = read_yaml("compose.gpu.yaml")
BY_SERVICE = pytest.mark.parametrize("name", SERVICES)


def ports(name: str) -> dict[int, str]:
    """Address on the host by port in the container."""
    split = [mapping.rsplit(":", 1) for mapping in SERVICES[name].get("ports", [])]
    return {int(inside): outside for outside, inside in split}


def mounts(name: str) -> dict[str, str]:
    """Source by path in the container, of the files and folders of this repository."""
    split = [volume.split(":") for volume in SERVICES[name].get("volumes", [])]
    return {inside: source for source, inside, *_ in split if source.startswith(".")}


def on_the_host(name: str, inside: str) -> Any:
    """The file of this repository that a container sees at `inside`."""
    for target, source in mounts(name).items():
        if PurePosixPath(inside).is_relative_to(target):
            return (DOCKER / source / PurePosixPath(inside).relative_to(target)).resolve()
    raise AssertionError(f"{name} mounts nothing at {inside}")


@pytest.mark.parametrize("path", sorted(DOCKER.rglob("*.y*ml")), ids=lambda path: path.name)
def test_every_file_is_yaml(path: Any):
    assert isinstance(yaml.safe_load(path.read_text()), dict)


@BY_SERVICE
def test_mounted_files_exist_and_cannot_be_written(name: str):
    for inside, source in mounts(name).items():
        assert on_the_host(name, inside).exists(), source
    assert all(volume.endswith(":ro") for volume in SERVICES[name]["volumes"] if volume.startswith("."))


@BY_SERVICE
def test_ports_are_bound_to_loopback(name: str):
    assert ports(name)
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+", outside) for outside in ports(name).values())


@BY_SERVICE
def test_images_are_built_here_or_pinned_to_a_release(name: str):
    tag = SERVICES[name]["image"].partition(":")[2]
    assert "build" in SERVICES[name] or re.fullmatch(r"v?\d+\.\d+\.\d+", tag)


@BY_SERVICE
def test_nothing_secret_is_in_the_environment(name: str):
    assert not [key for key in SERVICES[name].get("environment", {}) if re.search("PASSWORD|SECRET|TOKEN|KEY", key)]


def test_the_service_is_built_from_its_dockerfile_at_the_root():
    build = SERVICES["service"]["build"]
    assert (DOCKER / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).resolve() == DOCKER / "service.Dockerfile"
    declared = {text.partition("=")[0] for step in stages("service.Dockerfile") for text in arguments(step, "ARG")}
    for layer in (build, GPU["services"]["service"]["build"]):
        assert set(layer["args"]) <= declared


def test_the_service_is_reached_where_it_listens():
    [exposed] = arguments(stages("service.Dockerfile")[-1], "EXPOSE")
    assert list(ports("service")) == [int(exposed)]
    [scrape] = read_yaml("prometheus.yml")["scrape_configs"]
    assert [config["targets"] for config in scrape["static_configs"]] == [[f"service:{exposed}"]]


def test_bundles_are_mounted_where_the_image_looks_for_them():
    assert mounts("service")["/models"] == "../models"
    assert "ANYTIME_MODELS_DIR=/models" in " ".join(arguments(stages("service.Dockerfile")[-1], "ENV")).split()


def test_the_kill_comes_after_the_drain():
    assert int(SERVICES["service"]["stop_grace_period"].removesuffix("s")) > Settings.model_fields["drain_s"].default


def test_the_service_starts_with_the_environment_it_gets(monkeypatch: pytest.MonkeyPatch):
    image = environment(stages("service.Dockerfile")[-1])
    for name, value in (image | SERVICES["service"]["environment"]).items():
        monkeypatch.setenv(name, value)
    assert Settings().allow_anonymous, "which only a port on loopback may choose"


def test_who_waits_for_health_waits_for_one_that_has_a_check():
    for service in SERVICES.values():
        for other, wait in service.get("depends_on", {}).items():
            assert wait == {"condition": "service_healthy"}
            assert "healthcheck" in SERVICES[other]
    assert "prometheus" in SERVICES["grafana"]["depends_on"]


@pytest.mark.parametrize("name", ["prometheus", "grafana"])
def test_health_is_asked_at_the_port_that_is_published(name: str):
    assert urlsplit(SERVICES[name]["healthcheck"]["test"][-1]).port in ports(name)


def test_prometheus_reads_what_is_mounted():
    [config] = [word for word in SERVICES["prometheus"]["command"] if word.startswith("--config.file=")]
    inside = config.partition("=")[2]
    assert on_the_host("prometheus", inside) == DOCKER / "prometheus.yml"
    for rule_file in read_yaml("prometheus.yml")["rule_files"]:
        assert on_the_host("prometheus", str(PurePosixPath(inside).parent / rule_file)) == DOCKER / rule_file


def test_grafana_reads_what_is_mounted():
    assert on_the_host("grafana", "/etc/grafana/provisioning/datasources").is_dir()
    [provider] = read_yaml("grafana/provisioning/dashboards/anytime.yaml")["providers"]
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert PurePosixPath(home).parent == PurePosixPath(provider["options"]["path"])
    assert on_the_host("grafana", home).is_file()


def test_the_data_source_is_this_prometheus():
    [source] = read_yaml("grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    url = urlsplit(source["url"])
    assert url.hostname in SERVICES
    assert url.port in ports(str(url.hostname))
    assert source["jsonData"]["timeInterval"] == read_yaml("prometheus.yml")["global"]["scrape_interval"]
    used = {panel["datasource"]["uid"] for panel in dashboard()["panels"] if panel["type"] != "row"}
    assert used == {source["uid"]}


def test_the_gpu_file_only_changes_what_is_there():
    assert set(GPU["services"]) <= set(SERVICES)
    settings = {name.removeprefix("ANYTIME_").lower() for name in GPU["services"]["service"]["environment"]}
    assert settings <= set(Settings.model_fields)
    assert GPU["services"]["service"]["image"] != SERVICES["service"]["image"]
