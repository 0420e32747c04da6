"""The server of the rating page: one socket on a loopback address, with deadlines for slow clients."""

import ipaddress
import secrets
import socket
from asyncio import BaseTransport, TimerHandle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from editorbot_core.base.console import say
from editorbot_core.base.errors import ParameterError
from editorbot_core.base.home import database_url, rating_token
from editorbot_core.preferences.pair_files import pairs_path
from editorbot_core.preferences.rating.app import create_app
from editorbot_core.preferences.rating.queue import PairQueue
from editorbot_core.preferences.store import PreferenceStore

HEADER_DEADLINE_S = 10.0
_KEEP_ALIVE_S = 5
_MAX_CONNECTIONS = 64
_STOP_AFTER_S = 3


class DeadlineProtocol(H11Protocol):
    """HTTP/1.1 that closes a connection whose request line and headers do not arrive in time."""

    header_deadline_s = HEADER_DEADLINE_S
    _deadline: TimerHandle | None = None

    def connection_made(self, transport: BaseTransport) -> None:
        """Start the deadline of the first request."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self._start_clock()

    def data_received(self, data: bytes) -> None:
        """Receive bytes; the deadline runs until a header is complete."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop_clock()
        elif self._deadline is None and self.conn.trailing_data[0]:
            self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the deadline."""
        self._stop_clock()
        super().connection_lost(exc)

    def _start_clock(self) -> None:
        self._deadline = self.loop.call_later(self.header_deadline_s, self._too_late)

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_late(self) -> None:
        self._deadline = None
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self.transport.close()


def _check_loopback(host: str) -> None:
    try:
        is_loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise ParameterError(
            f"the rating page listens on this machine only (127.0.0.1, ::1 or localhost); got {host!r}. "
            "To rate from elsewhere, forward the port: ssh -L 8000:127.0.0.1:8000 this-machine"
        )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise ParameterError(
            f"cannot listen on {host} port {port}: {error}; stop what listens there or choose another port"
        ) from error


def make_server(app: FastAPI) -> uvicorn.Server:
    """The server for `app`: deadlines for headers and idle connections, no access log (addresses hold the token)."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=DeadlineProtocol,
            ws="none",
            lifespan="off",
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_MAX_CONNECTIONS,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_STOP_AFTER_S,
        )
    )


def serve(
    make_app: Callable[[str], FastAPI],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    announce: Callable[[str], None] = say,
) -> None:
    """Serve until Ctrl-C.

    Args:
        make_app: Makes the application for a token.
        host: A loopback address.
        port: 0 for any free one.
        token: The key of the page; by default 128 random bits.
        announce: Called with every line to print: the address with the token, and how to use it.

    Raises:
        ParameterError: If `host` is not a loopback address or the port is taken.
    """
    _check_loopback(host)
    token = token or secrets.token_urlsafe(16)
    app = make_app(token)
    with _listen(host, port) as listener:
        name = f"[{host}]" if ":" in host else host
        address = f"http://{name}:{listener.getsockname()[1]}/?token={token}"
        announce(f"Rating page: {address}")
        announce("Open it in a browser on this machine; Ctrl-C stops it.")
        make_server(app).run(sockets=[listener])


def run_rating_page(
    home: Path,
    *,
    port: int = 8000,
    host: str = "127.0.0.1",
    token: str | None = None,
    **options: Any,
) -> None:
    """Serve the rating page on the results in `home`, and the database of `base.home.database_url`, until Ctrl-C.

    Args:
        home: The folder of local results, see `base.home`.
        port: Where to listen; 0 for any free port.
        host: A loopback address.
        token: The key of the page; by default EDITORBOT_RATING_TOKEN, else a new random one.
        options: Passed to `serve`.
    """
    _check_loopback(host)
    store = PreferenceStore(database_url(home))
    try:
        serve(
            lambda key: create_app(
                store=store,
                queue=PairQueue(pairs_path(home)),
                renders=home / "renders" / "rating",
                token=key,
                allowed_hosts={"127.0.0.1", "localhost", f"[{host}]" if ":" in host else host},
            ),
            host=host,
            port=port,
            token=token or rating_token(),
            **options,
        )
    finally:
        store.close()
