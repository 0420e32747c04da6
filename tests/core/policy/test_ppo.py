import math
from dataclasses import replace

import pytest
import torch
from torch import multiprocessing

from editorbot_core.analysis.features.columns import FEATURE_INDEX
from editorbot_core.base.errors import FormatError, ParameterError
from editorbot_core.base.tensors import load_tensors, save_tensors
from editorbot_core.editing.batches import collate
from editorbot_core.editing.edits import CUT
from editorbot_core.policy.config import PolicyConfig, PPOConfig
from editorbot_core.policy.losses import (
    approximate_kl,
    categorical_kl,
    clipped_surrogate,
    kl_pressure,
    next_kl_weight,
    value_error,
)
from editorbot_core.policy.network import Policy, policy_digest
from editorbot_core.policy.ppo import init_ppo, train_ppo
from editorbot_core.policy.ppo_state import PPOState
from editorbot_core.policy.selection import HeldOut, Selection, augmented, rollout_metrics
from editorbot_core.rewards.mixing import RewardPair, Whitening, conservative_reward

SMALL = PolicyConfig(width=16, hidden=32, pair_width=8, n_layers=1, n_heads=2)
# Two groups of eight samples of songs of 48 beats.
QUICK = PPOConfig(n_steps=2 * 8 * 48, samples_per_song=8, whitening_edits=16, evaluate_every=2)
LONG = 10**9


def loud_bars(edits):
    """Mean standardised loudness of the kept units: the best edit keeps the loudest."""
    songs = edits.songs
    loudness = songs.features[..., FEATURE_INDEX["rms"]]
    sums = torch.zeros((songs.n_songs, songs.n_units + 1)).scatter_add(1, songs.unit_id, loudness)[:, :-1]
    kept = ((edits.actions != CUT) & edits.unit_mask).float()
    return (sums[edits.song_index] / 4 * kept).sum(1) / kept.sum(1)


def nothing(edits):
    return torch.full_like(edits.target_ratio, 0.5)


REWARDS = RewardPair(loud_bars, nothing)


@pytest.fixture(scope="module")
def batch(synthetic_song):
    return collate([synthetic_song(seed, n_bars=12) for seed in range(4)])


@pytest.fixture(scope="module")
def reference(batch):
    torch.manual_seed(0)
    policy = Policy(SMALL)
    policy.fit_statistics(batch)
    return policy.eval()


def trained(state, batch, iterations, **options):
    return train_ppo(state, batch, REWARDS, total_steps=LONG, max_iterations=iterations, **options)


def test_clipped_surrogate_by_hand():
    log_ratio = torch.tensor([0.0, math.log(1.5), math.log(1.5), math.log(0.5), math.log(0.5)])
    advantages = torch.tensor([2.0, 1.0, -1.0, 1.0, -1.0])
    # max(-A r, -A clip(r)): -2; -min(1.5, 1.2); max(1.5, 1.2); -min(0.5, 0.8); max(0.5, 0.8)
    expected = torch.tensor([-2.0, -1.2, 1.5, -0.5, 0.8])
    torch.testing.assert_close(clipped_surrogate(log_ratio, advantages, clip_coef=0.2), expected)


def test_clipping_stops_the_gradient_only_on_the_side_that_gains():
    log_ratio = torch.tensor([math.log(1.5), math.log(1.5)], requires_grad=True)
    clipped_surrogate(log_ratio, torch.tensor([1.0, -1.0]), clip_coef=0.2).sum().backward()
    torch.testing.assert_close(log_ratio.grad, torch.tensor([0.0, 1.5]))


def test_kl_by_hand_and_forbidden_actions_add_nothing():
    p, q = torch.tensor([0.5, 0.5]).log(), torch.tensor([0.25, 0.75]).log()
    forbidden = torch.tensor([-1e9])
    kl = categorical_kl(torch.cat([p, forbidden]), torch.cat([q, forbidden]))
    assert float(kl) == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))
    assert float(categorical_kl(p, p)) == 0


def test_approximate_kl_and_value_error_by_hand():
    torch.testing.assert_close(approximate_kl(torch.tensor([math.log(2.0)])), torch.tensor([1 - math.log(2.0)]))
    torch.testing.assert_close(value_error(torch.tensor([3.0]), torch.tensor([1.0])), torch.tensor([2.0]))


