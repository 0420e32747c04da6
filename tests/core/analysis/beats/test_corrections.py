"""Corrections: laws of what can be said about a grid, files that people give, and what is kept."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from editorbot_core.analysis.beats.corrections import (
    Correction,
    correction_path,
    correction_version,
    list_corrections,
    load_correction,
    read_grid_file,
    remove_correction,
    save_correction,
    with_double_tempo,
    with_half_tempo,
    with_metre,
    with_shifted_downbeat,
)
from editorbot_core.analysis.beats.grid import BeatGrid
from editorbot_core.analysis.dsp.frames import FrameFeatures, analyse_frames
from editorbot_core.base.errors import FormatError, ParameterError

SHA256 = "ab" * 32


def grid(n_beats: int = 40, *, metre: int = 4, pickup: int = 0, beat_s: float = 0.5) -> BeatGrid:
    times = 0.2 + beat_s * np.arange(n_beats)
    return BeatGrid(
        times, (np.arange(n_beats) - pickup) % metre + 1, duration=float(times[-1] + beat_s), confidence=0.4
    )


@pytest.fixture(scope="module")
def frames(steady_audio: Callable[..., np.ndarray]) -> FrameFeatures:
    """Beats every second from 0.2 s, in bars of four: every second beat of `grid()`."""
    return analyse_frames(steady_audio(beat_s=1.0, duration_s=20.2))


@pytest.mark.parametrize("metre", [2, 3, 4, 5])
@pytest.mark.parametrize("pickup", [0, 1])
def test_shifts_add_up_and_are_undone(metre: int, pickup: int) -> None:
    given = grid(metre=metre, pickup=pickup)
    for shift in range(1, metre):
        shifted = with_shifted_downbeat(given, shift)
        np.testing.assert_array_equal(shifted.times, given.times)
        np.testing.assert_array_equal(shifted.positions, (given.positions - 1 - shift) % metre + 1)
        np.testing.assert_array_equal(with_shifted_downbeat(shifted, -shift).positions, given.positions)
        np.testing.assert_array_equal(with_shifted_downbeat(given, shift - metre).positions, shifted.positions)


def test_a_shift_moves_the_downbeats_of_uneven_bars_too() -> None:
    positions = np.array([4, 1, 2, 3, 4, 1, 2, 1, 2, 3, 4, 1, 2, 3, 4, 1])
    shifted = with_shifted_downbeat(replace(grid(16), positions=positions), 1)
    np.testing.assert_array_equal(np.flatnonzero(shifted.positions == 1), np.flatnonzero(positions == 1)[:-1] + 1)
    np.testing.assert_array_equal(shifted.positions[5:9], [4, 1, 2, 1])


@pytest.mark.parametrize("shift", [0, 4, -4, 17])
def test_a_shift_of_nothing_or_of_a_bar_is_refused(shift: int) -> None:
    with pytest.raises(ParameterError, match="1 to 3 or -1 to -3"):
        with_shifted_downbeat(grid(), shift)


@pytest.mark.parametrize("metre", [3, 4])
@pytest.mark.parametrize("pickup", [0, 1, 2])
def test_double_tempo_keeps_beats_and_downbeats(metre: int, pickup: int) -> None:
    given = grid(metre=metre, pickup=pickup)
    doubled = with_double_tempo(given)
    assert doubled.tempo == pytest.approx(2 * given.tempo)
    assert doubled.metre == metre
    np.testing.assert_array_equal(doubled.times[::2], given.times)
    assert set(given.downbeats) <= set(doubled.downbeats)
    np.testing.assert_array_equal(np.diff(doubled.positions) % metre, 1)


@pytest.mark.parametrize("keep", [1, 2])
def test_half_tempo_undoes_double_tempo(frames: FrameFeatures, keep: int) -> None:
    halved = with_half_tempo(with_double_tempo(grid(20, beat_s=1.0)), frames, keep=keep)
    np.testing.assert_array_equal(halved.times, with_double_tempo(grid(20, beat_s=1.0)).times[keep - 1 :: 2])


def test_half_tempo_keeps_the_beats_that_the_audio_accents(frames: FrameFeatures) -> None:
    for first in (0, 1):
        given = replace(grid(), times=grid().times[first:], positions=grid().positions[first:])
        halved = with_half_tempo(given, frames)
        np.testing.assert_array_equal(halved.times, grid().times[2 * first :: 2])
        np.testing.assert_array_equal(halved.downbeats, grid().times[8 * first :: 8])


def test_the_metre_is_changed_at_the_likeliest_phase_and_only_if_it_differs(frames: FrameFeatures) -> None:
    given = grid(20, beat_s=1.0, metre=3)
    found = with_metre(given, frames, 4)
    assert found.metre == 4
    np.testing.assert_array_equal(found.downbeats, given.times[::4])
    shifted = with_shifted_downbeat(found, 1)
    np.testing.assert_array_equal(with_metre(shifted, frames, 4).positions, shifted.positions)


def test_a_corrected_grid_is_vouched_for(frames: FrameFeatures) -> None:
    for corrected in (
        with_double_tempo(grid()),
        with_half_tempo(grid(), frames),
        with_metre(grid(), frames, 3),
        with_metre(grid(), frames, 4),
        with_shifted_downbeat(grid(), 1),
    ):
        assert corrected.confidence == 1.0
        assert all(region.confidence == 1.0 for region in corrected.regions)


def test_tempos_that_cannot_be_meant_are_refused(frames: FrameFeatures) -> None:
    with pytest.raises(ParameterError, match="480"):
        with_double_tempo(grid(beat_s=0.25))
    with pytest.raises(ParameterError, match=r"the tempo would be 15\.0"):
        with_half_tempo(grid(10, beat_s=2.0), frames)
    with pytest.raises(ParameterError, match="fewer than 4"):
        with_half_tempo(grid(7), frames)


TEXTS: dict[str, Callable[[BeatGrid], str]] = {
    "blanks": lambda g: "".join(f"{t:.6f} {p}\n" for t, p in zip(g.times, g.positions, strict=True)),
    "tabs and a comment": lambda g: (
        "# time\tposition\n" + "\n".join(f"{t:.6f}\t{p}.0" for t, p in zip(g.times, g.positions, strict=True))
    ),
    "csv with names": lambda g: (
        "\ufefftime,position\r\n" + "".join(f"{t:.6f}, {p}\r\n" for t, p in zip(g.times, g.positions, strict=True))
    ),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_text_files_of_beats_are_read(tmp_path: Path, kind: str) -> None:
    given = grid(metre=3, pickup=1)
    path = tmp_path / "grid.txt"
    path.write_text(TEXTS[kind](given), encoding="utf-8")
    read = read_grid_file(path, duration_s=given.duration)
    np.testing.assert_allclose(read.times, given.times, atol=1e-6)
    np.testing.assert_array_equal(read.positions, given.positions)


def test_an_annotation_without_sections_is_read(tmp_path: Path) -> None:
    given = grid()
    document = {
        "schema": "editorbot.annotation/1",
        "beats": given.times.tolist(),
        "beat_in_bar": given.positions.tolist(),
    }
    (tmp_path / "grid.json").write_text(json.dumps(document))
    read = read_grid_file(tmp_path / "grid.json", duration_s=given.duration)
    np.testing.assert_array_equal(read.times, given.times)
    (tmp_path / "grid.json").write_text(json.dumps({**document, "duration_s": 99.0}))
    with pytest.raises(ParameterError, match=r"it describes 99\.0 s of audio; the song lasts 20\.2 s"):
        read_grid_file(tmp_path / "grid.json", duration_s=given.duration)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.txt", None, "No such file"),
        ("a.txt", "", "0 beats"),
        ("a.txt", "0.5 1\n1.0 2\n", "2 beats; a song has at least 4"),
        ("a.txt", "0.5\n1.0\n", "line 1 is '0.5', expected two numbers"),
        ("a.txt", "0.5 1 verse\n", "line 1"),
        ("a.txt", "time position\n0.5 one\n", "line 2"),
        ("a.txt", "0.5 1\n1.0 2\n0.9 3\n1.5 4\n", "strictly increasing"),
        ("a.txt", "500 1\n1000 2\n1500 3\n2000 4\n", "beat times reach"),
        ("a.txt", "0.5 0\n1.0 1\n1.5 2\n2.0 3\n", "count from 1"),
        ("a.txt", "0.5 1.5\n1.0 2\n1.5 3\n2.0 4\n", "whole numbers"),
        ("a.txt", "0.5 inf\n1.0 2\n1.5 3\n2.0 4\n", "whole numbers"),
        ("a.txt", "nan 1\n1.0 2\n1.5 3\n2.0 4\n", "finite"),
        ("a.txt", "0.5 2\n1.0 2\n1.5 3\n2.0 4\n", "a downbeat must occur"),
        ("a.txt", "0.5 1\n0.51 2\n0.52 3\n0.53 4\n", "the tempo would be 6000"),
        ("a.txt", b"\xff\xfe\x00", "not a grid"),
        ("a.json", "{", "not readable as JSON"),
        ("a.json", "[]", "its schema is not"),
        ("a.json", '{"schema": "editorbot.annotation/1"}', "no 'beats'"),
        ("a.json", '{"schema": "editorbot.annotation/1", "beats": [1, [2]], "beat_in_bar": 1}', "not a grid"),
    ],
)
def test_files_that_are_no_grid_are_refused(
    tmp_path: Path, name: str, content: str | bytes | None, message: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises((FormatError, ParameterError), match=message) as refused:
        read_grid_file(path, duration_s=20.0)
    assert name in str(refused.value)


def correction(**changes: object) -> Correction:
    given = Correction(
        SHA256, "songs/a.mp3", replace(grid(), confidence=1.0), ("tempo x2", "shift +1"), "semi-markov-1"
    )
    return replace(given, **changes)  # type: ignore[arg-type]


def test_what_was_kept_is_found_by_content(tmp_path: Path) -> None:
    assert load_correction(tmp_path, SHA256) is None
    assert correction_version(tmp_path, SHA256) == correction_version(tmp_path, "") == ""
    save_correction(tmp_path, correction())
    loaded = load_correction(tmp_path, SHA256)
    assert loaded is not None
    np.testing.assert_array_equal(loaded.grid.times, correction().grid.times)
    np.testing.assert_array_equal(loaded.grid.positions, correction().grid.positions)
    assert (loaded.said, loaded.tracker, loaded.path) == (("tempo x2", "shift +1"), "semi-markov-1", "songs/a.mp3")
    assert [c.track_id for c in list_corrections(tmp_path)] == [SHA256[:16]]


def test_the_version_is_of_what_was_said(tmp_path: Path) -> None:
    versions = []
    for given in (correction(), correction(grid=with_shifted_downbeat(grid(), 1)), correction()):
        save_correction(tmp_path, given)
        versions.append(correction_version(tmp_path, SHA256))
    assert versions[0] == versions[2] != versions[1]
    assert remove_correction(tmp_path, SHA256[:16])
    assert not remove_correction(tmp_path, SHA256)
    assert list_corrections(tmp_path) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("schema", "editorbot.correction/2"),
        ("sha256", "cd" * 32),
        ("said", "tempo"),
        ("tracker", 1),
        ("beats", [1.0, 0.5]),
        ("duration_s", "x"),
        ("more", 1),
    ],
)
def test_a_damaged_correction_is_an_error_that_says_how_to_go_on(tmp_path: Path, key: str, value: object) -> None:
    save_correction(tmp_path, correction())
    path = correction_path(tmp_path, SHA256)
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(FormatError, match="editorbot grid abababababababab --clear"):
        load_correction(tmp_path, SHA256)
