"""A person's correction reaches the assets: the table says so, and what is made of the song has another digest."""

from pathlib import Path

import dagster as dg
import numpy as np
import pytest

from assets.resources.home import Home
from assets.resources.memo import DATA_VERSION_TAG, latest_materialization, metadata_value
from assets.songs import beat_features, song_library
from editorbot_core.analysis.beats.corrections import Correction, save_correction
from editorbot_core.analysis.beats.grid import BeatGrid
from editorbot_core.analysis.dsp.filterbanks import SAMPLE_RATE
from editorbot_core.audio.clip import AudioClip
from editorbot_core.audio.files import write_audio
from editorbot_core.base.files import sha256_file
from editorbot_core.base.home import corrections_folder
from editorbot_core.songs import library
from editorbot_core.songs.ingestion import Analysis, analyse_into
from pipelines.definitions import silent
from pipelines.io_managers import ParquetTables


class InThisProcess:
    """Stands in for the pool of processes."""

    def __init__(self, n_processes: int, store: Path, *, corrections: Path, tracker: str, separator: str) -> None:
        self._store = store

    def __enter__(self) -> "InThisProcess":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def analyse(self, path: Path) -> Analysis:
        return analyse_into(path, self._store)


def test_a_correction_changes_the_table_and_the_digests(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "AnalysisPool", InThisProcess)
    songs, home = tmp_path / "songs", tmp_path / "home"
    songs.mkdir()
    t = np.arange(8 * SAMPLE_RATE) / SAMPLE_RATE
    for i in range(2):
        tone = 0.5 * np.sin(2 * np.pi * (220 + 110 * i) * t) * np.exp(-20 * (t % 0.5))
        write_audio(songs / f"{i}.wav", AudioClip(tone[None].astype(np.float32), SAMPLE_RATE))

    def run() -> tuple[list[str], list[int | None], list[bool]]:
        resources = {
            "home": Home(folder=str(home), songs=str(songs)),
            "tables": ParquetTables(folder=str(home)),
            "progress": silent,
        }
        done = dg.materialize([song_library, beat_features], instance=instance, resources=resources)
        assert done.success
        made = [latest_materialization(instance, name) for name in ("song_library", "beat_features")]
        return (
            sorted(done.output_for_node("song_library")["grid_source"]),
            [m.tags[DATA_VERSION_TAG] if m and m.tags else None for m in made],
            [metadata_value(m, "reused") for m in made],
        )

    sources, versions, _ = run()
    assert sources == ["tracker", "tracker"]
    assert run() == (sources, versions, [True, True])
    grid = BeatGrid(np.arange(0.2, 7.8, 0.6), np.arange(13) % 3 + 1, duration=8.0)
    sha256 = sha256_file(songs / "0.wav")
    save_correction(corrections_folder(home), Correction(sha256, str(songs / "0.wav"), grid, ("file beats.txt",)))
    corrected, changed, reused = run()
    assert corrected == ["correction", "tracker"]
    assert metadata_value(latest_materialization(instance, "song_library"), "n_corrected_grids") == 1
    assert all(now != before for now, before in zip(changed, versions, strict=True))
    assert reused == [False, False]
