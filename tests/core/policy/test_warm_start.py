import math

import numpy as np
import pytest
import torch

from editorbot_core.base.errors import GateError
from editorbot_core.base.tensors import module_digest
from editorbot_core.editing.batches import collate
from editorbot_core.editing.edits import CUT, KEEP
from editorbot_core.policy.config import PolicyConfig, WarmStartConfig
from editorbot_core.policy.environment import respects_mask
from editorbot_core.policy.network import Policy
from editorbot_core.policy.rollout import edit_statistics, sample_edits
from editorbot_core.policy.warm_start import imitation_loss, teacher_edits, warm_start

SMALL = PolicyConfig(width=16, hidden=32, pair_width=8, n_layers=1, n_heads=2)
QUICK = WarmStartConfig(edits_per_song=8, n_steps=60, batch_songs=4, extended_frac=0.0, learning_rate=5e-3)


@pytest.fixture(scope="module")
def songs(synthetic_song):
    return [synthetic_song(seed, n_bars=10 + seed) for seed in range(4)]


def cut_after_start(song, target_s, rng):
    """Always the same habit: keep the first unit, then cut as long as the end still lasts long enough."""
    lengths = song.unit_durations
    actions = np.full(song.units.n_units, KEEP)
    for u in range(1, song.units.n_units - 1):
        if lengths[0] + lengths[u + 1 :].sum() < target_s:
            break
        actions[u] = CUT
    return actions


def test_the_policy_takes_over_the_teachers_habit(songs):
    torch.manual_seed(0)
    policy = Policy(SMALL)
    lines = []
    result = warm_start(policy, songs, config=QUICK, teacher=cut_after_start, log=lambda m, s: lines.append((s, m)))
    assert result is policy
    assert not policy.training
    assert [step for step, _ in lines] == list(range(1, 61))
    assert lines[-1][1]["warm/loss"] < 0.5 * lines[0][1]["warm/loss"]
    assert lines[-1][1]["warm/accuracy"] > 0.97
    batch = collate(songs)
    rollout = sample_edits(policy, batch, song_index=torch.arange(4), target_ratio=torch.full((4,), 0.6), greedy=True)
    statistics = edit_statistics(rollout.edits)
    assert statistics["edit/joins_per_song"] == 1
    assert statistics["edit/start_kept"] == statistics["edit/end_kept"] == 1


def test_the_same_seed_gives_the_same_reference(songs):
    digests = []
    for seed in (3, 3, 4):
        torch.manual_seed(0)
        config = WarmStartConfig(edits_per_song=3, n_steps=3, batch_songs=2)
        digests.append(module_digest(warm_start(Policy(SMALL), songs, config=config, seed=seed)))
    assert digests[0] == digests[1] != digests[2]


def test_dynamic_programming_teaches_edits_the_mask_allows(songs):
    config = WarmStartConfig(edits_per_song=10, extended_frac=0.3)
    seen = []
    lessons = teacher_edits(
        songs, config=config, rng=np.random.default_rng(0), progress=lambda *done: seen.append(done)
    )
    assert respects_mask(lessons.edits).all()
    assert lessons.refused_frac < 0.1
    assert float(lessons.edits.target_ratio.max()) > 0.96
    assert seen[-1] == ("teacher edits", 4, 4)


def test_a_teacher_that_misses_the_targets_is_refused(songs):
    def stubborn(song, target_s, rng):
        return np.zeros(song.units.n_units, dtype=np.int64)

    with pytest.raises(GateError, match="refuses"):
        teacher_edits(songs, config=QUICK, rng=np.random.default_rng(0), teacher=stubborn)


def test_imitation_loss_by_hand():
    # Two allowed actions with probabilities 3/4 and 1/4, the first is taught; smoothing 0.2 spread 1 : 1.
    log_softmax = torch.full((1, 9), -1e9)
    log_softmax[0, 0], log_softmax[0, 1] = math.log(0.75), math.log(0.25)
    allowed = torch.zeros((1, 9), dtype=torch.bool)
    allowed[0, :2] = True
    loss = imitation_loss(log_softmax, torch.tensor([0]), torch.ones(9), allowed=allowed, label_smoothing=0.2)
    expected = -(0.8 * math.log(0.75) + 0.2 * 0.5 * (math.log(0.75) + math.log(0.25)))
    assert float(loss[0]) == pytest.approx(expected)
