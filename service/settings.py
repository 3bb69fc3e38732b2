"""What an operator can choose, each by an environment variable `ANYTIME_<NAME>`; units are in the names."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from service.engine.device import Device
from service.engine.execution import Execution

PREFIX = "ANYTIME_"
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
KEY_CHARACTERS = 16


class Settings(BaseSettings):
    """Settings of the service, read from the environment."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        protected_namespaces=(),
        allow_inf_nan=False,
    )

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    """Address to listen on. Loopback unless you choose otherwise; a container wants 0.0.0.0. On any other address
    than loopback you must choose who may ask: set api_keys or allow_anonymous."""

    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """Port to listen on; 0 takes a free one."""

    admin_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Port for /metrics and for changes under /models, which are then not answered on the other port, where clients
    come in. None serves all on one port."""

    admin_host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    """Address of the admin port."""

    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    """Keys of at least 16 characters, separated by commas. With any set, each request but the probes /healthz and
    /readyz must bring one, as `Authorization: Bearer KEY` or `X-API-Key: KEY`."""

    allow_anonymous: bool = False
    """Serve everyone who can reach an address that is not loopback. Choose it where something else decides who can:
    a firewall, a cluster's network, a proxy."""

    tls_certificate: Path | None = None
    """Certificate chain in PEM; with it and tls_key the service speaks HTTPS only."""

    tls_key: Path | None = None
    """Private key of the certificate, in PEM."""

    max_connections: Count = 1000
    """Clients that may be connected; one more is answered 503. Raise the limit of open files before you raise this."""

    head_timeout_s: Positive = 10.0
    """Seconds in which a request's head must have come; then it is answered 408."""

    body_timeout_s: Positive = 30.0
    """Seconds in which a request's body must have come after its head; then it is answered 408."""

    send_timeout_s: Positive = 30.0
    """Seconds for which a client may read nothing of its answer; then it is cut off."""

    keep_alive_s: Count = 75
    """Seconds for which a connection without a request is kept: longer than clients, and proxies in between, keep
    theirs, or one of them sends a request on a connection that is just being closed."""

    models_dir: Path = Path("models")
    """Folder of bundles, `<name>/<version>/manifest.json`."""

    models: Annotated[tuple[str, ...], NoDecode] = ()
    """Bundles to serve, separated by commas, as `name` (its highest version) or `name/version`. Empty serves the
    highest version of every bundle in the folder."""

    models_poll_s: Annotated[float, Field(ge=0)] = 0.0
    """Seconds between two looks into the folder for new versions; 0 never looks. A new version is verified and measured
    before it takes the traffic, and a bad one changes nothing; `POST /models/{name}/load` does the same at once. Names
    that are pinned to a version in ANYTIME_MODELS are left alone."""

    device: Device = "auto"
    """Where members run. `auto` takes CUDA where it works and the CPU elsewhere; with `cuda` the service does not
    start without it."""

    cpu_threads: Annotated[int, Field(ge=0)] = 0
    """Threads that one member may use on the CPU; at each batch size it uses one or all of them, as was faster at
    warm-up. 0: all cores that the process or its container may use; before Linux 6.12 one is left to the event loop.
    With all of them the thread that runs members keeps one core for itself, and the process's other threads off it, as
    long as no other program computes there. Lower it when other programs share the machine. With 1 each member is in
    memory once, with more twice."""

    execution: Execution = "auto"
    """Whether members may run together; the first never does. `auto` measures it at warm-up, for each batch size, and
    that makes start-up longer: members without a path between them run side by side, each with its share of
    `cpu_threads`, where that takes a tenth less time, and small ones that follow each other run in one go, a
    millisecond at most, where that takes no more. `parallel` runs them side by side wherever deadlines allow, and
    `sequential` never together. Side by side needs cpu_threads of 2 or more; on CUDA each member has a run of its own.
    `GET /models` and the log say what came of it."""

    gpu_member_mib: Annotated[int, Field(ge=0)] = 0
    """Device memory that one member may take on a GPU for its weights and while it runs, in MiB; 0 sets no bound. Bound
    it when other programs share the GPU; a member that needs more fails. What requests hold between members comes on
    top: max_queue_rows and max_kept_bytes bound that."""

    max_batch_rows: Count = 64
    """Rows that one step may hold. Larger batches raise throughput and make each step longer, so that a request
    that comes in while one is running waits longer for its first member."""

    max_rows: Count = 64
    """Rows that one request may bring."""

    max_queue_rows: Count = 1024
    """Rows that may be in flight; a request that would exceed it is refused at once with 503 and Retry-After."""

    max_queue_ms: Positive = 60_000.0
    """Predicted time that the rows in flight may need for all their members; beyond it requests are refused like
    those beyond `max_queue_rows`."""

    max_body_bytes: Count = 16 * 1024 * 1024
    """Request bodies above this size are refused with 413 before they are read."""

    max_deadline_ms: Positive = 600_000.0
    """Deadlines above this are taken for a mistake in the unit and refused."""

    reserve_ms: Annotated[float, Field(ge=0)] = 2.0
    """Part of each deadline that is kept back, at the least, for what follows the last member: the hop to the event
    loop, encoding, the socket. More is kept back while answers are measured to take longer, and until enough have been
    measured, but no more than a quarter of the deadline; while there is no answer at all, what nine of ten answers
    need. Raise it if `anytime_deadline_overshoot_seconds` shows late
    answers; lower it to give members more of a short deadline."""

    cost_quantile: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Quantile of recent durations that a member is predicted to stay within. Higher is safer and stops earlier."""

    feedback_requests: Annotated[int, Field(ge=0)] = 10_000
    """Latest requests that `POST /feedback` can still label."""

    max_keep_ms: Positive = 60_000.0
    """Longest time for which a request may ask, with `keep_ms`, that its state be kept to be continued."""

    max_kept_requests: Annotated[int, Field(ge=0)] = 10_000
    """States that are kept at once; the least recently used goes first. 0 keeps none."""

    max_kept_bytes: Annotated[int, Field(ge=0)] = 256 * 1024 * 1024
    """What those states may hold together, in the memory of the device the members run on."""

    max_streams: Annotated[int, Field(ge=0)] = 256
    """Streams that may be open at once; one more is answered 503. 0 opens none."""

    max_stream_bytes: Annotated[int, Field(ge=0)] = 256 * 1024 * 1024
    """What open streams may hold together, in the host's memory; each counts with the most it can ever hold."""

    max_message_bytes: Count = 1024 * 1024
    """Messages of a stream above this size close it, with 1009."""

    stream_idle_s: Positive = 60.0
    """Seconds for which the client of a stream may send nothing; then the stream is closed with 1008."""

    drain_s: Positive = 10.0
    """Seconds that requests in flight may take after SIGTERM; then they are answered with what they have."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """At `debug`, each answered request is a line."""

    log_format: Literal["json", "text"] = "json"
    """`json` writes one object a line; `text` is for people."""

    @field_validator("host", "admin_host")
    @classmethod
    def _bare(cls, value: str) -> str:
        """An IPv6 address may be given as in a URL."""
        return value[1:-1] if value.startswith("[") and value.endswith("]") else value

    @field_validator("models_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        """As such it can be told from whatever else an error speaks of."""
        return value.absolute()

    @field_validator("api_keys", mode="after")
    @classmethod
    def _long_enough(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if any(len(key.get_secret_value()) < KEY_CHARACTERS for key in value):
            raise ValueError(f"each key must have at least {KEY_CHARACTERS} characters")
        return value

    @field_validator("models", "api_keys", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("models")
    @classmethod
    def _named(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for entry in value:
            if not re.fullmatch(r"[^/]+(/[1-9][0-9]{0,17})?", entry):
                raise ValueError(f"{entry!r} is neither `name` nor `name/version`")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.max_rows > self.max_queue_rows:
            raise ValueError("max_rows exceeds max_queue_rows: the largest allowed request would never be admitted")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key go together: set both, or neither")
        if self.admin_port is not None and self.admin_port == self.port:
            raise ValueError("admin_port is port: choose another, or leave it out to serve all on one port")
        return self

    @model_validator(mode="after")
    def _access_is_chosen(self) -> Self:
        hosts = [self.host] if self.admin_port is None else [self.host, self.admin_host]
        for host in hosts:
            if not _is_loopback(host) and not self.api_keys and not self.allow_anonymous:
                raise ValueError(
                    f"{host} can be reached from other machines: set ANYTIME_API_KEYS, "
                    "or ANYTIME_ALLOW_ANONYMOUS=true to serve everyone who can reach it"
                )
        if self.api_keys and self.allow_anonymous:
            raise ValueError("api_keys and allow_anonymous contradict each other: choose one")
        return self


def misspelt(environment: Iterable[str]) -> list[str]:
    """Names of variables that look like settings and are none, which nobody else would tell of."""
    names = (name for name in environment if name.upper().startswith(PREFIX))
    return sorted(name for name in names if name[len(PREFIX) :].lower() not in Settings.model_fields)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
