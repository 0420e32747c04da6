"""The rating page: the queue, what an answer means, audio, and everything that must not get through."""

import asyncio
import copy
import io
import itertools
import json
import random
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile

from editorbot_core.analysis.beats.grid import BeatGrid, Units
from editorbot_core.audio.clip import AudioClip
from editorbot_core.audio.files import read_audio, write_audio
from editorbot_core.audio.render import align_joins, render
from editorbot_core.base.errors import FormatError, ParameterError, StoreError
from editorbot_core.base.files import read_json, sha256_file, write_json
from editorbot_core.editing.edits import CUT, EditDecisionList
from editorbot_core.preferences.pair_files import pairs_path, read_pairs, write_pairs
from editorbot_core.preferences.preference import EditPair, Preference
from editorbot_core.preferences.rating import server as rating_server
from editorbot_core.preferences.rating.app import create_app
from editorbot_core.preferences.rating.guard import SECURITY_HEADERS, Guard
from editorbot_core.preferences.rating.queue import PairQueue, comparison_key, edit_key
from editorbot_core.preferences.rating.renders import RenderCache
from editorbot_core.preferences.rating.server import DeadlineProtocol, make_server, run_rating_page, serve
from editorbot_core.preferences.store import PreferenceStore

TOKEN = "0123456789abcdef0123456789abcdef"
STATIC = Path(rating_server.__file__).parent / "static"
SAMPLE_RATE = 8_000
N_BARS = 8


def make_song(folder: Path, *, name: str = "song", seed: int = 0) -> EditDecisionList:
    """Eight bars at 240 BPM, a tone per bar, as the edit that keeps everything."""
    rng = np.random.default_rng(seed)
    times = np.arange(N_BARS * SAMPLE_RATE) / SAMPLE_RATE
    pitch = np.repeat(rng.uniform(200, 900, N_BARS), SAMPLE_RATE)
    samples = 0.4 * np.sin(2 * np.pi * pitch * times) + 0.01 * rng.standard_normal(len(times))
    path = folder / f"{name}.wav"
    write_audio(path, AudioClip(samples[None].astype(np.float32), SAMPLE_RATE))
    n_beats = 4 * N_BARS
    grid = BeatGrid(np.arange(n_beats) * 0.25, np.arange(n_beats) % 4 + 1, float(N_BARS))
    return EditDecisionList.keep_all(grid, track_id=name, source_path=str(path), source_sha256=sha256_file(path))


def cut(song: EditDecisionList, *bars: int) -> EditDecisionList:
    actions = np.zeros(N_BARS, dtype=np.int64)
    actions[list(bars)] = CUT
    return EditDecisionList.from_unit_actions(
        actions,
        grid=song.grid,
        units=Units.bars(song.grid),
        track_id=song.track_id,
        source_path=song.source_path,
        source_sha256=song.source_sha256,
        target_duration_s=6.0,
    )


def make_pairs(song: EditDecisionList, n_pairs: int) -> list[EditPair]:
    edits = [cut(song, *bars) for bars in itertools.combinations(range(1, N_BARS - 1), 2)]
    return [EditPair.of(edits[i], edits[i + 1], origin="test") for i in range(n_pairs)]


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
        self.song = make_song(home)
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


# ------------------------------------------------------------------ the queue


def test_pairs_come_back_as_they_were_written(tmp_path):
    pairs = make_pairs(make_song(tmp_path), 4)
    write_pairs(tmp_path / "pairs.json", pairs, priorities=[0.25, 3, -1, 2])
    read = read_pairs(tmp_path / "pairs.json")
    assert [queued.pair for queued in read] == pairs
    assert [queued.priority for queued in read] == [0.25, 3.0, -1.0, 2.0]


