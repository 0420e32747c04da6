"""What is heard is the rendered edit, made once."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from editorbot_core.audio.files import read_audio
from editorbot_core.audio.render import align_joins, render
from editorbot_core.base.files import read_json, write_json
from editorbot_core.preferences.pair_files import pairs_path, write_pairs
from editorbot_core.preferences.rating.renders import RenderCache
from tests.core.preferences.conftest import SAMPLE_RATE, make_pairs, write_song
from tests.core.preferences.rating.conftest import Page


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


def test_a_missing_or_changed_song_is_said_and_its_pair_left_out(tmp_path):
    page = Page(tmp_path)
    other = write_song(page.home, name="other", seed=1)
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
