"""The pool of processes that analyse songs."""

from pathlib import Path

from editorbot_core.songs.ingestion import AnalysisPool


def test_a_worker_that_dies_takes_one_song_with_it(music: Path, tmp_path: Path) -> None:
    (tmp_path / "features").mkdir()
    with AnalysisPool(1, tmp_path) as pool:
        (process,) = pool._processes
        process.kill()
        died = pool.analyse(music / "one.flac")
        assert "died" in died.reason and not died.lasting
        assert not pool.analyse(music / "one.flac").reason
