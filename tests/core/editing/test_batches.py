"""Songs and edits side by side: padding says nothing, and every row is the song it was."""

import numpy as np
import pytest
import torch

from editorbot_core.base.errors import ParameterError
from editorbot_core.editing.batches import EditBatch, collate, stack_actions, standardise_per_song
from editorbot_core.editing.edits import CUT, KEEP, LOOP_2


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


def test_every_row_is_the_song_it_was_and_padding_is_empty(songs):
    batch = collate(songs)
    assert (batch.n_songs, batch.n_units) == (2, 14)
    for i, song in enumerate(songs):
        n, u = song.grid.n_beats, song.units.n_units
        np.testing.assert_array_equal(batch.features[i, :n], song.features.values)
        np.testing.assert_allclose(batch.unit_durations[i, :u], song.unit_durations, rtol=1e-6)
        np.testing.assert_array_equal(batch.unit_id[i, :n], song.units.unit_id)
        np.testing.assert_array_equal(batch.cluster[i, :u], song.structure.cluster)
        assert batch.beat_mask[i].sum() == n and batch.unit_mask[i].sum() == u
        assert not batch.features[i, n:].any() and not batch.unit_durations[i, u:].any()
        assert (batch.unit_id[i, n:] == batch.n_units).all() and (batch.cluster[i, u:] == -1).all()
        # The first and the last unit own the lead-in and the final decay.
        assert batch.movable[i].nonzero()[:, 0].tolist() == list(range(1, u - 1))
        for unit, (first, last) in enumerate(zip(batch.first_beat[i, :u], batch.last_beat[i, :u], strict=True)):
            assert (song.units.unit_id[int(first) : int(last) + 1] == unit).all()


def test_songs_are_selected_in_the_order_that_was_asked_for(songs):
    batch = collate(songs)
    again = batch.select([1, 0, 1])
    assert torch.equal(again.features, batch.features[[1, 0, 1]])
    assert torch.equal(again.outlook.join, batch.outlook.join[[1, 0, 1]])


def test_actions_are_padded_with_cuts():
    stacked = stack_actions([np.array([KEEP, LOOP_2]), np.array([KEEP, KEEP, KEEP])], 4)
    assert stacked.tolist() == [[KEEP, LOOP_2, CUT, CUT], [KEEP, KEEP, KEEP, CUT]]


@pytest.mark.parametrize(("actions", "target"), [((2, 13), (2,)), ((3, 14), (2,)), ((2, 14), (2, 1)), ((2, 14), (1,))])
def test_edits_that_do_not_fit_their_songs_are_refused(songs, actions, target):
    index = torch.tensor([0, 1])
    EditBatch(collate(songs), index, torch.zeros((2, 14), dtype=torch.int64), torch.ones(2))
    with pytest.raises(ParameterError, match=r"2 edits need actions \(2, 14\) and target_ratio \(2,\)"):
        EditBatch(collate(songs), index, torch.zeros(actions, dtype=torch.int64), torch.ones(target))


def test_a_batch_has_a_song():
    with pytest.raises(ParameterError, match="at least one song"):
        collate([])
