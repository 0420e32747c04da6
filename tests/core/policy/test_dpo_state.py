"""The state of a run of DPO is complete, and knows its reference."""

import pytest

from editorbot_core.base.errors import FormatError
from editorbot_core.base.tensors import module_digest
from editorbot_core.policy.config import DPOConfig
from editorbot_core.policy.dpo import init_dpo
from editorbot_core.policy.dpo_state import DPOState

QUICK = DPOConfig(batch_pairs=16, log_every=2, rollout_edits=16)


@pytest.mark.parametrize("piece", ["reference_log_probs", "order", "generator"])
def test_incomplete_state_is_refused(reference, pairs, piece):
    payload = init_dpo(reference, pairs, config=QUICK).state_dict()
    del payload[piece]
    with pytest.raises(FormatError, match=f"missing \\['{piece}'\\]"):
        DPOState.from_state_dict(payload)


def test_the_state_knows_its_reference(reference, pairs):
    state = init_dpo(reference, pairs, config=QUICK)
    assert state.reference_digest == module_digest(reference)
    assert DPOState.from_state_dict(state.state_dict()).reference_digest == state.reference_digest
