"""A song is itself and no other, and its units tile it."""

from dataclasses import replace

import pytest

from editorbot_core.analysis.beats.annotations import Annotation, Section
from editorbot_core.analysis.beats.grid import Units
from editorbot_core.songs.song import Song, songs_digest


@pytest.mark.parametrize("how", [{}, {"pickup": 3}, {"units_of_beats": True}, {"tail_s": 9.0}])
def test_units_tile_the_song(synthetic_song, how) -> None:
    song: Song = synthetic_song(1, **how)
    assert len(song.unit_durations) == song.units.n_units
    assert (song.unit_durations > 0).all()
    assert song.unit_durations.sum() == pytest.approx(song.duration)


def test_songs_are_compared_and_hashed_by_identity(synthetic_song) -> None:
    song = synthetic_song(1)
    again = replace(song)
    assert song == song and song != again
    assert len({song, again, song}) == 2


def test_the_grid_is_that_of_the_features(synthetic_song) -> None:
    song = synthetic_song(1)
    assert song.grid is song.features.grid and song.duration == song.grid.duration


def test_the_digest_of_songs_covers_all_that_is_learned_from_them(synthetic_song) -> None:
    song = synthetic_song(1)
    grid, structure = song.grid, song.structure
    others = {
        "moved beats": replace(song, features=replace(song.features, grid=replace(grid, times=grid.times + 1e-3))),
        "other features": replace(song, features=replace(song.features, values=song.features.values + 1)),
        "other units": replace(song, units=Units.beats(grid.n_beats)),
        "other structure": replace(song, structure=replace(structure, cluster=structure.cluster + 1)),
        "an annotation": replace(song, annotation=Annotation("work", grid, (Section(0.0, 1.0, "A"),))),
    }
    own = songs_digest([song])
    assert own == songs_digest([replace(song, path="elsewhere.wav")])
    digests = {name: songs_digest([other]) for name, other in others.items()}
    assert len({own, *digests.values()}) == 1 + len(others), digests
    assert songs_digest([song, others["moved beats"]]) != songs_digest([others["moved beats"], song])
