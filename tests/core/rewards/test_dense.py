"""The dense reward hears each fault that its terms are named after."""

import numpy as np
import pytest
import torch

from editorbot_core.analysis.features.columns import FEATURE_INDEX, N_FEATURES
from editorbot_core.editing.batches import EditBatch, collate
from editorbot_core.editing.edits import CUT, KEEP, LOOP_4, N_ACTIONS
from editorbot_core.rewards.dense import DENSE_TERM_NAMES, dense_reward, dense_terms
from tests.core.conftest import make_song

TEMPO, ENERGY, PHRASE, QUALITY = range(4)


def song_of(n_bars=16, *, rms=None, beat_s=None, sound=None, seed=0):
    """Bars of four beats in certain phrases of four bars; loudness, beat lengths (s), MFCC offsets per bar as given."""
    values = np.random.default_rng(seed).normal(scale=0.01, size=(4 * n_bars, N_FEATURES))
    values[:, FEATURE_INDEX["rms"]] = np.repeat(np.full(n_bars, 0.1) if rms is None else np.asarray(rms), 4)
    if sound is not None:
        values[:, FEATURE_INDEX["mfcc_01"] : FEATURE_INDEX["mfcc_13"] + 1] += np.repeat(sound, 4)[:, None]
    lengths_s = np.repeat(np.full(n_bars, 0.5) if beat_s is None else np.asarray(beat_s), 4)
    return make_song(seed, values=values, beat_s=lengths_s, jitter=0.0, first_s=0.0, tail_s=0.0, doubt=0.0)


def terms(song, *edits):
    songs = collate([song])
    actions = torch.tensor(np.stack(edits))
    n = len(edits)
    return dense_terms(EditBatch(songs, torch.zeros(n, dtype=torch.int64), actions, torch.full((n,), 0.5)))


def kept(n_bars=16, *, without=()):
    actions = np.full(n_bars, KEEP)
    actions[list(without)] = CUT
    return actions


def test_the_whole_song_is_perfect_and_nothing_is_nothing():
    song = song_of(rms=np.linspace(0.05, 0.5, 16), seed=1)
    found = terms(song, kept(), np.full(16, CUT))
    assert found[0].tolist() == [1.0] * 4
    assert found[1].tolist() == [0.0] * 4


def test_terms_stay_in_range_for_any_edit():
    generator = torch.Generator().manual_seed(0)
    songs = collate([song_of(seed=1), song_of(12, seed=2, rms=np.linspace(0, 1, 12))])
    actions = torch.randint(0, N_ACTIONS, (500, 16), generator=generator)
    edits = EditBatch(songs, torch.randint(0, 2, (500,), generator=generator), actions, torch.full((500,), 0.5))
    found = dense_terms(edits)
    assert found.shape == (500, len(DENSE_TERM_NAMES)) and torch.isfinite(found).all()
    assert found.min() >= 0 and found.max() <= 1
    assert torch.allclose(dense_reward(edits), found.mean(1))


def test_tempo_consistency_hears_another_tempo():
    beat_s = np.where(np.arange(16) < 8, 0.5, 0.6)
    steady, jumpy = terms(song_of(beat_s=beat_s), kept(without=[2, 3]), kept(without=range(4, 12)))[:, TEMPO]
    assert float(steady) == pytest.approx(1.0, abs=1e-5)
    assert float(jumpy) == pytest.approx(np.exp(-np.log(1.2) / 0.15), abs=1e-4)


def test_energy_flow_hears_a_jump_in_level():
    rms = np.where(np.arange(16) < 8, 0.05, 0.5)
    steady, jump = terms(song_of(rms=rms), kept(without=[2, 3]), kept(without=range(4, 12)))[:, ENERGY]
    assert float(steady) == pytest.approx(1.0, abs=1e-4)
    assert float(jump) == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize(
    ("without", "expected"),
    [
        (range(4, 8), 1.0),  # a whole phrase
        (range(5, 9), 0.5),  # in phase, inside phrases
        (range(5, 8), 0.0),  # leaves inside a phrase, enters at a start
        (range(0, 4), 1.0),  # begins at a phrase start
        (range(0, 2), 0.0),  # begins inside a phrase
        (range(12, 16), 1.0),  # ends at a phrase end
        (range(14, 16), 0.0),
    ],
)
def test_phrase_completeness(without, expected):
    assert float(terms(song_of(), kept(without=without))[0, PHRASE]) == pytest.approx(expected, abs=1e-5)


def test_transition_quality_hears_other_material():
    sound = np.where(np.arange(16) // 4 % 2 == 0, 0.0, 1.0)
    same, other = terms(song_of(sound=sound), kept(without=range(4, 12)), kept(without=range(6, 8)))[:, QUALITY]
    assert float(same) > float(other)


def test_repeats_are_heard_as_often_as_they_are_played():
    rms = np.full(16, 0.1)
    rms[6] = 0.9
    song = song_of(rms=rms)
    once = kept(without=[6])
    looped = kept()
    looped[6] = LOOP_4
    assert float(terms(song, looped)[0, PHRASE]) < 0.5 < float(terms(song, kept(without=range(4, 8)))[0, PHRASE])
    assert terms(song, once).shape == (1, 4)


def test_songs_in_one_batch_do_not_touch_each_other():
    long, short = song_of(16, seed=3), song_of(8, seed=4, rms=np.linspace(0.1, 0.4, 8))
    actions = torch.tensor(kept(without=[2, 5]))[None]
    both = collate([long, short])
    together = dense_terms(EditBatch(both, torch.tensor([1]), actions, torch.tensor([0.5])))
    alone = dense_terms(EditBatch(collate([short]), torch.tensor([0]), actions[:, :8], torch.tensor([0.5])))
    assert torch.allclose(together, alone, atol=1e-6)
