"""Configurations out of range are refused, all faults at once."""

import pytest

from editorbot_core.base.errors import ParameterError
from editorbot_core.policy.config import DPOConfig, PPOConfig, WarmStartConfig


def test_all_faults_of_ppo_are_reported_together():
    with pytest.raises(ParameterError, match=r"epochs must be at least 1.*clip_coef must be positive.*group or gae"):
        PPOConfig(epochs=0, clip_coef=-1.0, advantage="other")


def test_all_faults_of_dpo_are_reported_together():
    with pytest.raises(ParameterError, match=r"epochs must be at least 1.*beta must be positive.*sigmoid or ipo"):
        DPOConfig(epochs=0, beta=0.0, loss="other")


@pytest.mark.parametrize("change", [{"n_steps": 0}, {"target_range": (0.9, 0.5)}, {"label_smoothing": 1.0}])
def test_a_warm_start_out_of_range_is_refused(change):
    with pytest.raises(ParameterError, match="must be positive"):
        WarmStartConfig(**change)
