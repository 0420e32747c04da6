"""The rating page in a real browser: listen, answer, and find the answer in the store."""

import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from editorbot_core.analysis.beats.grid import BeatGrid, Units
from editorbot_core.audio.clip import AudioClip
from editorbot_core.audio.files import write_audio
from editorbot_core.base.errors import StoreError
from editorbot_core.base.files import sha256_file
from editorbot_core.editing.edits import CUT, EditDecisionList
from editorbot_core.preferences.pair_files import pairs_path, write_pairs
from editorbot_core.preferences.preference import EditPair
from editorbot_core.preferences.rating.app import create_app
from editorbot_core.preferences.rating.queue import PairQueue, edit_key
from editorbot_core.preferences.rating.server import make_server
from editorbot_core.preferences.store import PreferenceStore

pytestmark = pytest.mark.browser

TOKEN = "0123456789abcdef0123456789abcdef"
SAMPLE_RATE = 22_050
N_BARS = 8
NAME = "<img src=x onerror=alert(1)> Lied"


def make_pairs(folder: Path, n_pairs: int) -> list[EditPair]:
    """Pairs of edits of a song of eight bars of one second."""
    times = np.arange(N_BARS * SAMPLE_RATE) / SAMPLE_RATE
    pitch = np.repeat(np.linspace(220, 660, N_BARS), SAMPLE_RATE)
    path = folder / f"{NAME}.wav"
    write_audio(path, AudioClip((0.3 * np.sin(2 * np.pi * pitch * times))[None].astype(np.float32), SAMPLE_RATE))
    grid = BeatGrid(np.arange(4 * N_BARS) / 4, np.arange(4 * N_BARS) % 4 + 1, float(N_BARS))
    units, sha256 = Units.bars(grid), sha256_file(path)

    def cut(*bars: int) -> EditDecisionList:
        actions = np.zeros(N_BARS, dtype=np.int64)
        actions[list(bars)] = CUT
        return EditDecisionList.from_unit_actions(
            actions,
            grid=grid,
            units=units,
            track_id="song",
            source_path=str(path),
            source_sha256=sha256,
            target_duration_s=5.0,
        )

    return [EditPair.of(cut(1, 2, 3), cut(2, 4, 4 + i), origin="test") for i in range(1, n_pairs + 1)]


class Live:
    """The page on a socket of its own."""

    def __init__(self, home: Path, n_pairs: int) -> None:
        write_pairs(pairs_path(home), make_pairs(home, n_pairs))
        self.store = PreferenceStore(home / "preferences.db")
        app = create_app(
            store=self.store, queue=PairQueue(pairs_path(home)), renders=home / "renders", token=TOKEN
        )  # fmt: skip
        self._server = make_server(app)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._listener]})
        self._thread.start()

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        self._listener.close()
        self.store.close()


@pytest.fixture
def live(tmp_path):
    live = Live(tmp_path, n_pairs=2)
    yield live
    live.close()


@pytest.fixture
def tab(chromium, live):
    """A tab on the page; fails the test for any error in the page's own code."""
    context = chromium.new_context(viewport={"width": 1280, "height": 800})
    tab = context.new_page()
    tab.set_default_timeout(20_000)
    faults: list[str] = []
    tab.on("pageerror", lambda error: faults.append(str(error)))
    tab.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    tab.on("dialog", lambda dialog: faults.append(f"dialog {dialog.message}"))
    tab.faults = faults
    tab.goto(f"{live.address}/?token={TOKEN}")
    tab.locator("#view-pair").wait_for(state="visible")
    yield tab
    context.close()
    assert not faults


def listen(tab, *, keys: bool = False) -> None:
    for side in "ab":
        if keys:
            tab.keyboard.press(side)
        else:
            tab.locator(f"[data-side={side}] .play").click()
        tab.locator(f"[data-side={side}] .heard").wait_for(state="visible")


def count(tab) -> str:
    return tab.locator("#count-yours").inner_text()


def wait_for_count(tab, number: int) -> None:
    tab.locator(f"#count-yours:text-is('{number}')").wait_for()


