"""Access control of the rating page, against other users of the machine and other web sites.

`Guard` is an ASGI application around another one. It checks every request, in this order: method, Host, cross-site,
token; and for changes also Origin, content type, size and time. Therefore a page on another site can neither read nor
change anything, even if it points a host name of its own at this machine (DNS rebinding).
"""

import asyncio
import hmac
import re
from collections.abc import Iterable
from importlib.resources import files

from starlette.datastructures import MutableHeaders, QueryParams
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from editorbot_core.base.errors import ParameterError

MAX_BODY_BYTES = 64 * 1024
BODY_DEADLINE_S = 10.0
MIN_TOKEN_LENGTH = 16
SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'; "
        "require-trusted-types-for 'script'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
_METHODS = ("GET", "HEAD", "POST")
_HOST = re.compile(r"(?P<name>[a-z0-9.-]{1,253}|\[[0-9a-f:.]{2,45}\])(:(?P<port>[0-9]{1,5}))?", re.ASCII)
_TOKEN = re.compile(rf"[A-Za-z0-9_-]{{{MIN_TOKEN_LENGTH},256}}", re.ASCII)
_JSON = re.compile(r"application/json(\s*;\s*charset=\"?utf-8\"?)?", re.ASCII | re.IGNORECASE)


class Refusal(Exception):
    """Raised to refuse a request, with an HTTP status and a message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def error_response(status: int, message: str) -> JSONResponse:
    """The response to a refused or failed request: `{"error": message}`."""
    return JSONResponse({"error": message}, status_code=status)


def locked_page() -> Response:
    """The page for a browser without the token."""
    content = (files("editorbot_core.preferences.rating") / "static" / "locked.html").read_bytes()
    return Response(content, status_code=401, media_type="text/html")


def check_token(token: str) -> None:
    """Refuse a token that could be guessed or does not fit into an address.

    Raises:
        ParameterError: If it is shorter than 16 characters or holds other characters than `A-Z a-z 0-9 _ -`.
    """
    if not _TOKEN.fullmatch(token):
        raise ParameterError(
            f"a token is {MIN_TOKEN_LENGTH}-256 characters of A-Z a-z 0-9 _ -; got {len(token)} characters; "
            "make one with secrets.token_urlsafe(16)"
        )


class Guard:
    """Serves `app` to the one browser that has the token, on the allowed host names.

    Args:
        app: The application to protect.
        token: Key that a browser must send; see `check_token`.
        allowed_hosts: Host names without port.
        max_body_bytes: Largest body of a POST request.
        body_deadline_s: Time within which a whole body must arrive, s.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        token: str,
        allowed_hosts: Iterable[str],
        max_body_bytes: int = MAX_BODY_BYTES,
        body_deadline_s: float = BODY_DEADLINE_S,
    ) -> None:
        check_token(token)
        self._app = app
        self._token = token.encode()
        self._allowed_hosts = frozenset(host.lower() for host in allowed_hosts)
        self._max_body_bytes = max_body_bytes
        self._body_deadline_s = body_deadline_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve or refuse one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        cookie: str | None = None

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
                if cookie:
                    headers.append("set-cookie", cookie)
            await send(message)

        try:
            headers = _Headers(scope)
            authority = self._check_source(scope, headers)
            if self._brings_token(scope):
                cookie = f"{_cookie_name(authority)}={self._token.decode()}; Path=/; HttpOnly; SameSite=Strict"
            elif not _is_public(scope["path"]) and not self._has_cookie(headers, authority):
                if scope["path"] == "/":
                    await locked_page()(scope, receive, send_guarded)
                    return
                raise Refusal(401, "this browser has no key: open the address that was printed at the start")
            if scope["method"] == "POST":
                self._check_change(headers, scope["scheme"], authority)
                receive = await self._read_body(headers, receive)
        except Refusal as refusal:
            await error_response(refusal.status, str(refusal))(scope, receive, send_guarded)
            return
        await self._app(scope, receive, send_guarded)

    def _check_source(self, scope: Scope, headers: "_Headers") -> str:
        """Check method, Host and cross-site; return the Host as the browser sent it."""
        if scope["method"] not in _METHODS:
            raise Refusal(405, f"only {', '.join(_METHODS)} are served")
        authority = headers.one("host")
        match = _HOST.fullmatch(authority.lower()) if authority else None
        if authority is None or match is None or match["name"].rstrip(".") not in self._allowed_hosts:
            raise Refusal(421, f"this page is served as {' or '.join(sorted(self._allowed_hosts))} only")
        site = headers.one("sec-fetch-site")
        # A link on another site may open the page itself, which reveals nothing; all else must come from the page.
        if scope["path"] != "/" and site not in (None, "same-origin") and (scope["method"], site) != ("GET", "none"):
            raise Refusal(403, "requests from other sites are not served")
        return authority

    def _brings_token(self, scope: Scope) -> bool:
        if scope["path"] != "/" or scope["method"] not in ("GET", "HEAD"):
            return False
        given = QueryParams(scope["query_string"]).getlist("token")
        return len(given) == 1 and hmac.compare_digest(given[0].encode("utf-8", "replace"), self._token)

    def _has_cookie(self, headers: "_Headers", authority: str) -> bool:
        name = _cookie_name(authority)
        pairs = (part.strip().partition("=") for line in headers.every("cookie") for part in line.split(";"))
        # Every candidate is compared, so that the time does not show which of them is right.
        return any(
            [
                hmac.compare_digest(value.encode("utf-8", "replace"), self._token)
                for key, _, value in pairs
                if key == name
            ]
        )

    def _check_change(self, headers: "_Headers", scheme: str, authority: str) -> None:
        if headers.one("origin") != f"{scheme}://{authority}":
            raise Refusal(403, "changes are accepted from this page only")
        if not _JSON.fullmatch(headers.one("content-type") or ""):
            raise Refusal(415, "the body must be application/json")
        length = headers.one("content-length")
        if length is not None and (not length.isdecimal() or int(length[:12]) > self._max_body_bytes):
            raise Refusal(413, f"the body must have at most {self._max_body_bytes} bytes")

    async def _read_body(self, headers: "_Headers", receive: Receive) -> Receive:
        """Read the whole body within the limits; return a `receive` that replays it."""
        body = bytearray()
        try:
            async with asyncio.timeout(self._body_deadline_s):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Refusal(400, "the connection was closed before the body was complete")
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > self._max_body_bytes:
                        raise Refusal(413, f"the body must have at most {self._max_body_bytes} bytes")
        except TimeoutError as error:
            raise Refusal(408, f"the body did not arrive within {self._body_deadline_s:g} s") from error
        replayed = False

        async def replay() -> Message:
            nonlocal replayed
            if replayed:
                return await receive()
            replayed = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        return replay


class _Headers:
    """The headers of a request; a request that repeats a single-valued header is refused."""

    def __init__(self, scope: Scope) -> None:
        self._items = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]]

    def every(self, name: str) -> list[str]:
        return [value for key, value in self._items if key == name]

    def one(self, name: str) -> str | None:
        values = self.every(name)
        if len(values) > 1:
            raise Refusal(400, f"the header {name} occurs {len(values)} times")
        return values[0].strip() if values else None


def _is_public(path: str) -> bool:
    return path in ("/static/style.css", "/static/icon.svg")


def _cookie_name(authority: str) -> str:
    """A cookie name for each port, since all ports of a host share cookies."""
    match = _HOST.fullmatch(authority.lower())
    return f"editorbot_rating_{match['port'] if match and match['port'] else 80}"
