"""Songs and edits side by side: padding says nothing, and every row is the song it was."""

import pytest

from editorbot_core.editing.batches import collate, standardise_per_song


@pytest.fixture(scope="module")
def songs(synthetic_song):
    return [synthetic_song(0, n_bars=9), synthetic_song(1, n_bars=14)]


def test_standardised_per_song_has_no_mean_and_unit_deviation_and_padding_stays_zero(songs):
    batch = collate(songs)
    values = standardise_per_song(batch.features * 100 + 5, batch.beat_mask)
    assert values[0][~batch.beat_mask[0]].abs().max() == 0
    own = values[0][batch.beat_mask[0]]
    assert own.mean(0).abs().max() < 1e-3
    assert (own.std(0, correction=0) - 1).abs().max() < 0.05
