import pytest
import torch

from editorbot_core.base.errors import ParameterError
from editorbot_core.editing.batches import EditBatch, collate
from editorbot_core.editing.edits import CUT, KEEP, LOOP_2, REORDER_1
from editorbot_core.policy.config import PolicyConfig
from editorbot_core.policy.environment import respects_mask
from editorbot_core.policy.network import Policy
from editorbot_core.policy.rollout import (
    compute_gae,
    draw_targets,
    edit_statistics,
    group_advantages,
    log_prob,
    sample_edits,
)

SMALL = PolicyConfig(width=16, hidden=32, pair_width=8, n_layers=1, n_heads=2, move_bias=-1.0)


@pytest.fixture(scope="module")
def policy():
    torch.manual_seed(0)
    policy = Policy(SMALL).eval()
    with torch.no_grad():
        # Decided enough that a wrong feature or state would show.
        policy.to_logits.weight.normal_(std=0.5)
    return policy


@pytest.fixture(scope="module")
def batch(synthetic_song):
    return collate([synthetic_song(0, n_bars=9), synthetic_song(1, n_bars=20), synthetic_song(2, n_bars=15)])


def sampled(policy, batch, *, n=60, seed=0, **options):
    ratio = 0.35 + 0.9 * torch.rand(n, generator=torch.Generator().manual_seed(9))
    return sample_edits(
        policy,
        batch,
        song_index=torch.arange(n) % batch.n_songs,
        target_ratio=ratio,
        generator=torch.Generator().manual_seed(seed),
        **options,
    )


