"""A small reward model, songs, and edits of them."""

from dataclasses import replace

import pytest
import torch

from editorbot_core.analysis.features.table import BeatFeatures
from editorbot_core.editing.batches import EditBatch, collate
from editorbot_core.editing.edits import N_ACTIONS
from editorbot_core.rewards.config import RewardConfig
from editorbot_core.rewards.model import model_input
from tests.core.conftest import make_song

SMALL = RewardConfig(hidden=32, n_layers=1, n_heads=2, n_convs=1, unit_channels=8, join_channels=8, n_members=2)


def guessed_song(seed, n_bars=20, *, pickup=0):
    """A song whose structure is random guesses, and whose features are far from standardised."""
    song = make_song(seed, n_bars=n_bars, pickup=pickup, jitter=0.2, phrase_bars=None, n_materials=4)
    return replace(song, features=BeatFeatures(3 + 2 * song.features.values, song.grid))


@pytest.fixture(scope="module")
def songs():
    return [guessed_song(0), guessed_song(1, 12, pickup=1), guessed_song(2, 26)]


def some_edits(songs, n=60, seed=0):
    generator = torch.Generator().manual_seed(seed)
    batch = collate(songs)
    actions = torch.randint(0, N_ACTIONS, (n, batch.n_units), generator=generator)
    actions = actions * (torch.rand(actions.shape, generator=generator) < 0.4)
    index = torch.randint(0, len(songs), (n,), generator=generator)
    return EditBatch(batch, index, actions, 0.3 + 0.7 * torch.rand(n, generator=generator))


def beat_form(edits):
    """Beat tensors of edits, as `RewardModel.forward` takes them."""
    songs, index = edits.songs, edits.song_index
    unit = songs.unit_id[index].masked_fill(~songs.beat_mask[index], -1)
    at = unit.clamp(min=0)
    seconds = songs.unit_durations / (songs.last_beat - songs.first_beat + 1)
    return {
        "features": model_input(edits),
        "actions": edits.actions.gather(1, at),
        "target": edits.target_ratio,
        "unit_id": unit,
        "beat_durations": seconds[index].gather(1, at),
        "phrase_start": songs.phrase_start[index].gather(1, at),
        "phase": songs.phase[index].gather(1, at[..., None].expand(-1, -1, 4)),
        "cluster": songs.cluster[index].gather(1, at),
    }