def test_the_kl_weight_follows_the_kl_slowly_and_within_bounds():
    def step(weight, kl):
        return next_kl_weight(weight, kl, kl_target=0.3, initial=0.1)

    assert step(0.1, 0.3) == pytest.approx(0.1)
    assert step(0.1, 0.45) == pytest.approx(0.1025)
    assert step(0.1, 3.0) == pytest.approx(0.105)
    assert step(0.1, 0.0) == pytest.approx(0.095)
    assert step(9.9, 3.0) == pytest.approx(10.0)
    assert step(0.01, 0.0) == pytest.approx(0.01)


def test_the_kl_presses_little_below_its_target_and_hard_above():
    pressures = [kl_pressure(0.1, kl, kl_target=0.3) for kl in (-1e-9, 0.15, 0.3, 0.6, 9.0)]
    assert pressures == pytest.approx([0.0, 0.025, 0.1, 0.4, 0.9])


def test_the_kl_is_steered_to_its_target(batch, reference):
    config = replace(QUICK, n_steps=4 * 8 * 48, learning_rate=2e-3, kl_target=0.1, kl_coef=0.5)
    lines = []
    trained(init_ppo(reference, batch, REWARDS, config=config), batch, 30, log=lambda m, s: lines.append(m["kl"]))
    assert 0.03 < sum(lines[-12:]) / 12 < 0.2


def test_disturbed_songs_differ_in_features_alone_and_as_much_as_was_asked_for(batch):
    batch = replace(batch, features=5 * batch.features + 2 * batch.beat_mask[..., None])
    reference = Policy(SMALL)
    reference.fit_statistics(batch)

    def disturb(seed=0, **how):
        return augmented(batch, reference, generator=torch.Generator().manual_seed(seed), **how)

    assert disturb(noise=0.0, dropout=0.0) is batch
    noisy = disturb(noise=0.5, dropout=0.0)
    deviation = ((noisy.features - batch.features) / reference.feature_scale)[batch.beat_mask].std()
    assert float(deviation) == pytest.approx(0.5, rel=0.05)
    assert torch.equal(noisy.features, disturb(noise=0.5, dropout=0.0).features)
    assert not torch.equal(noisy.features, disturb(1, noise=0.5, dropout=0.0).features)
    hidden = disturb(noise=0.0, dropout=0.3)
    dropped = (hidden.features == reference.feature_mean).all(1)
    assert float(dropped.float().mean()) == pytest.approx(0.3, abs=0.08)
    assert torch.equal(hidden.features.transpose(1, 2)[~dropped], batch.features.transpose(1, 2)[~dropped])
    assert noisy.cluster is batch.cluster


def test_rewards_judge_the_songs_as_they_are(batch, reference):
    seen = []

    def reward(edits):
        seen.append(edits.songs)
        return loud_bars(edits)

    state = init_ppo(reference, batch, RewardPair(reward, nothing), config=QUICK)
    train_ppo(state, batch, RewardPair(reward, nothing), total_steps=LONG, max_iterations=2)
    assert len(seen) == 3
    assert all(songs is batch for songs in seen)


def test_the_mixed_reward_whitens_before_it_mixes(batch):
    edits = _some_edits(batch)
    scores = RewardPair(lambda e: e.target_ratio * 0 + 3.0, lambda e: e.target_ratio * 0 + 0.6).score(edits)
    assert scores.total.tolist() == pytest.approx([0.8 * 3 + 0.2 * 0.6] * 2)
    # (3 - 1) / 4 = 0.5 and (0.6 - 0.5) / 0.05 = 2.
    assert scores.mixed(Whitening(1.0, 4.0, 0.5, 0.05)).tolist() == pytest.approx([0.8 * 0.5 + 0.2 * 2] * 2)


@pytest.mark.parametrize("bad", [lambda e: e.target_ratio[:1], lambda e: e.target_ratio * float("nan")])
def test_a_reward_that_is_no_number_per_edit_is_refused(batch, bad):
    with pytest.raises(ParameterError, match="the learned reward must give one finite number"):
        RewardPair(bad, nothing).score(_some_edits(batch))


