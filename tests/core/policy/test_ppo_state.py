"""The state of a run of PPO is complete, or refused."""

import pytest

from editorbot_core.base.errors import FormatError
from editorbot_core.policy.ppo import init_ppo
from editorbot_core.policy.ppo_state import PPOState
from tests.core.policy.conftest import QUICK, REWARDS


@pytest.mark.parametrize("piece", ["generator", "optimizer", "kl_weight", "selection"])
def test_incomplete_state_is_refused(batch, reference, piece):
    payload = init_ppo(reference, batch, REWARDS, config=QUICK).state_dict()
    del payload[piece]
    with pytest.raises(FormatError, match=f"missing \\['{piece}'\\]"):
        PPOState.from_state_dict(payload)


def test_state_of_another_network_is_refused(batch, reference):
    payload = init_ppo(reference, batch, REWARDS, config=QUICK).state_dict()
    payload["policy_config"]["width"] = 32
    with pytest.raises(FormatError, match="does not fit"):
        PPOState.from_state_dict(payload)
