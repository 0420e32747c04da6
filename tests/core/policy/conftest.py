"""A small policy, songs, and a reward whose best edits are known."""

import pytest
import torch

from editorbot_core.analysis.features.columns import FEATURE_INDEX
from editorbot_core.editing.batches import collate
from editorbot_core.editing.edits import CUT
from editorbot_core.policy.config import PolicyConfig, PPOConfig
from editorbot_core.policy.network import Policy
from editorbot_core.policy.rollout import sample_edits
from editorbot_core.preferences.pairs import PairBatch
from editorbot_core.rewards.mixing import RewardPair

SMALL = PolicyConfig(width=16, hidden=32, pair_width=8, n_layers=1, n_heads=2)
# Two groups of eight samples of songs of 48 beats.
QUICK = PPOConfig(n_steps=2 * 8 * 48, samples_per_song=8, whitening_edits=16, evaluate_every=2)


def loud_bars(edits):
    """Mean standardised loudness of the kept units: the best edit keeps the loudest."""
    songs = edits.songs
    loudness = songs.features[..., FEATURE_INDEX["rms"]]
    sums = torch.zeros((songs.n_songs, songs.n_units + 1)).scatter_add(1, songs.unit_id, loudness)[:, :-1]
    kept = ((edits.actions != CUT) & edits.unit_mask).float()
    return (sums[edits.song_index] / 4 * kept).sum(1) / kept.sum(1)


def nothing(edits):
    return torch.full_like(edits.target_ratio, 0.5)


REWARDS = RewardPair(loud_bars, nothing)


@pytest.fixture(scope="module")
def batch(synthetic_song):
    return collate([synthetic_song(seed, n_bars=12) for seed in range(4)])


@pytest.fixture(scope="module")
def reference(batch):
    torch.manual_seed(0)
    policy = Policy(SMALL)
    policy.fit_statistics(batch)
    return policy.eval()


def made_pairs(reference, batch, *, n, seed):
    """Pairs sampled from the reference, of which the louder side is preferred."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.arange(n) % batch.n_songs
    ratio = torch.full((n,), 0.5)
    sides = [
        sample_edits(reference, batch, song_index=index, target_ratio=ratio, generator=generator).edits
        for _ in range(2)
    ]
    a, b = (loud_bars(side) for side in sides)
    return PairBatch(
        songs=batch,
        song_index=index,
        actions_a=sides[0].actions,
        actions_b=sides[1].actions,
        target_ratio=ratio,
        label=(a > b).float(),
        confidence=torch.ones(n),
        strength=torch.full((n,), 2),
        source_index=torch.arange(n),
        n_refused=0,
    )


@pytest.fixture(scope="module")
def pairs(reference, batch):
    """Pairs of edits that the reference made."""
    return made_pairs(reference, batch, n=64, seed=0)