def test_the_conservative_reward_subtracts_disagreement():
    class Ensemble:
        def __call__(self, edits):
            return torch.zeros(1)

        def score_members(self, edits):
            return torch.tensor([[1.0], [3.0]])

    ensemble = Ensemble()
    assert conservative_reward(ensemble, 0.0) is ensemble
    assert conservative_reward(ensemble, 0.5)(None).tolist() == [1.5]
    with pytest.raises(ParameterError, match="score_members"):
        conservative_reward(nothing, 0.5)


def test_the_obviously_best_edits_are_learned(batch, reference):
    lines = []
    # The best edits are far from the reference, so the KL is given room.
    config = replace(QUICK, n_steps=4 * 8 * 48, learning_rate=2e-3, kl_target=2.0)
    state = init_ppo(reference, batch, REWARDS, config=config, seed=1)
    state = trained(state, batch, 30, log=lambda metrics, step: lines.append(metrics))

    def score(policy):
        generator = torch.Generator().manual_seed(5)
        return rollout_metrics(policy, batch, REWARDS, n_edits=64, target_range=(0.4, 0.6), generator=generator)[
            "learned_reward"
        ]

    # Keeping any half of the bars scores about 0 on average; the loudest half scores what this says.
    loudness = torch.zeros((4, 13)).scatter_add(1, batch.unit_id, batch.features[..., FEATURE_INDEX["rms"]])[:, :12] / 4
    best = float(loudness.topk(6).values.mean())
    before, after = score(reference), score(state.policy)
    assert after > before + 0.6 * (best - before)
    assert sum(m["kl"] for m in lines[-5:]) > sum(m["kl"] for m in lines[:5])


def test_every_line_of_the_log_has_the_promised_names(batch, reference):
    lines = []
    trained(init_ppo(reference, batch, REWARDS, config=QUICK), batch, 2, log=lambda m, s: lines.append((s, m)))
    names = {"episode", "step", "total_reward", "learned_reward", "dense_reward", "policy_loss", "value_loss", "kl"}
    names |= {"entropy", "ppo/kl_ref_unit", "ppo/clip_frac", "ppo/grad_norm", "ppo/beta", "edit/mask_forced_frac"}
    names |= {"perf/env_steps_s", "edit/keep_ratio"}
    assert names <= set(lines[0][1])
    assert set(lines[0][1]) == set(lines[1][1])
    assert all(math.isfinite(value) for _, metrics in lines for value in metrics.values())
    # Two songs of 48 beats, eight samples of each.
    assert [step for step, _ in lines] == [2 * 8 * 48, 4 * 8 * 48]
    assert [metrics["episode"] for _, metrics in lines] == [16, 32]
    first = lines[0][1]
    assert first["total_reward"] == pytest.approx(0.8 * first["learned_reward"] + 0.2 * first["dense_reward"])


@pytest.mark.parametrize("advantage", ["group", "gae"])
def test_three_iterations_saved_and_three_more_are_six(batch, reference, tmp_path, advantage):
    config = replace(QUICK, advantage=advantage)
    judge = {"evaluate": lambda policy: HeldOut(policy.to_logits.bias[0].item())}
    straight = trained(init_ppo(reference, batch, REWARDS, config=config, seed=3), batch, 6, **judge)
    half = trained(init_ppo(reference, batch, REWARDS, config=config, seed=3), batch, 3, **judge)
    save_tensors(tmp_path / "state.pt", half.state_dict())
    resumed = PPOState.from_state_dict(load_tensors(tmp_path / "state.pt"))
    resumed = trained(resumed, batch, 6, **judge)
    for name, value in straight.policy.state_dict().items():
        assert torch.equal(value, resumed.policy.state_dict()[name]), name
    assert (straight.step, straight.episode, straight.kl_weight) == (resumed.step, resumed.episode, resumed.kl_weight)
    assert straight.selection.best_score == resumed.selection.best_score
    assert torch.equal(straight.generator.get_state(), resumed.generator.get_state())


def test_without_the_generator_the_resumed_run_is_another(batch, reference):
    straight = trained(init_ppo(reference, batch, REWARDS, config=QUICK, seed=3), batch, 6)
    half = trained(init_ppo(reference, batch, REWARDS, config=QUICK, seed=3), batch, 3)
    payload = half.state_dict()
    payload["generator"] = torch.Generator().manual_seed(3).get_state()
    resumed = trained(PPOState.from_state_dict(payload), batch, 6)
    assert policy_digest(straight.policy) != policy_digest(resumed.policy)


