"""Disturbed songs, and which policy is kept."""

from dataclasses import replace

import pytest
import torch

from editorbot_core.policy.network import Policy
from editorbot_core.policy.selection import HeldOut, Selection, augmented
from tests.core.policy.conftest import SMALL


def test_disturbed_songs_differ_in_features_alone_and_as_much_as_was_asked_for(batch):
    batch = replace(batch, features=5 * batch.features + 2 * batch.beat_mask[..., None])
    reference = Policy(SMALL)
    reference.fit_statistics(batch)

    def disturb(seed=0, **how):
        return augmented(batch, reference, generator=torch.Generator().manual_seed(seed), **how)

    assert disturb(noise=0.0, dropout=0.0) is batch
    noisy = disturb(noise=0.5, dropout=0.0)
    deviation = ((noisy.features - batch.features) / reference.feature_scale)[batch.beat_mask].std()
    assert float(deviation) == pytest.approx(0.5, rel=0.05)
    assert torch.equal(noisy.features, disturb(noise=0.5, dropout=0.0).features)
    assert not torch.equal(noisy.features, disturb(1, noise=0.5, dropout=0.0).features)
    hidden = disturb(noise=0.0, dropout=0.3)
    dropped = (hidden.features == reference.feature_mean).all(1)
    assert float(dropped.float().mean()) == pytest.approx(0.3, abs=0.08)
    assert torch.equal(hidden.features.transpose(1, 2)[~dropped], batch.features.transpose(1, 2)[~dropped])
    assert noisy.cluster is batch.cluster


@pytest.mark.parametrize(
    ("judgement", "strikes"), [(HeldOut(1.0, 8.0), 1), (HeldOut(1.0, 9.5), 0), (HeldOut(-1.0, 8.0), 0)]
)
def test_only_better_scores_with_clearly_worse_guards_count(reference, judgement, strikes):
    selection = Selection()
    selection.observe(reference, HeldOut(0.0, 10.0), guard_drop=1.0)
    selection.observe(reference, judgement, guard_drop=1.0)
    assert selection.strikes == strikes
