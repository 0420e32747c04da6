"""What a person's answer would tell."""

import numpy as np
import pytest
import torch

from editorbot_core.base.errors import ParameterError
from editorbot_core.preferences.pairs import pair_batch, propose_pairs
from editorbot_core.rewards.config import RewardConfig
from editorbot_core.rewards.learned import RewardEnsemble
from editorbot_core.rewards.queries import information_gain, rank_pairs
from tests.core.conftest import answers, make_song, sides


@pytest.fixture(scope="module")
def songs():
    return [make_song(seed, n_bars=n_bars, estimated=True) for seed, n_bars in enumerate((24, 17, 30))]


@pytest.fixture(scope="module")
def pairs(songs):
    return propose_pairs(songs, n_pairs=30, rng=np.random.default_rng(0))


def test_information_is_where_members_disagree():
    scores_a = torch.tensor([[3.0, 3.0, 0.0], [3.0, -3.0, 0.0]])
    gain = information_gain(scores_a, torch.zeros(2, 3), 1.0)
    assert float(gain[1]) > 0.3
    assert float(gain[0]) == pytest.approx(0.0, abs=1e-6) and float(gain[2]) == pytest.approx(0.0, abs=1e-6)


def test_pairs_are_ranked_by_disagreement(songs, pairs):
    torch.manual_seed(0)
    config = RewardConfig(hidden=16, n_layers=1, n_heads=2, n_convs=0, n_members=3)
    ensemble = RewardEnsemble(config).eval()
    for member in ensemble.members:
        member.plain_line.weight.data.mul_(20)
    ranked = rank_pairs(pairs[:30], songs, ensemble)
    assert sorted(p.pair_id for p in ranked) == sorted(p.pair_id for p in pairs[:30])
    batch = pair_batch(answers(ranked), songs)
    gain = information_gain(*map(ensemble.score_members, sides(batch)), float(ensemble.temperature))
    assert (gain.diff() <= 1e-6).all() and float(gain[0]) > float(gain[-1])
    assert rank_pairs([], songs, ensemble) == []
    with pytest.raises(ParameterError, match="propose pairs again"):
        rank_pairs(pairs, songs[1:], ensemble)
