"""The pool of processes that analyse songs."""

from pathlib import Path

import pytest

from editorbot_core.analysis.features.table import read_features
from editorbot_core.songs.ingestion import AnalysisPool, analyse_into, features_path


def test_a_worker_that_dies_takes_one_song_with_it(music: Path, tmp_path: Path) -> None:
    (tmp_path / "features").mkdir()
    with AnalysisPool(1, tmp_path) as pool:
        (process,) = pool._processes
        process.kill()
        died = pool.analyse(music / "one.flac")
        assert "died" in died.reason and not died.lasting
        assert not pool.analyse(music / "one.flac").reason


def test_analysing_twice_reads_what_was_stored(music: Path, tmp_path: Path) -> None:
    (tmp_path / "features").mkdir()
    first = analyse_into(music / "one.flac", store=tmp_path)
    path = features_path(tmp_path, first.sha256)
    written_at = path.stat().st_mtime_ns
    assert analyse_into(music / "one.flac", store=tmp_path) == first
    assert path.stat().st_mtime_ns == written_at
    assert read_features(path).features.n_beats == first.n_beats


@pytest.mark.parametrize(
    ("name", "reason"), [("broken.wav", "not audio"), ("silent.wav", "silent"), ("none.wav", "No such file")]
)
def test_a_reason_does_not_repeat_the_path_and_nothing_is_stored(
    music: Path, tmp_path: Path, name: str, reason: str
) -> None:
    (tmp_path / "features").mkdir()
    analysis = analyse_into(music / name, store=tmp_path)
    assert reason in analysis.reason
    assert name not in analysis.reason
    assert list((tmp_path / "features").iterdir()) == []
