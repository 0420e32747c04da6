from dataclasses import replace

import numpy as np
import pytest
import torch

from editorbot_core.base.errors import ParameterError
from editorbot_core.editing.batches import EditBatch, collate
from editorbot_core.editing.edits import (
    ACTION_SHIFTS,
    CUT,
    KEEP,
    LOOP_2,
    N_ACTIONS,
    REORDER_1,
    compile_actions,
    edl_of,
    played_units,
)
from editorbot_core.policy.environment import (
    START,
    BeatEditingEnv,
    allowed_actions,
    plan_episodes,
    replay,
    respects_mask,
)


@pytest.fixture(scope="module")
def songs(synthetic_song):
    return [synthetic_song(0, n_bars=9), synthetic_song(1, n_bars=24), synthetic_song(2, n_bars=15, tail_s=9.0)]


def walk(batch, index, ratio, *, seed, move_rate=None):
    """Random allowed decisions; returns the environment after the end, and every state and mask on the way."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.ones(N_ACTIONS)
    if move_rate is not None:
        weights[LOOP_2:] = move_rate
    env = BeatEditingEnv(batch)
    states, masks = [env.reset(index, ratio)], []
    for _ in range(env.n_steps):
        mask = env.allowed_actions()
        masks.append(mask)
        action = torch.multinomial(mask * weights, 1, generator=generator)[:, 0]
        states.append(env.step(action).state)
    return env, states[:-1], masks


def uniform_song(synthetic_song, durations):
    """A song whose units last `durations` seconds."""
    song = synthetic_song(0, n_bars=len(durations))
    batch = collate([song])
    lengths = torch.tensor([durations])
    return replace(batch, unit_durations=lengths, duration=lengths.sum(1))


def state_after(batch, ratio, actions):
    env = BeatEditingEnv(batch)
    env.reset(torch.tensor([0]), torch.tensor([ratio]))
    for action in actions:
        env.step(torch.tensor([action]))
    return env


@pytest.mark.parametrize(("low", "high", "move_rate"), [(0.35, 0.95, 0.02), (0.35, 0.95, 1.0), (0.96, 1.25, 0.3)])
def test_every_allowed_sequence_ends_within_the_tolerance(songs, low, high, move_rate):
    batch = collate(songs)
    index = torch.arange(300) % 3
    ratio = low + (high - low) * torch.rand(300, generator=torch.Generator().manual_seed(1))
    env, _, _ = walk(batch, index, ratio, seed=2, move_rate=move_rate)
    for i in range(300):
        song = songs[index[i]]
        target_s = float(ratio[i]) * song.duration
        edl = edl_of(song, env.actions[i, : song.units.n_units].numpy(), target_duration_s=target_s)
        tolerance = 0.015 * target_s + 0.5 * float(np.median(song.unit_durations))
        assert abs(edl.duration_s - target_s) <= tolerance + 1e-3


def test_masks_and_states_of_a_replay_are_those_of_the_steps(songs):
    batch = collate(songs)
    index = torch.arange(200) % 3
    ratio = 0.35 + 0.9 * torch.rand(200, generator=torch.Generator().manual_seed(3))
    env, states, masks = walk(batch, index, ratio, seed=4)
    replayed = replay(env.episodes, env.actions)
    parallel = allowed_actions(env.episodes, replayed)
    for u, (state, mask) in enumerate(zip(states, masks, strict=True)):
        assert torch.equal(parallel[:, u], mask)
        for name in state._fields[1:]:
            real = env.episodes.unit_mask[:, u]
            assert torch.equal(getattr(replayed, name)[:, u][real], getattr(state, name)[real]), name
    assert (states[0].previous == START).all()


def test_at_least_one_action_is_allowed_everywhere_and_only_cut_in_padding(songs):
    batch = collate(songs)
    index = torch.arange(60) % 3
    env, _, _ = walk(batch, index, torch.linspace(0.05, 1.6, 60), seed=5)
    masks = allowed_actions(env.episodes, replay(env.episodes, env.actions))
    assert masks.any(2).all()
    padding = masks[~env.episodes.unit_mask]
    assert padding[:, CUT].all()
    assert not padding[:, [a for a in range(N_ACTIONS) if a != CUT]].any()


def test_ends_are_never_looped_or_moved_and_nothing_is_moved_behind_the_end(songs):
    batch = collate(songs)
    index = torch.arange(300) % 3
    env, _, _ = walk(batch, index, torch.full((300,), 0.8), seed=6)
    for i in range(300):
        n = songs[index[i]].units.n_units
        actions = env.actions[i, :n]
        assert actions[0] in (KEEP, CUT)
        assert actions[-1] in (KEEP, CUT)
        order = played_units(actions.numpy())
        if actions[-1] == KEEP:
            assert order[-1] == n - 1
        if actions[0] == KEEP:
            assert order[0] == 0
    assert (env.actions >= REORDER_1).any()


def test_exit_unit_is_what_the_compiled_order_plays_before(songs):
    batch = collate(songs)
    index = torch.arange(90) % 3
    env, states, _ = walk(batch, index, torch.full((90,), 0.7), seed=7)
    for i in range(90):
        for u in range(1, songs[index[i]].units.n_units):
            prefix = torch.full_like(env.actions[i], CUT)
            prefix[:u] = env.actions[i, :u]
            prefix[u] = KEEP
            order = compile_actions(prefix[None], torch.ones_like(prefix[None], dtype=torch.bool)).units[0].tolist()
            place = order.index(u)
            assert int(states[u].exit_unit[i]) == (order[place - 1] if place else -1)


def test_mask_of_four_equal_units_at_half_length(synthetic_song):
    # Target 2 s, tolerance 0.03 + 0.5 s.
    batch = uniform_song(synthetic_song, [1.0, 1.0, 1.0, 1.0])
    start = state_after(batch, 0.5, []).allowed_actions()[0]
    assert start.tolist() == [True, True] + [False] * 7
    full = state_after(batch, 0.5, [KEEP, KEEP]).allowed_actions()[0]
    assert full.tolist() == [False, True] + [False] * 7
    empty = state_after(batch, 0.5, [CUT, CUT]).allowed_actions()[0]
    # Playing the third unit twice reaches the target without the fourth; a unit may not be moved to the end.
    assert empty.tolist() == [True, False, True, False, False] + [False] * 4
    second = state_after(batch, 0.5, [CUT]).allowed_actions()[0]
    assert second.tolist() == [True, True, True, False, False, True, False, False, False]


def test_loops_make_long_targets_reachable_and_are_not_counted_on_below(synthetic_song):
    batch = uniform_song(synthetic_song, [1.0] * 8)
    assert state_after(batch, 1.2, [KEEP, CUT]).allowed_actions()[0, CUT]
    assert not state_after(batch, 0.94, [KEEP, CUT]).allowed_actions()[0, CUT]


def test_a_long_last_unit_is_reserved_or_given_up_in_time(synthetic_song):
    # Target 10 s of 20, tolerance 0.65 s: with the 9 s at the end only one second is left for the rest.
    batch = uniform_song(synthetic_song, [1.0] * 11 + [9.0])
    after_one = state_after(batch, 0.5, [KEEP]).allowed_actions()[0]
    assert after_one[[KEEP, CUT]].tolist() == [True, True]
    given_up = state_after(batch, 0.5, [KEEP, KEEP]).allowed_actions()[0]
    assert given_up[[KEEP, CUT]].tolist() == [True, True]
    reserved = state_after(batch, 0.5, [KEEP, CUT, CUT]).allowed_actions()[0]
    assert reserved[[KEEP, CUT]].tolist() == [False, True]


def test_where_nothing_is_in_reach_the_smallest_error_is_allowed(synthetic_song):
    # Target 8 s of 16, tolerance 0.12 + 0.5 s: the long unit fits neither way after four seconds are kept.
    batch = uniform_song(synthetic_song, [1.0, 1.0, 1.0, 1.0, 11.0, 1.0])
    mask = state_after(batch, 0.5, [KEEP] * 4).allowed_actions()[0]
    # Cutting it leaves 4 + 1 s (3 short), keeping it 15 s (7 long).
    assert mask[[KEEP, CUT]].tolist() == [False, True]


def test_at_least_one_unit_is_kept(synthetic_song):
    batch = uniform_song(synthetic_song, [1.0] * 4)
    # Target 0.2 s with a tolerance of 0.5 s: silence would be near enough.
    assert state_after(batch, 0.05, [CUT] * 3).allowed_actions()[0].tolist() == [True] + [False] * 8


def test_respects_mask_tells_edits_that_miss_the_target(songs):
    batch = collate(songs)
    index = torch.arange(30) % 3
    ratio = torch.full((30,), 0.5)
    env, _, _ = walk(batch, index, ratio, seed=8)
    assert respects_mask(env.edits).all()
    keep_all = EditBatch(batch, index, torch.zeros_like(env.actions), ratio)
    assert not respects_mask(keep_all).any()
    assert respects_mask(replace(keep_all, target_ratio=torch.ones(30))).all()


def test_the_reward_comes_with_the_last_step(songs):
    seen = []

    def reward(edits):
        seen.append(edits)
        return edits.target_ratio * 2

    env = BeatEditingEnv(collate(songs[:1]), reward=reward)
    env.reset(torch.zeros(4, dtype=torch.int64), torch.full((4,), 1.0))
    rewards, done = [], False
    while not done:
        result = env.step(torch.zeros(4, dtype=torch.int64))
        rewards.append(result.reward)
        done = result.done
    assert len(rewards) == songs[0].units.n_units
    assert all((r == 0).all() for r in rewards[:-1])
    assert rewards[-1].tolist() == [2.0] * 4
    assert len(seen) == 1
    with pytest.raises(ParameterError, match="call reset"):
        env.step(torch.zeros(4, dtype=torch.int64))


def test_a_forbidden_action_is_refused_by_name(songs):
    env = BeatEditingEnv(collate(songs))
    env.reset(torch.tensor([0, 1]), torch.tensor([0.5, 0.5]))
    with pytest.raises(ParameterError, match="LOOP_2 is not allowed at unit 0 of episode 1"):
        env.step(torch.tensor([KEEP, LOOP_2]))


@pytest.mark.parametrize("ratio", [0.0, -1.0, float("nan"), float("inf")])
def test_targets_must_be_positive_numbers(songs, ratio):
    with pytest.raises(ParameterError, match="target_ratio must be positive"):
        plan_episodes(collate(songs), torch.tensor([0]), torch.tensor([ratio]))


def test_one_target_per_episode(songs):
    with pytest.raises(ParameterError, match="one target per episode"):
        plan_episodes(collate(songs), torch.tensor([0, 1]), torch.tensor([0.5]))


def test_shifts_of_moves_are_those_of_their_names():
    assert [ACTION_SHIFTS[a] for a in range(REORDER_1, N_ACTIONS)] == [1, 2, 3, 4]