def test_a_question_is_the_same_whichever_edit_comes_first(tmp_path):
    first, second, _ = (pair.a for pair in make_pairs(make_song(tmp_path), 3))
    assert comparison_key(first, second) == comparison_key(second, first)
    assert comparison_key(first, second) != comparison_key(first, replace(second, target_duration_s=7.0))
    assert edit_key(first) != edit_key(second)
    assert edit_key(first) == edit_key(first.with_scores(quality=1.0))


def test_pairs_that_cannot_be_compared_are_not_written(tmp_path):
    song = make_song(tmp_path)
    pairs = make_pairs(song, 2)
    path = tmp_path / "pairs.json"
    with pytest.raises(ParameterError, match="occurs twice"):
        write_pairs(path, [pairs[0], pairs[0]])
    with pytest.raises(ParameterError, match="same segments"):
        write_pairs(path, [EditPair.of(pairs[0].a, pairs[0].a, origin="test")])
    with pytest.raises(ParameterError, match="finite"):
        write_pairs(path, pairs, priorities=[1.0, float("nan")])
    with pytest.raises(ParameterError, match="one for one"):
        write_pairs(path, pairs, priorities=[1.0])
    other = replace(pairs[0].b, source_sha256="0" * 64)
    with pytest.raises(ParameterError, match="one song"):
        write_pairs(path, [replace(pairs[0], b=other)])
    assert not path.exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: [],
        lambda d: {**d, "schema": "editorbot.edit_pairs/2"},
        lambda d: {**d, "more": 1},
        lambda d: {**d, "pairs": {}},
        lambda d: {**d, "pairs": [1]},
        lambda d: {**d, "pairs": [{**d["pairs"][0], "extra": 1}]},
        lambda d: {**d, "pairs": [{k: v for k, v in d["pairs"][0].items() if k != "b"}]},
        lambda d: {**d, "pairs": [{**d["pairs"][0], "priority": "1"}]},
        lambda d: {**d, "pairs": [{**d["pairs"][0], "priority": True}]},
        lambda d: {**d, "pairs": [{**d["pairs"][0], "pair_id": 7}]},
        lambda d: {**d, "pairs": [{**d["pairs"][0], "a": {}}]},
        lambda d: {**d, "pairs": [{**d["pairs"][0], "b": d["pairs"][0]["a"]}]},
        lambda d: {**d, "pairs": [d["pairs"][0]] * 2},
    ],
)
def test_a_damaged_file_of_pairs_is_refused(tmp_path, damage):
    path = tmp_path / "pairs.json"
    write_pairs(path, make_pairs(make_song(tmp_path), 2))
    write_json(path, damage(read_json(path)))
    with pytest.raises(FormatError, match=r"pairs\.json"):
        read_pairs(path)


def test_most_informative_first_and_nobody_is_asked_twice(page):
    write_pairs(pairs_path(page.home), page.pairs, priorities=[1, 5, 1])
    queue = PairQueue(pairs_path(page.home))
    queue.refresh()
    assert [waiting.pair for waiting in queue.waiting("ana")] == [page.pairs[i] for i in (1, 0, 2)]

    answered = page.pairs[1]
    preference = Preference(
        # Another run may name and order the same two edits in another way.
        answered.b.with_scores(quality=1.0), answered.a, 1.0, 2, 1.0, "ana", "person", "id", "2026-01-01T00:00:00+00:00"
    )  # fmt: skip
    queue.note_answer(replace(preference, source="bootstrap"))
    assert len(queue.waiting("ana")) == 3
    queue.note_answer(preference)
    queue.note_answer(preference)
    queue.skip("ana", queue.waiting("ana")[0].key)
    assert [waiting.pair for waiting in queue.waiting("ana")] == [page.pairs[2]]
    assert len(queue.waiting("ben")) == 3
    assert (queue.n_answers("ana"), queue.n_answers("ben"), queue.n_answers()) == (1, 0, 1)


