"""The rating page: what an answer means, audio, and what must not get through."""

import json
import random
import re
from dataclasses import replace
from pathlib import Path

import pytest

from editorbot_core.base.errors import StoreError
from editorbot_core.preferences.pair_files import pairs_path, write_pairs
from editorbot_core.preferences.rating import server as rating_server
from editorbot_core.preferences.rating.queue import edit_key
from tests.core.preferences.conftest import make_pairs, write_song
from tests.core.preferences.rating.conftest import answer_to

STATIC = Path(rating_server.__file__).parent / "static"


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


def test_names_are_data(page):
    hostile = "</script><img src=x onerror=alert(1)>"
    song = write_song(page.home, name=hostile.replace("/", "∕"))
    write_pairs(pairs_path(page.home), make_pairs(song, 1))
    browser = page.browser()
    response = browser.send("GET", "/api/pair", params={"rater": "<b>ana</b>"})
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.json()["song"] == hostile.replace("/", "∕")


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
