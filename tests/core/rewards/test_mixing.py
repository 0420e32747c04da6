"""The mix of the learned and the dense reward."""

import pytest
import torch

from editorbot_core.base.errors import ParameterError
from editorbot_core.editing.batches import EditBatch, collate
from editorbot_core.rewards.mixing import RewardPair, Whitening, conservative_reward


def test_the_mixed_reward_whitens_before_it_mixes(edits):
    scores = RewardPair(lambda e: e.target_ratio * 0 + 3.0, lambda e: e.target_ratio * 0 + 0.6).score(edits)
    assert scores.total.tolist() == pytest.approx([0.8 * 3 + 0.2 * 0.6] * 2)
    # (3 - 1) / 4 = 0.5 and (0.6 - 0.5) / 0.05 = 2.
    assert scores.mixed(Whitening(1.0, 4.0, 0.5, 0.05)).tolist() == pytest.approx([0.8 * 0.5 + 0.2 * 2] * 2)


@pytest.mark.parametrize("bad", [lambda e: e.target_ratio[:1], lambda e: e.target_ratio * float("nan")])
def test_a_reward_that_is_no_number_per_edit_is_refused(edits, bad):
    with pytest.raises(ParameterError, match="the learned reward must give one finite number"):
        RewardPair(bad, nothing).score(edits)


def test_the_conservative_reward_subtracts_disagreement():
    class Ensemble:
        def __call__(self, edits):
            return torch.zeros(1)

        def score_members(self, edits):
            return torch.tensor([[1.0], [3.0]])

    ensemble = Ensemble()
    assert conservative_reward(ensemble, 0.0) is ensemble
    assert conservative_reward(ensemble, 0.5)(None).tolist() == [1.5]
    with pytest.raises(ParameterError, match="score_members"):
        conservative_reward(nothing, 0.5)


@pytest.fixture(scope="module")
def edits(synthetic_song):
    batch = collate([synthetic_song(seed) for seed in range(2)])
    return EditBatch(batch, torch.tensor([0, 1]), torch.zeros((2, batch.n_units), dtype=torch.int64), torch.ones(2))


def nothing(edits):
    return torch.full_like(edits.target_ratio, 0.5)
