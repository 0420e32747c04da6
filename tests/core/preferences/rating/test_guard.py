"""Who is let in, what may be sent, and what every reply carries."""

import asyncio
import itertools
import json
import time

import pytest

from editorbot_core.base.errors import ParameterError
from editorbot_core.preferences.rating.app import create_app
from editorbot_core.preferences.rating.guard import SECURITY_HEADERS, Guard
from editorbot_core.preferences.rating.queue import PairQueue
from tests.core.preferences.rating.conftest import TOKEN, Browser, answer_to

PATHS = ["/", "/api/pair?rater=ana", "/static/app.js", "/audio/" + "0" * 64, "/nothing", "/docs", "/openapi.json"]


@pytest.mark.parametrize("path", PATHS)
def test_without_the_key_there_is_nothing(template, path):
    stranger = Browser(template.app(), token=None)
    assert stranger.send("GET", path).status_code == 401
    for cookie in ("", "x", TOKEN[:-1], TOKEN.upper(), "é"):
        stranger.cookies = {}
        headers = {"cookie": f"editorbot_rating_8000={cookie}".encode()}
        assert stranger.send("GET", path, headers=headers).status_code == 401
    assert stranger.send("GET", path, headers={"cookie": f"editorbot_rating_9000={TOKEN}"}).status_code == 401
    assert stranger.post("/api/answers", {}).status_code == 401


def test_the_key_in_the_address_becomes_a_strict_cookie(template):
    app = template.app()
    for wrong in ("", "x", TOKEN + "0", f"{TOKEN}&token={TOKEN}", "%ff", "&" * 5000):
        response = Browser(app, token=None).send("GET", f"/?token={wrong}")
        assert response.status_code == 401 and "set-cookie" not in response.headers
    response = Browser(app, token=None).send("GET", f"/?token={TOKEN}")
    assert response.status_code == 200
    assert response.headers["set-cookie"] == f"editorbot_rating_8000={TOKEN}; Path=/; HttpOnly; SameSite=Strict"
    assert Browser(app, token=None).send("GET", f"/api/pair?rater=ana&token={TOKEN}").status_code == 401


@pytest.mark.parametrize("token", ["", "short", "x" * 15, "a b" * 10, "ä" * 30, "x;y" * 10, "x" * 300])
def test_a_token_that_could_be_guessed_is_refused(page, token):
    with pytest.raises(ParameterError, match="token"):
        create_app(store=page.store, queue=PairQueue("x"), renders=page.home / "r", token=token)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "127.0.0.1.evil.example",
        "localhost.evil.example:8000",
        "127.0.0.1@evil.example",
        "evil.example#127.0.0.1",
        "127.0.0.1:8000:8000",
        "127.0.0.1:port",
        "0.0.0.0",
        "[::1]",
        "127.1",
        "",
        " ",
        "127.0.0.1,evil.example",
        "http://127.0.0.1",
        "lo\u00e7alhost".encode().decode("latin-1"),
        "localhost\x00",
    ],
)
def test_other_host_names_are_not_served(template, host):
    browser = template.browser()
    for path in ("/", f"/?token={TOKEN}", "/api/pair?rater=ana", "/static/style.css"):
        response = browser.send("GET", path, headers={"host": host.encode("latin-1")})
        assert response.status_code == 421 and "set-cookie" not in response.headers
    assert (
        template.browser().send("GET", "/", headers=[("host", "127.0.0.1"), ("host", "localhost")]).status_code == 400
    )


def test_the_page_answers_to_every_name_of_this_machine_that_is_allowed(template):
    for name in ("http://localhost:8000", "http://127.0.0.1:9", "http://LOCALHOST", "http://localhost.:8000"):
        browser = Browser(template.app(), address=name)
        shown = browser.pair()
        assert shown["state"] == "pair"
    own = Browser(template.app(allowed_hosts=("studio.local",)), address="http://studio.local:8000")
    assert own.pair()["state"] == "pair"


ORIGINS = [
    None,
    "null",
    "",
    "http://127.0.0.1:8001",
    "https://127.0.0.1:8000",
    "http://127.0.0.1",
    "http://localhost:8000",
    "http://evil.example",
    "http://127.0.0.1:8000.evil.example",
    "http://127.0.0.1:8000/",
    "http://user@127.0.0.1:8000",
    "file://",
]


SITES = [None, "same-origin", "same-site", "cross-site", "none", ""]
TYPES = [None, "application/json", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]


