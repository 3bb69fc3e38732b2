"""The process around the application: listening sockets, limits, TLS, and an end within a bound."""

from __future__ import annotations

import asyncio
import logging
import math
import socket
from functools import partial

import uvicorn
from fastapi import FastAPI

from service.context import Context
from service.protocol import BoundedProtocol, Limits, protocol
from service.receiver import receiving
from service.settings import Settings
from service.websocket import websocket

log = logging.getLogger(__name__)

GRACE_S = 2.0
"""For the answers that the end of the drain has decided to get out."""


class CannotListen(Exception):
    """A port or a certificate cannot be had; the message says which and why."""


class Server(uvicorn.Server):
    """uvicorn, but what is in flight at the end of a drain is answered early rather than cut off.

    Args:
        app: made by `create_app`.

    Raises:
        CannotListen: the certificate or its key cannot be used.
    """

    def __init__(self, app: FastAPI) -> None:
        self._context: Context = app.state.context
        settings = self._context.settings
        limits = Limits(
            settings.head_timeout_s,
            settings.body_timeout_s,
            settings.send_timeout_s,
            settings.max_connections,
            spared_port=settings.admin_port,
        )
        self._connection = receiving(protocol(limits, self._context.clock, self._context.metrics.rejected))
        config = uvicorn.Config(
            app,
            http=self._connection,  # type: ignore[arg-type]
            ws=websocket(settings.send_timeout_s),  # type: ignore[arg-type]
            ws_max_size=settings.max_message_bytes,
            # Floats hardly shrink, and to unpack them would keep the event loop from others.
            ws_per_message_deflate=False,
            timeout_keep_alive=settings.keep_alive_s,
            # An application that cannot start must not be served all the same.
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            # Nothing here asks for the client's address or scheme.
            proxy_headers=False,
            timeout_graceful_shutdown=math.ceil(settings.drain_s + GRACE_S),
            ssl_certfile=settings.tls_certificate,
            ssl_keyfile=settings.tls_key,
        )
        try:
            config.load()
        except OSError as error:
            raise CannotListen(
                f"cannot use the certificate {settings.tls_certificate} with the key {settings.tls_key}: {error}."
            ) from error
        super().__init__(config)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start accepting; a TLS handshake has the time of a head, for which uvicorn has no option."""
        await super().startup([])
        config, loop = self.config, asyncio.get_running_loop()
        state = {"server_state": self.server_state, "app_state": self.lifespan.state}
        connection = partial(self._connection, config=config, **state)
        timeout_s = None if config.ssl is None else self._context.settings.head_timeout_s
        for one in sockets or ():
            self.servers.append(
                await loop.create_server(
                    connection, sock=one, ssl=config.ssl, backlog=config.backlog, ssl_handshake_timeout=timeout_s
                )
            )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, let what is in flight end, and after `drain_s` answer it with what there is."""
        self._context.draining = True
        self._context.streams.drain()
        loop = asyncio.get_running_loop()
        end = loop.call_later(self._context.settings.drain_s, self._dismiss)
        await super().shutdown(sockets)
        end.cancel()

    def _dismiss(self) -> None:
        """Answer early what is in flight, and what is still coming."""
        self._context.gate.dismiss()
        for connection in list(self.server_state.connections):
            if isinstance(connection, BoundedProtocol):
                connection.dismiss()


def listen(settings: Settings) -> list[socket.socket]:
    """The sockets that the settings ask for.

    Raises:
        CannotListen: one of them cannot be had.
    """
    scheme = "https" if settings.tls_certificate else "http"
    sockets = [_bind(settings.host, settings.port)]
    log.info("Uvicorn running on %s://%s", scheme, _address(sockets[0]))
    if settings.admin_port is not None:
        sockets.append(_bind(settings.admin_host, settings.admin_port))
        log.info("administration on %s://%s", scheme, _address(sockets[1]))
    return sockets


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        bound = socket.create_server((host, port), family=family)
        # Head and body are two writes: the second would wait for a client's delayed acknowledgement of the first. Not
        # every event loop asks for that, and what is accepted inherits it.
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        raise CannotListen(f"cannot listen on {host}, port {port}: {error.strerror or error}.") from error
    return bound


def _address(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
