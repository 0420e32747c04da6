"""What the policy observes of a song and of the edit so far."""

from dataclasses import replace

import torch

from editorbot_core.analysis.features.columns import FEATURE_NAMES
from editorbot_core.editing.batches import collate
from editorbot_core.editing.edits import CUT, KEEP
from editorbot_core.policy.environment import EpisodeState, plan_episodes, replay
from editorbot_core.policy.observation import JOIN_GROUPS, finish_unit


def test_the_finishing_unit_is_the_one_whose_start_hits_the_target(synthetic_song):
    batch = collate([synthetic_song(0, n_bars=8), synthetic_song(1, n_bars=10)])
    seconds = torch.zeros((2, 10))
    seconds[0, :8] = 1.0
    seconds[1] = 2.0
    batch = replace(batch, unit_durations=seconds)
    # Target 4 s of 8 and 10 s of 20. With k seconds kept the rest must begin 4 - k, or 10 - k, seconds before the end.
    episodes = plan_episodes(batch, torch.tensor([0, 1]), torch.tensor([0.5, 0.5]))
    actions = torch.tensor([[KEEP, KEEP, CUT, CUT, CUT, CUT, KEEP, KEEP, CUT, CUT], [KEEP, CUT, KEEP] + [CUT] * 7])
    state = replay(episodes, actions)
    finish = finish_unit(episodes, state, torch.arange(10))
    assert finish[0, :8].tolist() == [4, 5, 6, 6, 6, 6, 6, 7]
    assert finish[1].tolist() == [5, 6, 6, 7, 7, 7, 7, 7, 8, 9]
    for u in range(8):
        alone = EpisodeState(u, *(value[:, u] for value in state[1:]))
        assert finish_unit(episodes, alone, torch.tensor(u)).tolist() == finish[:, u].tolist()


def test_join_groups_are_timbre_harmony_and_level():
    timbre, harmony, level = ([FEATURE_NAMES[i] for i in group] for group in JOIN_GROUPS)
    assert len([n for n in timbre if n.startswith("mfcc_")]) == 13
    assert "spectral_bandwidth" in timbre
    assert len(harmony) == 12
    assert {"rms", "drums_energy", "vocals_energy_share"} <= set(level)
    assert not [n for n in timbre + harmony + level if "delta" in n or n.endswith("_diff")]
