"""The server listens on this machine only, and loses no answer."""

import random
import re
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest

from editorbot_core.base.errors import ParameterError
from editorbot_core.preferences.rating import server as rating_server
from editorbot_core.preferences.rating.queue import edit_key
from editorbot_core.preferences.rating.server import DeadlineProtocol, make_server, run_rating_page, serve
from tests.core.preferences.rating.conftest import TOKEN, answer_to


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", "", "localhost.example.org"])
def test_the_page_listens_on_this_machine_only(tmp_path, host):
    with pytest.raises(ParameterError, match="this machine only"):
        serve(lambda _token: None, host=host, port=0)
    with pytest.raises(ParameterError, match="this machine only"):
        run_rating_page(tmp_path / "home", host=host)
    assert not (tmp_path / "p.db").exists()


def test_a_taken_port_is_said(page):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ParameterError, match=f"port {port}.*choose another port"):
            serve(lambda _token: page.app(), port=port)


def test_the_address_is_new_every_time(page, monkeypatch):
    monkeypatch.setattr(
        rating_server, "make_server", lambda app: type("Server", (), {"run": lambda self, sockets: None})()
    )
    lines: list[str] = []
    for _ in range(2):
        run_rating_page(page.home, port=0, announce=lines.append)
    tokens = re.findall(r"http://127\.0\.0\.1:\d+/\?token=([\w-]{22})\b", "\n".join(lines))
    assert len(set(tokens)) == 2


@pytest.fixture
def live(page, monkeypatch):
    """The page on a real socket; yields its port."""
    monkeypatch.setattr(DeadlineProtocol, "header_deadline_s", 0.3)
    server = make_server(page.app())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(10)


@pytest.mark.parametrize("first", [b"", b"GET /nothing HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"])
@pytest.mark.parametrize("rest", [b"G", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"])
def test_headers_that_do_not_arrive_are_given_up(live, first, rest):
    with socket.create_connection(("127.0.0.1", live), timeout=4) as client:
        if first:
            client.sendall(first)
            assert client.recv(65536).startswith(b"HTTP/1.1 401")
        started = time.monotonic()
        client.sendall(rest)
        while client.recv(65536):
            pass
        assert 0.2 < time.monotonic() - started < 3


def test_a_silent_connection_is_given_up(live):
    with socket.create_connection(("127.0.0.1", live), timeout=4) as client:
        assert client.recv(65536) == b""


def test_a_connection_may_pause_between_requests(live):
    with socket.create_connection(("127.0.0.1", live), timeout=4) as client:
        for _ in range(2):
            client.sendall(b"GET /nothing HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.1 401")
            time.sleep(0.5)


def test_the_page_works_on_a_real_socket(live):
    address = f"http://127.0.0.1:{live}"
    with httpx.Client(base_url=address, trust_env=False) as client:
        assert client.get("/", params={"token": TOKEN}).status_code == 200
        shown = client.get("/api/pair", params={"rater": "ana"}).json()
        headers = {"origin": address, "sec-fetch-site": "same-origin"}
        assert client.post("/api/answers", json=answer_to(shown), headers=headers).status_code == 201


SERVE = """
import sys
from pathlib import Path
from editorbot_core.preferences.rating.server import run_rating_page
run_rating_page(Path(sys.argv[1]), port=int(sys.argv[2]), token=sys.argv[3])
"""


@pytest.mark.slow
def test_no_answer_is_lost_or_doubled_when_the_page_is_killed(page):
    """Answers are sent while the page is killed again and again; unconfirmed ones are repeated after each start."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    cookies = {f"editorbot_rating_{port}": TOKEN}
    shown = page.browser().pair()
    sent: list[dict] = []
    confirmed: set[str] = set()
    rng = random.Random(3)

    def send(client: httpx.Client, body: dict) -> None:
        reply = client.post("/api/answers", json=body, headers={"origin": address})
        assert reply.status_code == 201, reply.text
        confirmed.add(reply.json()["stored"])

    for round_number in range(3):
        process = subprocess.Popen([sys.executable, "-c", SERVE, str(page.home), str(port), TOKEN])
        try:
            with httpx.Client(base_url=address, cookies=cookies, trust_env=False, timeout=20) as client:
                deadline = time.monotonic() + 60
                while True:
                    try:
                        client.get("/")
                        break
                    except httpx.TransportError:
                        assert time.monotonic() < deadline and process.poll() is None
                        time.sleep(0.1)
                for body in [body for body in sent if body["answer_id"] not in confirmed]:
                    send(client, body)
                threading.Timer(rng.uniform(0.2, 0.8), process.kill).start()
                while round_number < 2:
                    number = len(sent) + 1
                    sent.append(answer_to(shown, number=number, rater=f"listener {number}", verdict="b"))
                    try:
                        send(client, sent[-1])
                    except httpx.TransportError:
                        break
        finally:
            process.kill()
            process.wait()
    stored = page.store.all()
    assert len(sent) > 20 and {body["answer_id"] for body in sent} == confirmed
    assert sorted(preference.answer_id for preference in stored) == sorted(confirmed)
    assert {edit_key(preference.chosen) for preference in stored} == {shown["b"]["audio"]}
