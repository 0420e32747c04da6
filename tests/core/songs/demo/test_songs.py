import json
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import soundfile

from editorbot_core.analysis.beats.annotations import find_annotation, load_annotation
from editorbot_core.base.errors import ParameterError
from editorbot_core.songs.demo.songs import compose_demo_songs, compose_song

SHORT, STEREO, WALTZ = 1, 2, 7


@pytest.fixture(scope="module")
def songs():
    return {index: compose_song(index, seed=0) for index in (SHORT, STEREO, WALTZ)}


def onset_strength(clip, hop):
    """Rise of the log spectrum from frame to frame, (n_frames,); frame i is about sample i * hop."""
    mono = clip.samples.mean(axis=0)
    frames = np.lib.stride_tricks.sliding_window_view(mono, 2 * hop)[::hop]
    spectrum = np.log(1e-3 + np.abs(np.fft.rfft(frames * np.hanning(2 * hop), axis=1)))
    return np.maximum(np.diff(spectrum, axis=0), 0).mean(axis=1)


def test_the_same_seed_gives_the_same_samples(songs):
    again = compose_song(SHORT, seed=0)
    np.testing.assert_array_equal(again.clip.samples, songs[SHORT].clip.samples)
    assert again.annotation == songs[SHORT].annotation


def test_another_seed_or_number_gives_another_song(songs):
    other = compose_song(SHORT, seed=1)
    assert other.annotation["chords"] != songs[SHORT].annotation["chords"]
    assert other.annotation["beats"] != songs[SHORT].annotation["beats"]
    assert songs[STEREO].annotation["source"]["form"] != songs[SHORT].annotation["source"]["form"]


@pytest.mark.parametrize("index", [SHORT, STEREO, WALTZ])
def test_the_stems_sum_to_the_mix_at_its_level(songs, index):
    song = songs[index]
    assert set(song.parts) == {"drums", "bass", "vocals", "other"}
    total = sum(part.samples.astype(np.float64) for part in song.parts.values())
    np.testing.assert_allclose(total, song.clip.samples, atol=1e-5)
    level_db = 10 * np.log10(np.mean(song.clip.samples.astype(np.float64) ** 2))
    assert level_db == pytest.approx(-17.0, abs=0.2)
    assert np.abs(song.clip.samples).max() <= 1.0
    assert all(np.abs(part.samples).max() > 0.05 for part in song.parts.values())
    assert 45 <= song.clip.duration_s <= 90


def test_some_songs_are_stereo_and_some_mono(songs):
    assert (songs[STEREO].clip.n_channels, songs[STEREO].clip.sample_rate) == (2, 44100)
    assert (songs[SHORT].clip.n_channels, songs[SHORT].clip.sample_rate) == (1, 22050)
    left, right = songs[STEREO].clip.samples
    assert np.abs(left - right).max() > 0.05


@pytest.mark.parametrize("index", [SHORT, STEREO, WALTZ])
def test_beats_sections_and_chords_fit_each_other(songs, index):
    document = songs[index].annotation
    beats, downbeats = np.array(document["beats"]), document["downbeats"]
    assert 0.3 <= beats[0] <= 0.9
    assert beats[-1] < document["duration_s"] - 2
    per_bar = int(document["time_signature"][0])
    np.testing.assert_array_equal(np.diff(document["beat_in_bar"]) % per_bar, 1)
    assert downbeats == beats[np.array(document["beat_in_bar"]) == 1].tolist()
    assert document["tempo"] == pytest.approx(60 / np.median(np.diff(beats)), rel=1e-3)
    sections = document["sections"]
    assert sections[0]["start_s"] == downbeats[0] and sections[-1]["end_s"] == downbeats[-1]
    for a, b in pairwise(sections):
        assert a["end_s"] == b["start_s"] and b["start_bar"] == a["start_bar"] + a["bars"]
    for section in sections:
        assert section["start_s"] == downbeats[section["start_bar"]]
        assert section["end_s"] == downbeats[section["start_bar"] + section["bars"]]
    chords = document["chords"]
    assert chords[0]["start_s"] == sections[0]["start_s"] and chords[-1]["end_s"] == sections[-1]["end_s"]
    assert all(a["end_s"] == b["start_s"] for a, b in pairwise(chords))


