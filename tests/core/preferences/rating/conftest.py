"""The rating page, and a browser that opened it."""

import asyncio
import copy
import json
import shutil
from pathlib import Path

import httpx
import pytest

from editorbot_core.preferences.pair_files import pairs_path, write_pairs
from editorbot_core.preferences.rating.app import create_app
from editorbot_core.preferences.rating.queue import PairQueue
from editorbot_core.preferences.rating.renders import RenderCache
from editorbot_core.preferences.store import PreferenceStore
from tests.core.preferences.conftest import make_pairs, write_song

TOKEN = "0123456789abcdef0123456789abcdef"


class Browser:
    """A browser that has opened the page of `app`, without a network in between."""

    def __init__(self, app, *, address: str = "http://127.0.0.1:8000", token: str | None = TOKEN) -> None:
        self.app, self.address = app, address
        self.cookies: dict[str, str] = {}
        if token is not None:
            self.cookies = dict(self.send("GET", f"/?token={token}").cookies)

    def send(self, method: str, path: str, *, headers=None, **options) -> httpx.Response:
        async def go() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url=self.address, cookies=self.cookies) as client:
                return await client.request(method, path, headers=headers, **options)

        return asyncio.run(go())

    def post(self, path: str, body: object, *, headers=None) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        same_origin = {"origin": self.address, "sec-fetch-site": "same-origin", "content-type": "application/json"}
        return self.send("POST", path, content=content, headers={**same_origin, **(headers or {})})

    def pair(self, rater: str = "ana") -> dict:
        response = self.send("GET", "/api/pair", params={"rater": rater})
        assert response.status_code == 200, response.text
        return response.json()


def answer_to(shown: dict, *, verdict: str = "a", strength: int = 2, rater: str = "ana", number: int = 1) -> dict:
    return {
        "answer_id": f"{number:032x}",
        "pair": shown["pair"],
        "audio_a": shown["a"]["audio"],
        "audio_b": shown["b"]["audio"],
        "verdict": verdict,
        "strength": 0 if verdict == "same" else strength,
        "rater": rater,
    }


class Page:
    """A home folder with one song, three pairs, a store and the page."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.song = write_song(home)
        self.pairs = make_pairs(self.song, 3)
        self.store = PreferenceStore(home / "preferences.db")
        write_pairs(pairs_path(home), self.pairs, priorities=[3, 2, 1])

    def app(self, **options):
        return create_app(
            store=self.store,
            queue=PairQueue(pairs_path(self.home)),
            renders=self.home / "renders",
            token=TOKEN,
            **options,
        )

    def browser(self, **options) -> Browser:
        return Browser(self.app(**options))


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A home whose pairs are rendered already; nobody changes it."""
    page = Page(tmp_path_factory.mktemp("template"))
    cache = RenderCache(page.home / "renders")
    for pair in page.pairs:
        cache.get(pair.a, pair.b)
    yield page
    page.store.close()


@pytest.fixture
def page(template, tmp_path):
    """A home of the test's own; only the song is shared."""
    shutil.copytree(template.home, tmp_path, dirs_exist_ok=True)
    page = copy.copy(template)
    page.home = tmp_path
    page.store = PreferenceStore(tmp_path / "preferences.db")
    yield page
    page.store.close()