def test_no_cross_site_request_gets_through(page):
    browser = page.browser()
    shown = browser.pair()
    body = json.dumps(answer_to(shown)).encode()
    n_sent = 0
    for path in ("/api/answers", "/api/skips"):
        for origin, site, kind in itertools.product(["http://127.0.0.1:8000", *ORIGINS], SITES, TYPES):
            if origin == "http://127.0.0.1:8000" and site in (None, "same-origin") and kind == "application/json":
                continue
            names = {"origin": origin, "sec-fetch-site": site, "content-type": kind}
            headers = {name: value for name, value in names.items() if value is not None}
            response = browser.send("POST", path, content=body, headers=headers)
            assert response.status_code in (403, 415), (names, response.text)
            assert not any(name.startswith("access-control") for name in response.headers)
            n_sent += 1
    assert n_sent > 900
    assert page.store.count() == 0 and browser.pair()["pair"] == shown["pair"]
    assert browser.post("/api/answers", body).status_code == 201


@pytest.mark.parametrize("site", ["cross-site", "same-site", "nonsense"])
def test_other_sites_read_nothing(template, site):
    browser = template.browser()
    audio = browser.pair()["a"]["audio"]
    for path in ("/api/pair?rater=ana", f"/audio/{audio}", "/static/app.js"):
        assert browser.send("GET", path, headers={"sec-fetch-site": site}).status_code == 403
        assert browser.send("GET", path, headers={"sec-fetch-site": "same-origin"}).status_code == 200
    assert browser.send("GET", "/", headers={"sec-fetch-site": site}).status_code == 200


@pytest.mark.parametrize("method", ["OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "NONSENSE"])
def test_other_methods_are_not_served(template, method):
    browser = template.browser()
    for path in ("/", "/api/answers", "/api/pair?rater=ana"):
        response = browser.send(method, path, headers={"origin": "http://evil.example"})
        assert response.status_code == 405
        assert Browser(browser.app, token=None).send(method, path).status_code == 405
        assert not any(name.startswith("access-control") for name in response.headers)


def test_every_reply_carries_the_protecting_headers(page, monkeypatch):
    browser = page.browser()
    shown = browser.pair()
    stranger = Browser(browser.app, token=None)
    replies = [
        browser.send("GET", "/"),
        browser.send("GET", "/static/style.css"),
        browser.send("GET", f"/audio/{shown['a']['audio']}"),
        browser.send("GET", "/nothing"),
        browser.send("DELETE", "/"),
        browser.send("GET", "/api/pair"),
        browser.post("/api/answers", {}),
        browser.post("/api/answers", b"x" * 70_000),
        stranger.send("GET", "/"),
        stranger.send("GET", "/", headers={"host": "evil.example"}),
    ]
    monkeypatch.setattr(PairQueue, "waiting", lambda *_: 1 / 0)
    replies.append(browser.send("GET", "/api/pair?rater=ana"))
    assert [reply.status_code for reply in replies] == [200, 200, 200, 404, 405, 422, 422, 413, 401, 421, 500]
    for reply in replies:
        for name, value in SECURITY_HEADERS.items():
            assert reply.headers[name] == value, (reply.request.url, name)
    policy = SECURITY_HEADERS["content-security-policy"]
    assert "default-src 'self'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert "division" not in replies[-1].text


def test_a_body_has_at_most_64_kilobytes(page):
    browser = page.browser()
    padding = b" " * (64 * 1024 + 1)

    async def blocks():
        for _ in range(5):
            yield b" " * 16_000

    assert browser.post("/api/answers", padding).status_code == 413
    headers = {"origin": browser.address, "content-type": "application/json"}
    assert browser.send("POST", "/api/answers", content=blocks(), headers=headers).status_code == 413
    assert (
        browser.send("POST", "/api/answers", content=b"{}", headers={**headers, "content-length": "9" * 40}).status_code
        == 413
    )
    body = json.dumps(answer_to(browser.pair())).encode().ljust(64 * 1024)
    assert browser.post("/api/answers", body).status_code == 201


def test_a_body_that_does_not_arrive_is_given_up():
    async def go() -> list[dict]:
        async def never(*_):
            await asyncio.sleep(60)

        async def receive():
            await asyncio.sleep(60)

        sent: list[dict] = []

        async def send(message):
            sent.append(message)

        guard = Guard(never, token=TOKEN, allowed_hosts=["localhost"], body_deadline_s=0.05)
        headers = {
            "host": "localhost",
            "origin": "http://localhost",
            "content-type": "application/json",
            "cookie": f"editorbot_rating_80={TOKEN}",
        }
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/api/answers",
            "scheme": "http",
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }
        await guard(scope, receive, send)
        return sent

    started = time.monotonic()
    assert asyncio.run(go())[0]["status"] == 408
    assert time.monotonic() - started < 2


def test_websockets_are_closed():
    sent = []

    async def send(message):
        sent.append(message)

    guard = Guard(None, token=TOKEN, allowed_hosts=["localhost"])
    asyncio.run(guard({"type": "websocket", "path": "/", "headers": []}, None, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]