@pytest.mark.parametrize("index", [SHORT, STEREO, WALTZ])
def test_beats_are_where_the_energy_rises(songs, index):
    song = songs[index]
    hop = song.clip.sample_rate // 100
    strength = onset_strength(song.clip, hop)
    beats = np.array(song.annotation["beats"])

    def strength_at(times):
        frame = np.round(times * song.clip.sample_rate / hop).astype(int)
        return np.mean([strength[np.clip(frame + k, 0, len(strength) - 1)] for k in range(-2, 3)])

    between = beats[:-1] + 0.3 * np.diff(beats)
    assert strength_at(beats) > 1.5 * strength.mean()
    assert strength_at(beats) > 2 * strength_at(between)


def test_the_lead_in_is_silent_and_the_end_decays(songs):
    for song in songs.values():
        samples, rate = np.abs(song.clip.samples).max(axis=0), song.clip.sample_rate
        first, last = song.annotation["beats"][0], song.annotation["beats"][-1]
        assert samples[: int((first - 0.02) * rate)].max() < 1e-4
        assert samples[int((first - 0.01) * rate) : int((first + 0.1) * rate)].max() > 0.02
        tail = [samples[int((last + s) * rate) : int((last + s + 0.5) * rate)].max() for s in (0.0, 1.0, 2.0, 2.6)]
        assert tail == sorted(tail, reverse=True) and tail[-1] < 0.1 * tail[0]


def test_a_section_that_returns_has_the_same_chords_but_other_samples(songs):
    song = songs[SHORT]
    first, second = [s for s in song.annotation["sections"] if s["label"] == "A"][:2]
    rate = song.clip.sample_rate

    def cut(section):
        start = round(section["start_s"] * rate)
        return song.clip.samples[0, start : start + rate]

    assert np.abs(cut(first) - cut(second)).max() > 0.01


def test_a_waltz_counts_three(songs):
    assert songs[WALTZ].annotation["time_signature"] == "3/4"
    assert max(songs[WALTZ].annotation["beat_in_bar"]) == 3
    assert songs[SHORT].annotation["time_signature"] == "4/4"


def test_bad_numbers_are_refused(tmp_path):
    with pytest.raises(ParameterError):
        compose_song(-1, seed=0)
    with pytest.raises(ParameterError):
        compose_demo_songs(tmp_path, n_songs=0)
    with pytest.raises(ParameterError):
        compose_demo_songs(tmp_path, n_songs=1, seed=-1)


def test_songs_are_written_once_and_mended_when_damaged(tmp_path, songs):
    calls = []
    paths = compose_demo_songs(
        tmp_path / "songs", n_songs=2, n_processes=2, progress=lambda stage, done, total: calls.append((done, total))
    )
    assert [path.name for path in paths] == ["demo-00.flac", "demo-01.flac"]
    assert calls == [(0, 2), (1, 2), (2, 2)]
    samples, rate = soundfile.read(paths[SHORT], dtype="float32", always_2d=True)
    assert rate == songs[SHORT].clip.sample_rate
    np.testing.assert_allclose(samples.T, songs[SHORT].clip.samples, atol=2e-4)

    annotation = load_annotation(find_annotation(paths[SHORT]))
    assert annotation.track_id == "demo-01"
    np.testing.assert_array_equal(annotation.grid.times, songs[SHORT].annotation["beats"])
    assert annotation.grid.duration == pytest.approx(len(samples) / rate, abs=1e-4)
    assert [s.label for s in annotation.sections] == list("iAABABo")

    stamps = [path.stat().st_mtime_ns for path in paths]
    assert compose_demo_songs(tmp_path / "songs", n_songs=2) == paths
    assert [path.stat().st_mtime_ns for path in paths] == stamps
    original = paths[1].read_bytes()
    paths[1].write_bytes(original[:1000])
    compose_demo_songs(tmp_path / "songs", n_songs=2)
    assert paths[1].read_bytes() == original
    assert paths[0].stat().st_mtime_ns == stamps[0]
    document = json.loads(paths[1].with_suffix(".json").read_text())
    document["source"]["seed"] = 7
    paths[1].with_suffix(".json").write_text(json.dumps(document))
    compose_demo_songs(tmp_path / "songs", n_songs=2)
    assert json.loads(paths[1].with_suffix(".json").read_text())["source"]["seed"] == 0
    assert sorted(path.name for path in (tmp_path / "songs").iterdir()) == [
        "demo-00.flac", "demo-00.json", "demo-01.flac", "demo-01.json",
    ]  # fmt: skip


def test_a_composing_process_does_not_load_torch():
    code = "import sys, editorbot_core.songs.demo.songs; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