def test_a_replaced_file_is_noticed_and_a_damaged_one_changes_nothing(page):
    path = pairs_path(page.home)
    queue = PairQueue(path)
    queue.refresh()
    shown = queue.waiting("ana")[0]
    queue.show(shown.key)
    write_pairs(path, page.pairs[2:])
    queue.refresh()
    assert [waiting.pair for waiting in queue.waiting("ana")] == page.pairs[2:]
    assert queue.get(shown.key) == shown.pair
    path.write_text("{")
    with pytest.raises(FormatError):
        queue.refresh()
    assert len(queue) == 1
    path.unlink()
    queue.refresh()
    assert len(queue) == 0


# ------------------------------------------------------------------ answers


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize(("verdict", "strength"), [("a", 1), ("b", 3), ("same", 0)])
def test_the_label_says_which_edit_was_preferred_wherever_it_was_shown(page, swapped, verdict, strength):
    browser = page.browser(swap=lambda: swapped)
    shown = browser.pair()
    heard = {side: shown[side]["audio"] for side in "ab"}
    reply = browser.post("/api/answers", answer_to(shown, verdict=verdict, strength=strength))
    assert reply.status_code == 201 and reply.json()["progress"] == {"yours": 1, "everybody": 1, "waiting": 2}
    [stored] = page.store.all()
    assert (stored.source, stored.rater, stored.strength, stored.answer_id) == ("person", "ana", strength, f"{1:032x}")
    assert {edit_key(stored.a), edit_key(stored.b)} == set(heard.values())
    if verdict == "same":
        assert stored.is_tie
    else:
        assert edit_key(stored.chosen) == heard[verdict]


def test_presentations_are_shuffled_by_a_fair_coin(template):
    browser = template.browser()
    first = edit_key(template.pairs[0].a)
    as_a = sum(browser.pair()["a"]["audio"] == first for _ in range(100))
    # Outside 25-75 of 100 with a fair coin: less than once in a million runs.
    assert 25 <= as_a <= 75


def test_nothing_tells_which_edit_is_which(template):
    shown = template.browser().pair()
    assert "test" not in json.dumps([shown["a"], shown["b"], shown["pair"]])
    assert set(shown["a"]) == set(shown["b"]) == {"audio", "duration_s", "joins_s", "peaks"}


def test_a_repeated_answer_is_stored_once(page):
    browser = page.browser()
    body = answer_to(browser.pair())
    replies = [browser.post("/api/answers", body) for _ in range(3)]
    assert [reply.status_code for reply in replies] == [201] * 3
    assert len({reply.text for reply in replies}) == 1
    assert page.store.count() == 1


def test_an_answer_can_be_repeated_after_a_restart_and_after_new_scores(page):
    body = answer_to(page.browser(swap=lambda: True).pair(), verdict="b")
    assert page.browser().post("/api/answers", body).status_code == 201
    scored = [replace(pair, a=pair.a.with_scores(quality=2.0)) for pair in page.pairs]
    write_pairs(pairs_path(page.home), scored)
    assert page.browser().post("/api/answers", body).status_code == 201
    [stored] = page.store.all()
    assert edit_key(stored.chosen) == body["audio_b"]


def test_an_answer_is_never_changed_nor_given_twice(page):
    browser = page.browser()
    shown = browser.pair()
    assert browser.post("/api/answers", answer_to(shown)).status_code == 201
    for changed in (
        {"verdict": "b"},
        {"strength": 3},
        {"verdict": "same", "strength": 0},
        {"rater": "ben"},
        {"answer_id": "f" * 32},
    ):
        assert browser.post("/api/answers", {**answer_to(shown), **changed}).status_code == 409, changed
    [stored] = page.store.all()
    assert (stored.strength, stored.rater) == (2, "ana")
    assert browser.post("/api/answers", {**answer_to(shown, number=2), "rater": "ben"}).status_code == 201


