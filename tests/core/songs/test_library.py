"""Songs are analysed once; what is wrong with one file concerns that file alone."""

import json
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from editorbot_core.analysis.beats.corrections import Correction, correction_path, remove_correction, save_correction
from editorbot_core.analysis.beats.grid import BeatGrid
from editorbot_core.analysis.dsp.filterbanks import SAMPLE_RATE
from editorbot_core.analysis.features.table import read_features
from editorbot_core.audio.clip import AudioClip
from editorbot_core.audio.files import write_audio
from editorbot_core.base.errors import FormatError, ParameterError
from editorbot_core.base.files import sha256_file
from editorbot_core.base.home import corrections_folder
from editorbot_core.editing.edits import edl_of
from editorbot_core.songs import library
from editorbot_core.songs.ingestion import Analysis, AnalysisPool, analyse_into, features_path
from editorbot_core.songs.library import (
    analyse_song,
    ingest,
    load_song,
    load_songs,
    prepare_songs,
    remembered_structure,
)
from editorbot_core.songs.song import Song
from tests.core.songs.conftest import write_song


def _no_pool(*_: object) -> AnalysisPool:
    raise AssertionError("nothing should have been analysed")


def test_one_bad_file_rejects_itself_only(music: Path, store: Path) -> None:
    records = {Path(record.path).name: record for record in ingest(music, store)}
    assert len(records) == 7
    accepted = {name for name, record in records.items() if record.accepted}
    assert accepted == {"one.flac", "tw\uf7f6.wav"}
    assert "not audio that can be decoded" in records["broken.wav"].reason
    assert records["empty.mp3"].reason == "the file is empty"
    assert records["short.wav"].reason == "lasts 2.00 s; a song lasts at least 4 s"
    assert "silent" in records["silent.wav"].reason
    assert records["zcopy.mp3"].reason == f"duplicate of {music / 'one.flac'}"
    assert records["zcopy.mp3"].sha256 == records["one.flac"].sha256


def test_records_describe_the_songs(music: Path, store: Path) -> None:
    one = next(record for record in ingest(music, store) if record.path.endswith("one.flac"))
    assert one.sha256 == sha256_file(music / "one.flac")
    assert one.track_id == one.sha256[:16]
    assert (one.duration_s, one.sample_rate, one.n_channels, one.annotated) == (24.0, SAMPLE_RATE, 1, True)
    assert one.tempo == pytest.approx(120, rel=0.02)
    assert -40 < one.loudness_db < 0
    assert one.n_beats == pytest.approx(48, abs=2)
    json.dumps([vars(record) for record in ingest(music, store)], ensure_ascii=False).encode("utf-8")


