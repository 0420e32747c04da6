"""What is said of a policy's edits."""

import copy
import math

import pytest
import torch

from editorbot_core.editing.edits import CUT
from editorbot_core.policy.report import policy_report


def test_a_policy_is_no_distance_from_itself_and_some_from_another(reference, synthetic_song) -> None:
    songs = [synthetic_song(seed) for seed in range(3)]
    own = policy_report(reference, reference, songs, seed=0)
    assert own["kl_ref_unit"] == pytest.approx(0.0, abs=1e-6)
    assert own == policy_report(reference, reference, songs, seed=0)
    assert own != policy_report(reference, reference, songs, seed=1)
    other = copy.deepcopy(reference)
    with torch.no_grad():
        other.to_logits.bias[CUT] += 1.0
    assert policy_report(other, reference, songs, seed=0)["kl_ref_unit"] > 1e-3
    assert all(math.isfinite(value) for value in own.values())
    # Edits of half length keep about half.
    assert own["edit/keep_ratio"] == pytest.approx(0.5, abs=0.1)
