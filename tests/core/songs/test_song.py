"""A song is itself and no other, and its units tile it."""

from dataclasses import replace

import pytest

from editorbot_core.songs.song import Song


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
