"""The command `editorbot grid`, run as a user runs it: what it prints, keeps, and refuses."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from editorbot_core.analysis.beats.corrections import list_corrections
from editorbot_core.analysis.dsp.filterbanks import SAMPLE_RATE
from editorbot_core.audio.clip import AudioClip
from editorbot_core.audio.files import write_audio
from editorbot_core.base.home import corrections_folder
from editorbot_core.songs.library import analyse_song
from pipelines import cli


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory, steady_audio: Callable[..., np.ndarray]) -> Path:
    """Bars of four at 120 beats per minute, in a folder that holds nothing else."""
    path = tmp_path_factory.mktemp("songs") / "song.flac"
    write_audio(path, AudioClip(steady_audio()[None], SAMPLE_RATE))
    return path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDITORBOT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def run(*arguments: object) -> int:
    return cli.main(["grid", *map(str, arguments)])


def test_without_options_the_grid_is_shown_and_nothing_is_written(
    song: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(song) == 0
    shown = capsys.readouterr().out
    for text in ("found by semi-markov", "120", "4 beats per bar", "confidence", "regions", "first beats"):
        assert text in shown
    assert not home.exists()


def test_corrections_compose_and_are_cleared(song: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, before = corrections_folder(home), song.read_bytes()
    tracked = analyse_song(song).grid
    assert run(song, "--tempo", "x2") == 0
    assert run(song, "--tempo", "/2", "--keep", 1, "--shift", "-1") == 0
    (correction,) = list_corrections(folder)
    assert correction.said == ("tempo x2", "tempo /2 keep 1", "shift -1")
    np.testing.assert_array_equal(correction.grid.times, tracked.times)
    shown = capsys.readouterr().out
    assert "corrected by a person: tempo x2, tempo /2 keep 1, shift -1, of the beats of semi-markov" in shown
    used = analyse_song(song, corrections=folder).grid
    np.testing.assert_array_equal(used.positions, correction.grid.positions)
    assert used.confidence == 1.0
    assert run("--list") == 0
    assert f"{correction.track_id}  {song}  tempo x2" in capsys.readouterr().out
    assert run(correction.track_id, "--clear") == 0
    assert list_corrections(folder) == []
    assert (song.read_bytes(), [path.name for path in song.parent.iterdir()]) == (before, [song.name])


def test_a_file_replaces_what_was_said_before(song: Path, home: Path, tmp_path: Path) -> None:
    given = tmp_path / "beats.csv"
    given.write_text("time,position\n" + "".join(f"{0.5 + 0.8 * i:.2f},{i % 3 + 1}\n" for i in range(20)))
    assert run(song, "--shift", 1) == 0
    assert run(song, "--file", given, "--shift", 1) == 0
    (correction,) = list_corrections(corrections_folder(home))
    assert (correction.said, correction.tracker) == (("file beats.csv", "shift +1"), "")
    assert correction.grid.positions[:4].tolist() == [3, 1, 2, 3]
    assert run(song, "--metre", 4) == 0
    assert list_corrections(corrections_folder(home))[0].grid.metre == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a song"),
        (["nowhere.wav"], "nowhere.wav: no such file"),
        (["{song}", "--shift", "4"], "shifted by less than a bar"),
        (["{song}", "--keep", "1"], "--tempo /2"),
        (["{song}", "--clear", "--shift", "1"], "one at a time"),
        (["{song}", "--clear"], "no correction to clear"),
        (["0123456789abcdef", "--clear"], "no correction to clear"),
        (["{song}", "--file", "nowhere.txt"], "nowhere.txt: no such file"),
        (["{song}", "--file", "{song}"], "song.flac: not a grid"),
        (["{song}", "--file", "{song}", "--home", "{song}"], "song.flac: not a grid"),
    ],
)
def test_wrong_use_is_one_line_and_status_2_and_changes_nothing(
    song: Path, home: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = song.read_bytes()
    assert run(*(text.format(song=song) for text in arguments)) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.strip().splitlines()) == 1
    assert message in said.err
    assert not home.exists()
    assert song.read_bytes() == before


@pytest.mark.parametrize("argument", ["--tempo=x3", "--metre=5", "--shift=one", "--keep=3", "--tracker=madmom"])
def test_flags_with_unusable_values_are_status_2(song: Path, argument: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(song, argument)
    assert stopped.value.code == 2


def test_a_damaged_correction_is_named_and_can_be_cleared(
    song: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(song, "--shift", 1) == 0
    (path,) = corrections_folder(home).iterdir()
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "beats": []}))
    capsys.readouterr()
    assert run(song) == 2
    assert f"`editorbot grid {path.stem} --clear` removes it" in capsys.readouterr().err
    assert run(song, "--shift", 1) == 2
    given = home.parent / "beats.txt"
    given.write_text("".join(f"{0.5 * i} {i % 4 + 1}\n" for i in range(20)))
    assert run(song, "--file", given) == 0
    path.write_text("{")
    assert run(song, "--clear") == 0
    assert run(song) == 0


def test_a_home_that_cannot_be_written_is_one_line_and_status_1(
    song: Path, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert run(song, "--shift", 1, "--home", tmp_path / "file") == 1
    assert "corrections cannot be saved there" in capsys.readouterr().err
    assert not home.exists()