def test_what_is_known_is_not_analysed_again(music: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = ingest(music, store)
    monkeypatch.setattr(library, "AnalysisPool", _no_pool)
    assert ingest(music, store) == before


def test_known_bytes_are_not_analysed_again(
    music: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(music / "one.flac", tmp_path / "moved.flac")
    features = features_path(store, sha256_file(tmp_path / "moved.flac"))
    written_at = features.stat().st_mtime_ns
    (record,) = ingest(tmp_path, store)
    assert record.accepted
    assert features.stat().st_mtime_ns == written_at
    names = json.loads((store / "library.json").read_text())["files"]
    assert str(tmp_path / "moved.flac") in names
    assert str(music / "one.flac") in names


def test_changed_and_removed_files_are_noticed(tmp_path: Path) -> None:
    folder, store = tmp_path / "songs", tmp_path / "store"
    folder.mkdir()
    write_song(folder / "a.wav", seed=1, duration_s=6.0)
    write_song(folder / "b.wav", seed=2, duration_s=6.0)
    first = ingest(folder, store, n_processes=1)
    write_song(folder / "a.wav", seed=3, duration_s=6.0)
    (folder / "b.wav").unlink()
    (second,) = ingest(folder, store, n_processes=1)
    assert second.accepted
    assert second.track_id != first[0].track_id
    assert list(json.loads((store / "library.json").read_text())["files"]) == [str(folder / "a.wav")]


@pytest.mark.parametrize("damage", ["index", "index of another kind", "features"])
def test_a_damaged_store_is_made_again(music: Path, store: Path, tmp_path: Path, damage: str) -> None:
    store = Path(shutil.copytree(store, tmp_path / "store"))
    sha256 = sha256_file(music / "one.flac")
    if damage == "index":
        (store / "library.json").write_text("{")
    elif damage == "index of another kind":
        (store / "library.json").write_text('{"schema": "editorbot.library/1", "files": 3}')
    else:
        (store / "library.json").unlink()
        features_path(store, sha256).write_bytes(b"PAR1 no more")
    folder = tmp_path / "songs"
    folder.mkdir()
    shutil.copy(music / "one.flac", folder)
    (record,) = ingest(folder, store, n_processes=1)
    assert load_song(record, store).sha256 == sha256


def _correct(store: Path, path: Path, **changes: object) -> Correction:
    """Keep a correction of the song at `path`: bars of three at 100 beats per minute."""
    times = np.arange(0.1, 23.5, 0.6)
    grid = BeatGrid(times, np.arange(len(times)) % 3 + 1, duration=24.0)
    correction = Correction(sha256_file(path), str(path), grid, ("file beats.txt",))
    save_correction(corrections_folder(store), correction)
    return correction


@pytest.fixture
def analysed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Has songs analysed in this process, without a pool; the songs that were."""
    paths: list[Path] = []

    class InThisProcess:
        def __init__(self, n_processes: int, store: Path, *, corrections: Path, tracker: str, separator: str) -> None:
            self._how = {"store": store, "corrections": corrections, "tracker": tracker, "separator": separator}

        def __enter__(self) -> "InThisProcess":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def analyse(self, path: Path) -> Analysis:
            paths.append(path)
            return analyse_into(path, **self._how)

    monkeypatch.setattr(library, "AnalysisPool", InThisProcess)
    return paths


@pytest.fixture
def own_store(music: Path, store: Path, tmp_path: Path, analysed: list[Path]) -> tuple[Path, Path]:
    """The two songs in a folder of their own, and a store that knows them."""
    folder = tmp_path / "songs"
    folder.mkdir()
    for name in ("one.flac", os.fsdecode(b"tw\xf6.wav")):
        shutil.copy2(music / name, folder)
    own = Path(shutil.copytree(store, tmp_path / "own"))
    ingest(folder, own)
    analysed.clear()
    return folder, own


def test_a_corrected_song_is_analysed_again_and_no_other(own_store: tuple[Path, Path], analysed: list[Path]) -> None:
    folder, store = own_store
    before = {record.path: record for record in ingest(folder, store)}
    one = str(folder / "one.flac")
    digests = {path: sha256_file(features_path(store, record.sha256)) for path, record in before.items()}
    correction = _correct(store, folder / "one.flac")
    with pytest.raises(FormatError, match="a person corrected its beats after they were analysed; ingest"):
        load_song(before[one], store)
    after = {record.path: record for record in ingest(folder, store)}
    assert analysed == [folder / "one.flac"]
    for path, record in after.items():
        assert (sha256_file(features_path(store, record.sha256)) == digests[path]) == (path != one)
        assert (record == before[path]) == (path != one)
    assert (after[one].grid_source, after[one].grid_confidence) == ("correction", 1.0)
    assert {record.grid_source for record in before.values()} == {"tracker"}
    song = load_song(after[one], store)
    np.testing.assert_array_equal(song.grid.times, correction.grid.times)
    assert song.units.n_units == len(correction.grid.downbeats)
    assert read_features(features_path(store, song.sha256)).metadata["tracker"] == "correction"
    edl = edl_of(song, np.zeros(song.units.n_units, dtype=int), target_duration_s=24.0)
    np.testing.assert_array_equal(edl.grid.positions, correction.grid.positions)
    # It survives the song's being renamed, and the loss of everything that can be made again.
    (folder / "one.flac").rename(folder / "renamed.flac")
    shutil.rmtree(store / "features")
    (store / "library.json").unlink()
    renamed = next(record for record in ingest(folder, store) if record.path.endswith("renamed.flac"))
    assert (renamed.n_beats, renamed.grid_source) == (correction.grid.n_beats, "correction")
    # Forgotten, the tracker's beats are back, digest and all.
    remove_correction(corrections_folder(store), renamed.sha256)
    back = next(record for record in ingest(folder, store) if record.path.endswith("renamed.flac"))
    assert (back.n_beats, back.grid_source) == (before[one].n_beats, "tracker")
    assert sha256_file(features_path(store, back.sha256)) == digests[one]


def test_another_tracker_changes_every_grid_but_the_corrected(
    own_store: tuple[Path, Path], analysed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, store = own_store
    _correct(store, folder / "one.flac")
    assert all(record.accepted for record in ingest(folder, store))
    analysed.clear()
    monkeypatch.setattr("editorbot_core.analysis.beats.trackers.TRACKER", "semi-markov-99")
    assert all(record.accepted for record in ingest(folder, store))
    assert [path.name for path in analysed] == [os.fsdecode(b"tw\xf6.wav")]


def test_an_unknown_tracker_or_separator_is_refused_before_anything_is_analysed(music: Path, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="one of semi-markov, librosa, beat_this"):
        ingest(music, tmp_path, tracker="madmom")
    with pytest.raises(ParameterError, match="one of masks, demucs"):
        ingest(music, tmp_path, separator="spleeter")


def test_a_damaged_correction_rejects_its_song_only(own_store: tuple[Path, Path]) -> None:
    folder, store = own_store
    correction_path(corrections_folder(store), _correct(store, folder / "one.flac").sha256).write_text("{")
    records = {Path(record.path).name: record for record in ingest(folder, store)}
    assert "--clear" in records["one.flac"].reason
    assert sum(record.accepted for record in records.values()) == 1


def test_a_correction_helps_a_song_in_which_no_beats_are_found(tmp_path: Path) -> None:
    folder, store = tmp_path / "songs", tmp_path / "store"
    folder.mkdir()
    samples = np.zeros((1, 24 * SAMPLE_RATE), dtype=np.float32)
    samples[0, 10 * SAMPLE_RATE] = 0.9
    write_audio(folder / "drop.wav", AudioClip(samples, SAMPLE_RATE))
    (record,) = ingest(folder, store, n_processes=1)
    assert "beats found; a song has at least" in record.reason
    _correct(store, folder / "drop.wav")
    (record,) = ingest(folder, store, n_processes=1)
    assert record.accepted
    assert analyse_song(folder / "drop.wav", corrections=corrections_folder(store)).grid.metre == 3
    with AnalysisPool(1, tmp_path / "other", tracker="madmom") as pool:
        assert "tracker must be one of" in pool.analyse(folder / "drop.wav").reason


def test_progress_is_told(music: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    shutil.copy(music / "short.wav", tmp_path / "a.wav")
    shutil.copy(music / "broken.wav", tmp_path / "b.wav")
    shutil.copy(music / "empty.mp3", tmp_path / "c.wav")
    ingest(tmp_path, tmp_path / "store", n_processes=1, progress=lambda *step: seen.append(step))
    assert seen == [("analyse songs", i, 3) for i in range(1, 4)]


def test_an_interrupted_ingestion_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, store = tmp_path / "songs", tmp_path / "store"
    folder.mkdir()
    for i in range(3):
        write_song(folder / f"{i}.wav", seed=i, duration_s=6.0)

    def interrupt(stage: str, done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    threads = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        ingest(folder, store, n_processes=1, progress=interrupt)
    assert threading.active_count() == threads
    analysed: list[Path] = []
    original = AnalysisPool.analyse

    def count(pool: AnalysisPool, path: Path) -> Analysis:
        analysed.append(path)
        return original(pool, path)

    monkeypatch.setattr(AnalysisPool, "analyse", count)
    assert all(record.accepted for record in ingest(folder, store, n_processes=1))
    assert len(analysed) == 1


def test_songs_are_loaded_in_bars(music: Path, store: Path) -> None:
    records = ingest(music, store)
    songs = load_songs(records, store)
    assert [song.track_id for song in songs] == [record.track_id for record in records if record.accepted]
    one = next(song for song in songs if song.path.endswith("one.flac"))
    assert one.units.n_units == pytest.approx(12, abs=1)
    assert len(one.structure.phrase_start) == one.units.n_units
    assert one.annotation is not None
    assert one.annotation.sections[0].label == "A"
    assert all(song.annotation is None for song in songs if song is not one)


def test_grids_that_are_not_trusted_are_edited_in_beats(
    music: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "BAR_CONFIDENCE", 1.1)
    record = next(record for record in ingest(music, store) if record.accepted)
    song = load_song(record, store)
    assert song.units.n_units == song.grid.n_beats


def test_rejected_and_lost_songs_cannot_be_loaded(music: Path, store: Path, tmp_path: Path) -> None:
    records = ingest(music, store)
    rejected = next(record for record in records if not record.accepted)
    with pytest.raises(ParameterError, match="was rejected"):
        load_song(rejected, store)
    accepted = next(record for record in records if record.accepted)
    with pytest.raises(FormatError, match="ingest the songs again"):
        load_song(accepted, tmp_path)


def test_a_path_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="not a folder"):
        ingest(tmp_path / "none", tmp_path / "store")


def test_an_empty_folder_has_no_songs(tmp_path: Path) -> None:
    assert ingest(tmp_path, tmp_path / "store") == []


def test_it_is_read_once_per_key(tmp_path, synthetic_song):
    structure, calls = synthetic_song(0).structure, []

    def read():
        calls.append(1)
        return structure

    path = tmp_path / "structure" / "x.npz"
    for key in ("a", "a", "b"):
        found = remembered_structure(path, key, read)
        np.testing.assert_array_equal(found.phase, structure.phase)
    assert len(calls) == 2
    path.write_bytes(b"half a file")
    remembered_structure(path, "b", read)
    assert len(calls) == 3


def _prepared(folder: Path, store: Path, **changes: object) -> tuple[list[Song], list[str]]:
    """Songs of the folder, and the lines that were reported."""
    lines: list[str] = []
    options = {"corrections": corrections_folder(store), "tracker": "semi-markov", "separator": "masks", **changes}
    songs, records = prepare_songs(folder, store, report=lines.append, **options)
    assert [record.track_id for record in records] == [song.track_id for song in songs]
    return songs, lines


def test_a_folder_is_prepared_and_what_is_left_out_is_reported_with_the_reason(music: Path, store: Path) -> None:
    songs, lines = _prepared(music, store)
    assert sorted(Path(song.path).name for song in songs)[0] == "one.flac"
    assert len(songs) == 2
    assert len(lines) == 5
    assert all(line.startswith("left out: ") and ": " in line.removeprefix("left out: ") for line in lines)
    only, none = _prepared(music, store, only="one")
    assert [song.track_id for song in only] == [songs[0].track_id]
    assert none == []


def test_prepared_songs_are_corrected_wherever_the_corrections_are(
    own_store: tuple[Path, Path], tmp_path: Path
) -> None:
    """A study keeps its features in a folder of its own; what people said about beats is in the home."""
    folder, home = own_store
    correction = _correct(home, folder / "one.flac")
    study = tmp_path / "study"
    corrected, _ = _prepared(folder, study, corrections=corrections_folder(home), only="one")
    np.testing.assert_allclose(corrected[0].grid.times, correction.grid.times)
    tracked, _ = _prepared(folder, study, corrections=tmp_path / "none", only="one")
    assert len(tracked[0].grid.times) != len(correction.grid.times)


def test_the_tracker_that_is_named_is_the_one_that_is_used(
    own_store: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, store = own_store
    with pytest.raises(ParameterError, match="beat_this"):
        _prepared(folder, store, tracker="beat_this")


def test_a_folder_without_a_song_is_refused(tmp_path: Path) -> None:
    (tmp_path / "songs").mkdir()
    (tmp_path / "songs" / "broken.wav").write_bytes(b"no audio at all" * 100)
    with pytest.raises(ParameterError, match="none of its 1 files can be used as a song"):
        _prepared(tmp_path / "songs", tmp_path / "store")