def test_an_answer_is_acknowledged_only_when_it_is_stored(page, monkeypatch):
    browser = page.browser()
    body = answer_to(browser.pair())
    add = page.store.add

    def fail(_preference):
        raise StoreError("the disk is full")

    monkeypatch.setattr(page.store, "add", fail)
    reply = browser.post("/api/answers", body)
    assert reply.status_code == 503 and "disk is full" in reply.json()["error"]
    assert browser.pair()["progress"]["yours"] == 0
    monkeypatch.setattr(page.store, "add", add)
    assert browser.post("/api/answers", body).status_code == 201
    assert page.store.count("person") == 1


def test_answers_that_belong_to_no_pair_are_refused(page):
    browser = page.browser()
    shown = browser.pair()
    assert browser.post("/api/answers", {**answer_to(shown), "pair": "0" * 64}).status_code == 410
    assert browser.post("/api/answers", {**answer_to(shown), "audio_a": "0" * 64}).status_code == 409
    assert browser.post("/api/answers", {**answer_to(shown), "audio_a": shown["b"]["audio"]}).status_code == 409
    assert page.store.count() == 0


def test_a_pair_that_is_being_heard_can_be_answered_although_a_run_replaced_it(page):
    browser = page.browser()
    shown = browser.pair()
    write_pairs(pairs_path(page.home), page.pairs[2:])
    assert browser.pair()["pair"] != shown["pair"]
    assert browser.post("/api/answers", answer_to(shown)).status_code == 201


def test_skipping_and_the_friendly_ends(page):
    browser = page.browser()
    seen = []
    for _ in range(3):
        shown = browser.pair()
        seen.append(shown["pair"])
        assert browser.post("/api/skips", {"pair": shown["pair"], "rater": "ana"}).status_code == 200
    assert len(set(seen)) == 3
    assert browser.pair()["state"] == "finished"
    assert browser.pair("ben")["state"] == "pair"
    pairs_path(page.home).unlink()
    assert browser.pair()["state"] == "empty"
    pairs_path(page.home).write_text("[")
    assert "make run" in browser.pair()["notices"][0]
    assert page.store.count() == 0


def test_earlier_answers_count_from_the_start(page):
    shown = page.browser().pair()
    page.browser().post("/api/answers", answer_to(shown))
    again = page.browser().pair()
    assert again["pair"] != shown["pair"]
    assert again["progress"] == {"yours": 1, "everybody": 1, "waiting": 2}


# ------------------------------------------------------------------ audio


def test_the_audio_is_the_rendered_edit(page):
    browser = page.browser(swap=lambda: False)
    shown = browser.pair()
    response = browser.send("GET", f"/audio/{shown['a']['audio']}")
    assert (response.status_code, response.headers["content-type"]) == (200, "audio/wav")
    heard, rate = soundfile.read(io.BytesIO(response.content), dtype="float32", always_2d=True)
    source = read_audio(page.song.source_path)
    segments = align_joins(source, page.pairs[0].a.segments)
    expected = render(source, segments)
    assert rate == SAMPLE_RATE
    np.testing.assert_allclose(heard.T, expected.samples, atol=2e-7)
    assert shown["a"]["duration_s"] == pytest.approx(expected.duration_s, abs=1e-3)
    assert len(shown["a"]["joins_s"]) == len(segments) - 1 and len(shown["a"]["peaks"]) == 240
    assert max(shown["a"]["peaks"]) == 100 and min(shown["a"]["peaks"]) >= 0


def test_parts_of_the_audio_are_served(template):
    browser = template.browser()
    path = f"/audio/{browser.pair()['a']['audio']}"
    whole = browser.send("GET", path).content
    part = browser.send("GET", path, headers={"range": "bytes=100-299"})
    assert (part.status_code, part.content) == (206, whole[100:300])
    assert part.headers["content-range"] == f"bytes 100-299/{len(whole)}"
    assert browser.send("GET", path, headers={"range": "bytes=-50"}).content == whole[-50:]
    assert browser.send("GET", path, headers={"range": f"bytes={len(whole)}-"}).status_code == 416
    assert browser.send("HEAD", path).headers["accept-ranges"] == "bytes"
    for header in ("bytes=5-1", "lines=1-2", "bytes=a-b", "bytes=" + "0-1," * 2000 + "0-1"):
        response = browser.send("GET", path, headers={"range": header})
        assert response.status_code in (200, 206, 400, 416) and len(response.content) <= len(whole) + 10_000