def test_one_parallel_pass_gives_what_the_steps_gave(policy, batch):
    rollout = sampled(policy, batch)
    result = log_prob(policy, rollout.edits)
    mask = rollout.edits.unit_mask
    torch.testing.assert_close(result.log_probs, rollout.log_probs, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(result.entropy, rollout.entropy, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(result.values[mask], rollout.values[mask], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(result.log_softmax[mask], rollout.log_softmax[mask], atol=1e-4, rtol=1e-4)
    assert torch.equal((result.allowed.sum(2) == 1)[mask], rollout.forced[mask])
    assert not result.refused.any()


def test_samples_respect_the_mask_and_are_told_apart_by_the_seed(policy, batch):
    a, again, b = sampled(policy, batch), sampled(policy, batch), sampled(policy, batch, seed=1)
    assert respects_mask(a.edits).all()
    assert torch.equal(a.actions, again.actions)
    assert not torch.equal(a.actions, b.actions)
    assert 0 < a.mask_forced_frac < 0.6


def test_padding_is_cut_and_says_nothing(policy, batch):
    index, ratio = torch.zeros(4, dtype=torch.int64), torch.full((4,), 0.6)
    rollout = sample_edits(
        policy, batch, song_index=index, target_ratio=ratio, generator=torch.Generator().manual_seed(0)
    )
    padding = ~rollout.edits.unit_mask
    assert padding.sum() == 4 * 11
    assert (rollout.actions[padding] == CUT).all()
    assert (rollout.log_probs[padding] == 0).all()
    assert (rollout.entropy[padding] == 0).all()


def test_edits_of_a_song_do_not_depend_on_the_other_songs(policy, batch):
    index, ratio = torch.zeros(4, dtype=torch.int64), torch.full((4,), 0.6)
    rollout = sample_edits(policy, batch, song_index=index, target_ratio=ratio, greedy=True)
    alone = sample_edits(policy, batch.select([0]), song_index=index, target_ratio=ratio, greedy=True)
    assert torch.equal(rollout.actions, alone.actions)
    torch.testing.assert_close(rollout.log_probs, alone.log_probs, atol=1e-5, rtol=1e-4)


def test_greedy_takes_the_likeliest_allowed_action(policy, batch):
    rollout = sampled(policy, batch, greedy=True)
    mask = rollout.edits.unit_mask
    assert torch.equal(rollout.log_softmax.argmax(2)[mask], rollout.actions[mask])


def test_sampling_follows_the_softmax(policy, batch):
    n = 6000
    rollout = sample_edits(
        policy,
        batch.select([0]),
        song_index=torch.zeros(n, dtype=torch.int64),
        target_ratio=torch.full((n,), 0.6),
        generator=torch.Generator().manual_seed(3),
        temperature=2.0,
    )
    same_past = rollout.actions[:, 0] == KEEP
    second = rollout.actions[same_past, 1]
    expected = (rollout.log_softmax[same_past, 1][0] / 2).softmax(0)
    assert (expected > 0.02).sum() >= 4
    share = torch.bincount(second, minlength=9) / len(second)
    # Four standard deviations of a proportion.
    assert ((share - expected).abs() < 4 * (expected * (1 - expected) / len(second)).sqrt() + 1e-6).all()


def test_a_high_temperature_spreads_and_a_low_one_gathers(policy, batch):
    cold = sampled(policy, batch, temperature=0.01)
    greedy = sampled(policy, batch, greedy=True)
    hot = sampled(policy, batch, temperature=5.0)
    assert (cold.actions == greedy.actions).float().mean() > 0.95
    assert float(hot.log_probs.sum(1).mean()) < float(cold.log_probs.sum(1).mean())


def test_sampling_needs_a_generator_and_a_positive_temperature(policy, batch):
    index, ratio = torch.tensor([0]), torch.tensor([0.5])
    with pytest.raises(ParameterError, match="needs a generator"):
        sample_edits(policy, batch, song_index=index, target_ratio=ratio)
    with pytest.raises(ParameterError, match="positive temperature"):
        sample_edits(policy, batch, song_index=index, target_ratio=ratio, generator=torch.Generator(), temperature=0.0)


def test_an_edit_that_misses_its_target_is_refused(policy, batch):
    actions = torch.zeros((2, batch.n_units), dtype=torch.int64)
    result = log_prob(policy, EditBatch(batch, torch.tensor([1, 1]), actions, torch.tensor([0.5, 1.0])))
    assert result.refused.tolist() == [True, False]
    assert torch.isfinite(result.entropy).all()


def test_probabilities_of_all_actions_sum_to_one_where_allowed(policy, batch):
    result = log_prob(policy, sampled(policy, batch).edits)
    mask = result.unit_mask
    sums = result.log_softmax[mask].exp().sum(-1)
    torch.testing.assert_close(sums, torch.ones_like(sums))
    assert (result.log_softmax[mask].exp()[~result.allowed[mask]] == 0).all()


def test_group_advantages_by_hand():
    rewards = torch.tensor([1.0, 3.0, 10.0, 10.0])
    # Centred: -1, 1, 0, 0; mean square 1/2.
    advantages = group_advantages(rewards, torch.tensor([0, 0, 1, 1]))
    torch.testing.assert_close(advantages, torch.tensor([-(2**0.5), 2**0.5, 0.0, 0.0]))


def test_groups_without_spread_teach_nothing():
    assert (group_advantages(torch.full((6,), 3.7), torch.tensor([0, 0, 0, 1, 1, 1])) == 0).all()


def test_gae_by_hand():
    # gamma 0.5, lambda 0.5, one episode of three steps that ends.
    # delta: 0 + 0.5*2 - 1 = 0; 0 + 0.5*4 - 2 = 0; 8 - 4 = 4. A2 = 4; A1 = 0 + 0.25*4 = 1; A0 = 0 + 0.25*1 = 0.25.
    result = compute_gae(
        torch.tensor([[0.0, 0.0, 8.0]]),
        torch.tensor([[1.0, 2.0, 4.0]]),
        torch.tensor([[False, False, True]]),
        torch.tensor([100.0]),
        gamma=0.5,
        gae_lambda=0.5,
    )
    torch.testing.assert_close(result.advantages, torch.tensor([[0.25, 1.0, 4.0]]))
    torch.testing.assert_close(result.returns, torch.tensor([[1.25, 3.0, 8.0]]))


def test_gae_bootstraps_from_the_last_value_only_where_nothing_ended():
    rewards, values = torch.zeros((2, 1)), torch.zeros((2, 1))
    dones = torch.tensor([[True], [False]])
    result = compute_gae(rewards, values, dones, torch.tensor([10.0, 10.0]), gamma=0.9, gae_lambda=1.0)
    torch.testing.assert_close(result.advantages[:, 0], torch.tensor([0.0, 9.0]))


def test_gae_with_lambda_one_is_the_return_minus_the_value():
    generator = torch.Generator().manual_seed(0)
    rewards, values = torch.randn((3, 7), generator=generator), torch.randn((3, 7), generator=generator)
    dones = torch.zeros((3, 7), dtype=torch.bool)
    dones[:, -1] = True
    result = compute_gae(rewards, values, dones, torch.zeros(3), gamma=1.0, gae_lambda=1.0)
    returns = rewards.flip(1).cumsum(1).flip(1)
    torch.testing.assert_close(result.advantages, returns - values)


def test_gae_refuses_shapes_that_differ():
    with pytest.raises(ParameterError, match="one shape"):
        compute_gae(
            torch.zeros(3), torch.zeros(2), torch.zeros(3, dtype=torch.bool), torch.zeros(()), gamma=1, gae_lambda=1
        )


def test_targets_are_drawn_from_their_ranges():
    generator = torch.Generator().manual_seed(0)
    short = draw_targets(1000, generator=generator, target_range=(0.35, 0.95))
    assert 0.35 <= short.min() < 0.37
    assert 0.93 < short.max() <= 0.95
    mixed = draw_targets(1000, generator=generator, target_range=(0.35, 0.9), extended_frac=0.3)
    assert 0.2 < (mixed > 0.94).float().mean() < 0.4
    assert mixed.max() <= 1.25


def test_statistics_of_known_edits(synthetic_song):
    song = synthetic_song(0, n_bars=8, tail_s=0.0, jitter=0.0)
    batch = collate([song])
    actions = torch.tensor([[KEEP, CUT, CUT, KEEP, KEEP, KEEP, KEEP, KEEP], [CUT, *([KEEP] * 5), LOOP_2, CUT]])
    edits = EditBatch(batch, torch.tensor([0, 0]), actions, torch.tensor([0.75, 0.75]))
    statistics = edit_statistics(edits)
    assert statistics["edit/start_kept"] == 0.5
    assert statistics["edit/end_kept"] == 0.5
    assert statistics["edit/joins_per_song"] == pytest.approx(1.0)
    assert statistics["edit/act_frac_loop_2"] == pytest.approx(1 / 16)
    assert statistics["edit/act_frac_cut"] == pytest.approx(4 / 16)
    lengths = song.unit_durations / song.duration
    expected = (1 - lengths[1:3].sum() + 1 - lengths[0] - lengths[7] + lengths[6]) / 2
    assert statistics["edit/keep_ratio"] == pytest.approx(expected, abs=1e-5)


def test_moved_units_count_as_joins(synthetic_song):
    batch = collate([synthetic_song(0, n_bars=6)])
    actions = torch.tensor([[KEEP, REORDER_1, KEEP, KEEP, KEEP, KEEP]])
    edits = EditBatch(batch, torch.tensor([0]), actions, torch.tensor([1.0]))
    # Heard: 0 2 1 3 4 5.
    assert edit_statistics(edits)["edit/joins_per_song"] == 3.0