def test_the_reference_stays_as_it_was(batch, reference):
    before = policy_digest(reference)
    state = trained(init_ppo(reference, batch, REWARDS, config=QUICK), batch, 2)
    assert policy_digest(reference) == policy_digest(state.reference) == before
    assert policy_digest(state.policy) != before


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


def test_accumulated_parts_give_the_same_step(batch, reference):
    states = [
        trained(init_ppo(reference, batch, REWARDS, config=replace(QUICK, accumulation_steps=parts)), batch, 1)
        for parts in (1, 3)
    ]
    for a, b in zip(states[0].policy.parameters(), states[1].policy.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-3)


def test_the_best_policy_is_kept(batch, reference):
    scores = iter([1.0, 5.0, 2.0, 3.0])
    digests = []

    def judge(policy):
        digests.append(policy_digest(policy))
        return HeldOut(next(scores))

    state = trained(init_ppo(reference, batch, REWARDS, config=QUICK), batch, 6, evaluate=judge)
    assert state.selection.best_score == 5.0
    assert policy_digest(state.selection.best_policy(state.policy)) == digests[1] != digests[3]


def test_training_stops_when_the_score_rises_and_the_guard_falls(batch, reference):
    judgements = iter([HeldOut(0.0, 90.0)] + [HeldOut(1.0 + i, 80.0) for i in range(9)])
    config = replace(QUICK, evaluate_every=1, guard_patience=2, guard_drop=5.0)
    state = init_ppo(reference, batch, REWARDS, config=config)
    state = trained(state, batch, 9, evaluate=lambda policy: next(judgements))
    assert state.iteration == 2
    assert "guard fell from 90 to 80" in state.stopped
    assert PPOState.from_state_dict(state.state_dict()).stopped == state.stopped


@pytest.mark.parametrize(
    ("judgement", "strikes"), [(HeldOut(1.0, 8.0), 1), (HeldOut(1.0, 9.5), 0), (HeldOut(-1.0, 8.0), 0)]
)
def test_only_better_scores_with_clearly_worse_guards_count(reference, judgement, strikes):
    selection = Selection()
    selection.observe(reference, HeldOut(0.0, 10.0), guard_drop=1.0)
    selection.observe(reference, judgement, guard_drop=1.0)
    assert selection.strikes == strikes


def test_steps_are_beats_and_training_ends_with_the_last(batch, reference):
    ends = []
    state = init_ppo(reference, batch, REWARDS, config=QUICK)
    state = train_ppo(state, batch, REWARDS, total_steps=1000, after_iteration=lambda s: ends.append(s.step))
    assert ends == [768, 1536]
    assert float(state.optimizer.param_groups[0]["lr"]) < QUICK.learning_rate


def test_all_faults_of_a_config_are_reported_together():
    with pytest.raises(ParameterError, match=r"epochs must be at least 1.*clip_coef must be positive.*group or gae"):
        PPOConfig(epochs=0, clip_coef=-1.0, advantage="other")


def _some_edits(batch):
    from editorbot_core.editing.batches import EditBatch

    return EditBatch(batch, torch.tensor([0, 1]), torch.zeros((2, batch.n_units), dtype=torch.int64), torch.ones(2))


def _train_rank(rank, folder, songs, weights, results):
    """One of two processes, with its own song, for one gradient step."""
    torch.set_num_threads(1)
    if folder is not None:
        torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    policy = Policy(SMALL)
    policy.load_state_dict(weights)
    config = replace(QUICK, n_steps=48 * 8 * songs.n_songs, epochs=1, n_minibatches=1)
    state = init_ppo(policy, songs, REWARDS, config=config, seed=rank)
    state = train_ppo(state, songs, REWARDS, total_steps=LONG, max_iterations=1)
    results[rank] = (state.step, {k: v.clone() for k, v in state.policy.state_dict().items()})


@pytest.mark.slow
def test_two_processes_take_one_common_step(batch, reference, tmp_path):
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        results = manager.dict()
        weights = reference.state_dict()
        workers = [
            context.Process(target=_train_rank, args=(rank, tmp_path, batch.select([rank]), weights, results))
            for rank in range(2)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(120)
        assert [worker.exitcode for worker in workers] == [0, 0]
        (step_a, a), (step_b, b) = results[0], results[1]
    assert step_a == step_b == 2 * 8 * 48
    for name, value in a.items():
        assert torch.equal(value, b[name]), name