@pytest.mark.parametrize(
    "name",
    ["0" * 64, "../preferences.db", "..%2fpreferences.db", "%2e%2e/preferences.db", "A" * 64, "0" * 63, "x", "%00", ""],
)
def test_audio_is_served_by_id_only(page, name):
    browser = page.browser()
    browser.pair()
    (page.home / "renders" / "secret.wav").write_bytes(b"secret")
    assert browser.send("GET", f"/audio/{name}").status_code == 404
    assert browser.send("GET", "/audio/secret").status_code == 404


def test_a_missing_or_changed_song_is_said_and_its_pair_left_out(tmp_path):
    page = Page(tmp_path)
    other = make_song(page.home, name="other", seed=1)
    write_pairs(pairs_path(page.home), [*page.pairs, *make_pairs(other, 1)], priorities=[9, 8, 7, 1])
    Path(page.song.source_path).write_bytes(Path(other.source_path).read_bytes())
    shown = page.browser().pair()
    assert shown["song"] == "other"
    assert len(shown["notices"]) == 1 and "“song” has changed" in shown["notices"][0]
    Path(page.song.source_path).unlink()
    assert "“song” is no longer where it was" in page.browser().pair()["notices"][0]
    Path(other.source_path).unlink()
    shutil.rmtree(page.home / "renders")
    assert page.browser().pair()["state"] == "unplayable"
    page.store.close()


def test_pruned_or_damaged_renders_are_made_again(page):
    browser = page.browser()
    shown = browser.pair()
    for path in (page.home / "renders").glob("*.wav"):
        path.unlink()
    assert browser.send("GET", f"/audio/{shown['a']['audio']}").status_code == 200
    for change in ({"schema": "x"}, {"audio_id": "0" * 64}, {"peaks": [1]}, {"joins_s": None}):
        for path in (page.home / "renders").glob("*.json"):
            write_json(path, {**read_json(path), **change})
        again = browser.pair()
        assert {again[side]["audio"] for side in "ab"} == {shown[side]["audio"] for side in "ab"}
        assert {len(again[side]["peaks"]) for side in "ab"} == {240}
    assert browser.send("GET", f"/audio/{shown['b']['audio']}").status_code == 200


def test_the_renders_folder_stays_small(page):
    cache = RenderCache(page.home / "renders", max_bytes=1)
    for pair in page.pairs[:2]:
        kept = {rendered.audio_id for rendered in cache.get(pair.a, pair.b)}
        assert {path.stem for path in (page.home / "renders").iterdir()} == kept


def test_names_are_data(page):
    hostile = "</script><img src=x onerror=alert(1)>"
    song = make_song(page.home, name=hostile.replace("/", "∕"))
    write_pairs(pairs_path(page.home), make_pairs(song, 1))
    browser = page.browser()
    response = browser.send("GET", "/api/pair", params={"rater": "<b>ana</b>"})
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.json()["song"] == hostile.replace("/", "∕")


# ------------------------------------------------------------------ who is let in

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


def test_the_page_has_no_inline_code_and_nothing_from_elsewhere():
    for name in ("index.html", "locked.html"):
        text = (STATIC / name).read_text()
        assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", text, re.IGNORECASE), name
        assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", text))
        assert not re.search(r"(?:src|href)=\"(?!/static/)", text)
    code = (STATIC / "app.js").read_text()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|new Function|setTimeout\(\"", code)
    for path in STATIC.iterdir():
        addresses = re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"']*", path.read_text())
        assert set(addresses) <= {"http://www.w3.org/2000/svg"}, path


