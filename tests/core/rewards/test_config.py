"""Settings out of range are refused, all faults at once."""

import pytest

from editorbot_core.base.errors import ParameterError
from editorbot_core.rewards.config import RewardConfig


def test_faults_of_a_configuration_are_reported_together():
    with pytest.raises(ParameterError, match=r"hidden must be in .*; epochs must be a whole number"):
        RewardConfig(hidden=4, epochs=2.5)
    with pytest.raises(ParameterError, match="multiple of 4 x n_heads"):
        RewardConfig(hidden=40, n_heads=4)
