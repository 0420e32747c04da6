import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from editorbot_core.editing.edits import KEEP, LOOP_2
from editorbot_core.policy.gymnasium_adapter import gymnasium_env

N_BARS = 9


@pytest.fixture
def env(synthetic_song):
    return gymnasium_env(synthetic_song(0, n_bars=N_BARS), reward=lambda edits: edits.target_ratio)


def test_it_passes_the_checker(env):
    check_env(env, skip_render_check=True)


def test_an_agent_that_follows_the_mask_is_never_corrected(env):
    rng = np.random.default_rng(0)
    _, info = env.reset(seed=1, options={"target_ratio": 0.6})
    steps, done = 0, False
    while not done:
        action = rng.choice(np.flatnonzero(info["action_mask"]))
        _, reward, done, _, info = env.step(action)
        assert not info["replaced"]
        steps += 1
    assert steps == N_BARS
    assert reward == pytest.approx(0.6)


def test_a_forbidden_action_is_replaced_and_said_so(env):
    env.reset(seed=1, options={"target_ratio": 0.6})
    _, _, _, _, info = env.step(np.int64(LOOP_2))
    assert info["replaced"]
    assert env.unwrapped._env.actions[0, 0] == KEEP