# ------------------------------------------------------------------ bodies


def malformed_bodies(good: dict) -> list[bytes]:
    changes = [
        *({"answer_id": value} for value in ("", "x", "A" * 32, "0" * 31, "0" * 33, "0" * 31 + "\n", 0, None, [])),
        *({"pair": value} for value in ("", "../../etc/passwd", "0" * 63, "0" * 65, 1, None, {})),
        *({"audio_a": value} for value in ("", "é" * 64, "0" * 64 + "\n", 1.5, False)),
        *({"verdict": value} for value in ("", "A", "c", None, 1, ["a"], "same")),
        *({"strength": value} for value in (0, 4, -1, 2.0, 1.5, "2", True, None, 10**30)),
        *({"rater": value} for value in ("", " ", " ana", "ana\n", "a\x00", "\u202eana", "x" * 41, 1, None, "\u00a0")),
        *({name: 1} for name in ("label", "source", "created_at", "__proto__", "confidence")),
    ]
    bodies = [json.dumps({**good, **change}).encode() for change in changes]
    bodies += [json.dumps({k: v for k, v in good.items() if k != name}).encode() for name in good]
    text = json.dumps(good)
    bodies += [
        b"",
        b"null",
        b"[]",
        b"1",
        b'"x"',
        b"{}",
        b"NaN",
        b"\xff\xfe",
        b"{" * 30_000,
        b"[" * 60_000,
        text[:-1].encode(),
        text.encode("utf-16"),
        b"\xef\xbb\xbf" + text.encode(),
        (text + text).encode(),
        text.replace('"strength": 2', '"strength": NaN').encode(),
        text.replace('"strength": 2', '"strength": Infinity').encode(),
        text.replace('"strength": 2', '"strength": 2e0').encode(),
        text.replace('"strength": 2', f'"strength": {"9" * 5000}').encode(),
        text.replace('"rater": "ana"', '"rater": "\\ud800"').encode(),
    ]
    return bodies


def test_malformed_answers_are_refused_and_stored_nowhere(page):
    browser = page.browser()
    good = answer_to(browser.pair())
    bodies = malformed_bodies(good)
    assert len(bodies) > 70
    for body in bodies:
        response = browser.post("/api/answers", body)
        assert response.status_code == 422, (body[:200], response.text)
        assert set(response.json()) == {"error"}
    assert page.store.count() == 0
    assert browser.post("/api/answers", good).status_code == 201


def test_random_damage_never_breaks_the_server(page):
    browser = page.browser()
    good = json.dumps(answer_to(browser.pair())).encode()
    rng = random.Random(7)
    for _ in range(400):
        body = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            place = rng.randrange(len(body))
            if rng.random() < 0.5:
                body[place] = rng.randrange(256)
            else:
                body[place : place + rng.randint(0, 9)] = rng.randbytes(rng.randint(0, 9))
        status = browser.post("/api/answers", bytes(body)).status_code
        assert status in (201, 409, 410, 422), bytes(body)
    assert browser.pair()["state"] == "pair"


@pytest.mark.parametrize(
    "query",
    ["", "?rater=", "?rater=ana&rater=ben", "?rater=ana&x=1", "?rater=a%00", "?rater=" + "x" * 41, "?rater=%20a"],
)
def test_malformed_questions_are_refused(template, query):
    assert template.browser().send("GET", f"/api/pair{query}").status_code == 422


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


# ------------------------------------------------------------------ the server


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", "", "localhost.example.org"])
def test_the_page_listens_on_this_machine_only(tmp_path, host):
    with pytest.raises(ParameterError, match="this machine only"):
        serve(lambda _token: None, host=host, port=0)
    with pytest.raises(ParameterError, match="this machine only"):
        run_rating_page(tmp_path / "home", database_url=str(tmp_path / "p.db"), host=host)
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
        run_rating_page(page.home, port=0, database_url=str(page.home / "preferences.db"), announce=lines.append)
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
