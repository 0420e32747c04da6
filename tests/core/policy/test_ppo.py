"""Training by PPO: the obviously best edits are learned, and a run resumes bit for bit."""

import math
from dataclasses import replace

import pytest
import torch
from torch import multiprocessing

from editorbot_core.analysis.features.columns import FEATURE_INDEX
from editorbot_core.base.tensors import load_tensors, module_digest, save_tensors
from editorbot_core.policy.network import Policy
from editorbot_core.policy.ppo import init_ppo, train_ppo
from editorbot_core.policy.ppo_state import PPOState
from editorbot_core.policy.selection import HeldOut, rollout_metrics
from editorbot_core.rewards.mixing import RewardPair
from tests.core.policy.conftest import QUICK, REWARDS, SMALL, loud_bars, nothing

LONG = 10**9


def trained(state, batch, iterations, **options):
    return train_ppo(state, batch, REWARDS, total_steps=LONG, max_iterations=iterations, **options)


def test_the_kl_is_steered_to_its_target(batch, reference):
    config = replace(QUICK, n_steps=4 * 8 * 48, learning_rate=2e-3, kl_target=0.1, kl_coef=0.5)
    lines = []
    trained(init_ppo(reference, batch, REWARDS, config=config), batch, 30, log=lambda m, s: lines.append(m["kl"]))
    assert 0.03 < sum(lines[-12:]) / 12 < 0.2


def test_rewards_judge_the_songs_as_they_are(batch, reference):
    seen = []

    def reward(edits):
        seen.append(edits.songs)
        return loud_bars(edits)

    state = init_ppo(reference, batch, RewardPair(reward, nothing), config=QUICK)
    train_ppo(state, batch, RewardPair(reward, nothing), total_steps=LONG, max_iterations=2)
    assert len(seen) == 3
    assert all(songs is batch for songs in seen)


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
    assert module_digest(straight.policy) != module_digest(resumed.policy)


def test_the_reference_stays_as_it_was(batch, reference):
    before = module_digest(reference)
    state = trained(init_ppo(reference, batch, REWARDS, config=QUICK), batch, 2)
    assert module_digest(reference) == module_digest(state.reference) == before
    assert module_digest(state.policy) != before


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
        digests.append(module_digest(policy))
        return HeldOut(next(scores))

    state = trained(init_ppo(reference, batch, REWARDS, config=QUICK), batch, 6, evaluate=judge)
    assert state.selection.best_score == 5.0
    assert module_digest(state.selection.best_policy(state.policy)) == digests[1] != digests[3]


def test_training_stops_when_the_score_rises_and_the_guard_falls(batch, reference):
    judgements = iter([HeldOut(0.0, 90.0)] + [HeldOut(1.0 + i, 80.0) for i in range(9)])
    config = replace(QUICK, evaluate_every=1, guard_patience=2, guard_drop=5.0)
    state = init_ppo(reference, batch, REWARDS, config=config)
    state = trained(state, batch, 9, evaluate=lambda policy: next(judgements))
    assert state.iteration == 2
    assert "guard fell from 90 to 80" in state.stopped
    assert PPOState.from_state_dict(state.state_dict()).stopped == state.stopped


def test_steps_are_beats_and_training_ends_with_the_last(batch, reference):
    ends = []
    state = init_ppo(reference, batch, REWARDS, config=QUICK)
    state = train_ppo(state, batch, REWARDS, total_steps=1000, after_iteration=lambda s: ends.append(s.step))
    assert ends == [768, 1536]
    assert float(state.optimizer.param_groups[0]["lr"]) < QUICK.learning_rate


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