def test_listen_answer_and_find_it_in_the_store(live, tab):
    assert tab.url == f"{live.address}/", "the key must not stay in the address"
    assert tab.locator("#song").inner_text() == NAME
    assert "0:08 to about 0:05" in tab.locator("#target").inner_text()
    better = tab.get_by_role("button", name="A is better")
    assert better.is_disabled(), "nobody answers without listening"
    listen(tab)
    assert tab.locator("[data-side=a].playing").count() == 0, "one plays at a time"
    heard = tab.locator("[data-side=a] audio").get_attribute("src").removeprefix("/audio/")
    better.click()
    tab.get_by_role("button", name="much").click()
    wait_for_count(tab, 1)
    [stored] = live.store.all()
    assert edit_key(stored.chosen) == heard
    assert (stored.strength, stored.source, stored.rater) == (3, "person", "listener")

    tab.locator("#view-pair").wait_for(state="visible")
    listen(tab)
    tab.get_by_role("button", name="No difference").click()
    tab.get_by_role("heading", name="All pairs are done").wait_for()
    assert [preference.is_tie for preference in live.store.all()] == [False, True]
    assert tab.locator("#none-command").inner_text() == "make run"


def test_everything_works_from_the_keyboard(live, tab):
    listen(tab, keys=True)
    heard = tab.locator("[data-side=b] audio").get_attribute("src").removeprefix("/audio/")
    tab.keyboard.press("j")
    tab.keyboard.press(" ")
    tab.locator(".playing").wait_for(state="detached")
    tab.keyboard.press("ArrowLeft")
    tab.keyboard.press("Escape")
    assert tab.locator("#strengths").is_hidden()
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("1")
    wait_for_count(tab, 1)
    [stored] = live.store.all()
    assert (edit_key(stored.chosen), stored.strength) == (heard, 1)
    tab.locator("#view-pair").wait_for(state="visible")
    tab.keyboard.press("s")
    tab.get_by_role("heading", name="All pairs are done").wait_for()
    assert live.store.count() == 1


def test_the_listener_is_remembered(live, tab):
    tab.get_by_label("You are").fill("Zoë Ω")
    tab.get_by_label("You are").press("Enter")
    tab.locator("#view-pair").wait_for(state="visible")
    listen(tab)
    tab.get_by_role("button", name="B is better").click()
    tab.get_by_role("button", name="clearly").click()
    wait_for_count(tab, 1)
    tab.reload()
    wait_for_count(tab, 1)
    assert tab.get_by_label("You are").input_value() == "Zoë Ω"
    assert [preference.rater for preference in live.store.all()] == ["Zoë Ω"]


def test_an_answer_is_sent_again_until_it_is_stored(live, tab, monkeypatch):
    listen(tab)
    add = live.store.add

    def commit_and_lose_the_reply(preference):
        add(preference)
        monkeypatch.setattr(live.store, "add", add)
        raise StoreError("the connection was lost")

    monkeypatch.setattr(live.store, "add", commit_and_lose_the_reply)
    tab.get_by_role("button", name="A is better").click()
    tab.get_by_role("button", name="slightly").click()
    tab.locator("#banner", has_text="Trying again").wait_for()
    wait_for_count(tab, 1)
    tab.locator("#view-pair").wait_for(state="visible")
    assert live.store.count() == 1 and tab.locator("#banner").is_hidden()
    tab.faults.clear()  # the failed reply itself is reported on the console


def test_an_answer_survives_a_page_that_is_closed_before_it_is_stored(live, tab, monkeypatch):
    listen(tab)
    add = live.store.add

    def fail(_preference):
        raise StoreError("the disk is full")

    monkeypatch.setattr(live.store, "add", fail)
    tab.get_by_role("button", name="A is better").click()
    tab.get_by_role("button", name="slightly").click()
    tab.locator("#banner", has_text="disk is full").wait_for()
    tab.goto("about:blank")
    monkeypatch.setattr(live.store, "add", add)
    assert live.store.count() == 0
    tab.goto(live.address)
    wait_for_count(tab, 1)
    assert live.store.count() == 1
    tab.faults.clear()


def test_seeking_goes_where_it_was_asked_to(live, tab):
    tab.get_by_label("Position in edit A").fill("3")
    deadline = time.monotonic() + 5
    while tab.locator("[data-side=a] .now").inner_text() != "0:03" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert tab.locator("[data-side=a] .now").inner_text() == "0:03"
    assert tab.get_by_label("Position in edit A").get_attribute("aria-valuetext") == "0:03 of 0:05"


def test_a_browser_without_the_key_sees_how_to_get_in(chromium, live):
    context = chromium.new_context()
    tab = context.new_page()
    tab.goto(live.address)
    tab.get_by_role("heading", name="This page opens with its own address").wait_for()
    context.close()


def test_nothing_is_cut_off_on_any_screen(live, tab):
    for width in (320, 390, 768, 1440):
        tab.set_viewport_size({"width": width, "height": 800})
        assert tab.evaluate("() => document.documentElement.scrollWidth") <= width
        for button in tab.get_by_role("button").all():
            if button.is_visible():
                assert button.bounding_box()["height"] >= 44, (width, button.inner_text())
