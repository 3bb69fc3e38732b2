"""Who may ask what: API keys, and the port for administration."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from starlette.types import Scope

from service.errors import ForeignOrigin, NotFound, Problem, Unauthorized

PROBES = frozenset({"/healthz", "/readyz"})
"""Orchestrators ask these without a key, on either port."""

DEFAULT_PORTS = {"http": 80, "https": 443}


class Access:
    """Decides on the head of a request, before its body is read.

    Args:
        api_keys: any of them opens everything; none: everyone may ask.
        admin_port: local port on which alone administration is answered; None: wherever the service listens.
    """

    def __init__(self, api_keys: Iterable[str] = (), admin_port: int | None = None) -> None:
        # Digests have one length, so that comparing tells nothing, not even that.
        self._digests = [_digest(key.encode()) for key in api_keys]
        self._admin_port = admin_port

    def refuse(self, scope: Scope, headers: Mapping[bytes, bytes]) -> Problem | None:
        """Why the request is not let in; None: it is.

        Args:
            scope: of an HTTP request or a WebSocket.
            headers: by lower-case name.
        """
        path = scope["path"]
        if not path.isprintable():
            # The framework takes "/metrics\n" for "/metrics": what follows would judge another path than is answered.
            return NotFound("There is no such path here: it holds characters that cannot be printed.")
        if path in PROBES:
            return None
        if self._digests and not self._knows(_token(headers)):
            problem = Unauthorized(
                "This service wants an API key: send `Authorization: Bearer KEY` or `X-API-Key: KEY`."
            )
            problem.headers["www-authenticate"] = "Bearer"
            return problem
        if self._admin_port is not None and _administers(scope) and scope["server"][1] != self._admin_port:
            return NotFound(f"{path} is not served on this port; ask on the port for administration.")
        if _changes(scope) and is_foreign(headers):
            return ForeignOrigin("A page may change what is served only on the host it came from.")
        return None

    def _knows(self, token: bytes) -> bool:
        given = _digest(token)
        # All are compared, found or not: the time tells nothing of which it was.
        return sum(hmac.compare_digest(given, known) for known in self._digests) > 0


def _administers(scope: Scope) -> bool:
    """Whether this shows or changes how the service is run, rather than uses it."""
    return scope["path"] == "/metrics" or _changes(scope)


def _changes(scope: Scope) -> bool:
    path: str = scope["path"]
    unsafe = scope["type"] == "http" and scope["method"] not in ("GET", "HEAD")
    return unsafe and (path == "/models" or path.startswith("/models/"))


def is_foreign(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a browser sent this for a page of another host, which any page may make it do: browsers name the page."""
    origin = headers.get(b"origin")
    if origin is None:
        return False
    try:
        page = urlsplit(origin.decode("latin-1"))
        here = urlsplit(f"{page.scheme}://{headers.get(b'host', b'').decode('latin-1')}")
        default = DEFAULT_PORTS.get(page.scheme)
        return (page.hostname, page.port or default) != (here.hostname, here.port or default) or page.hostname is None
    except ValueError:
        return True


def _token(headers: Mapping[bytes, bytes]) -> bytes:
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else headers.get(b"x-api-key", b"")


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
