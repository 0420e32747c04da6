"""Training by DPO: what is preferred is learned, ties teach a tie, and a run resumes bit for bit."""

import math
from dataclasses import replace

import pytest
import torch

from editorbot_core.base.errors import FormatError, ParameterError
from editorbot_core.base.tensors import load_tensors, module_digest, save_tensors
from editorbot_core.policy.config import DPOConfig, PolicyConfig
from editorbot_core.policy.dpo import edit_log_probs, init_dpo, judge_pairs, train_dpo
from editorbot_core.policy.dpo_state import DPOState
from editorbot_core.policy.network import Policy
from editorbot_core.policy.selection import HeldOut
from tests.core.policy.conftest import REWARDS, made_pairs

# A reference that hardly looks ahead tries many edits, of which some are preferred.
SMALL = PolicyConfig(width=16, hidden=32, pair_width=8, n_layers=1, n_heads=2, outlook_trust=0.05)
QUICK = DPOConfig(batch_pairs=16, log_every=2, rollout_edits=16)


@pytest.fixture(scope="module")
def reference(batch):
    torch.manual_seed(0)
    policy = Policy(SMALL)
    policy.fit_statistics(batch)
    return policy.eval()


def swapped(pairs):
    return replace(pairs, actions_a=pairs.actions_b, actions_b=pairs.actions_a, label=1 - pairs.label)


def trained(state, pairs, batch, **options):
    return train_dpo(state, pairs, songs=batch, rewards=REWARDS, **options)


@pytest.mark.parametrize("loss", ["sigmoid", "ipo"])
def test_what_is_preferred_is_learned_and_held_out_pairs_confirm_it(reference, batch, loss):
    config = DPOConfig(loss=loss, epochs=5, batch_pairs=32, learning_rate=2e-3, log_every=10, patience=99)
    many = made_pairs(reference, batch, n=256, seed=0)
    lines = []
    state = trained(
        init_dpo(reference, many, config=config), many, batch, log=lambda metrics, step: lines.append(metrics)
    )
    assert lines[-1]["dpo/acc"] > 0.65
    assert lines[-1]["dpo/margin"] > lines[0]["dpo/margin"]
    held_out = made_pairs(reference, batch, n=128, seed=1)
    # By chance 0.5 with a deviation of 0.044.
    assert judge_pairs(state.policy, reference, held_out, config=config)["dpo/heldout_acc"] > 0.62
    rows = torch.arange(128)
    before, after = (edit_log_probs(p, held_out, rows, batch_pairs=64) for p in (reference, state.policy))
    gain = after - before
    prefers_a = gain[:, 0] > gain[:, 1]
    assert float((prefers_a == (held_out.label == 1)).float().mean()) > 0.62


def test_swapping_sides_and_labels_changes_nothing(reference, batch, pairs):
    results = []
    for version in (pairs, swapped(pairs)):
        state = init_dpo(reference, version, config=replace(QUICK, epochs=1))
        lines = []
        trained(state, version, batch, log=lambda metrics, step, lines=lines: lines.append(metrics))
        results.append(lines)
    for a, b in zip(*results, strict=True):
        for name in ("dpo/loss", "dpo/acc", "dpo/margin", "dpo/logp_chosen_delta", "dpo/logp_rejected_delta"):
            assert a[name] == pytest.approx(b[name], abs=2e-4), name


def test_pairs_the_mask_forbids_are_left_out_and_counted(reference, batch, pairs):
    actions = pairs.actions_a.clone()
    actions[:5] = 0  # keeps everything, though half was asked for
    broken = replace(pairs, actions_a=actions, n_refused=2)
    state = init_dpo(reference, broken, config=QUICK)
    assert state.n_refused == 7
    assert state.usable.tolist() == list(range(5, 64))
    lines = []
    trained(state, broken, batch, log=lambda metrics, step: lines.append(metrics))
    assert lines[-1]["dpo/pairs_refused"] == 7
    with pytest.raises(ParameterError, match="all 64 pairs are refused"):
        init_dpo(reference, replace(pairs, actions_a=torch.zeros_like(actions)), config=QUICK)


def test_ties_teach_that_neither_side_is_better(reference, batch, pairs):
    shifts = []
    for version in (pairs, replace(pairs, label=torch.full((64,), 0.5))):
        config = replace(QUICK, epochs=4, nll_coef=0.0, learning_rate=2e-3)
        state = trained(init_dpo(reference, version, config=config), version, batch)
        now = edit_log_probs(state.policy, version, state.usable, batch_pairs=64)
        delta = now - state.reference_log_probs
        shifts.append(float((delta[:, 0] - delta[:, 1]).abs().mean()))
    assert shifts[1] < 0.2 * shifts[0]


def test_lines_have_the_names_that_ppo_uses(reference, batch, pairs):
    lines = []
    trained(init_dpo(reference, pairs, config=QUICK), pairs, batch, log=lambda m, s: lines.append((s, m)))
    names = {"episode", "step", "total_reward", "learned_reward", "dense_reward", "policy_loss", "value_loss"}
    names |= {"entropy", "edit/keep_ratio", "edit/mask_forced_frac", "dpo/loss", "dpo/acc", "dpo/margin"}
    names |= {"dpo/logp_chosen_delta", "dpo/logp_rejected_delta", "dpo/pairs_refused", "perf/learner_steps_s"}
    assert len(lines) == 2
    for step, metrics in lines:
        assert names <= set(metrics)
        assert metrics["step"] == step
        assert all(math.isfinite(value) for value in metrics.values())
    # 32 pairs of two edits of 48 beats.
    assert [step for step, _ in lines] == [32 * 2 * 48, 64 * 2 * 48]


def test_a_run_that_was_saved_goes_on_bit_for_bit(reference, batch, pairs, tmp_path):
    config = replace(QUICK, epochs=3)
    straight = trained(init_dpo(reference, pairs, config=config), pairs, batch, max_iterations=12)
    half = trained(init_dpo(reference, pairs, config=config), pairs, batch, max_iterations=6)
    save_tensors(tmp_path / "state.pt", half.state_dict())
    resumed = DPOState.from_state_dict(load_tensors(tmp_path / "state.pt"))
    resumed = trained(resumed, pairs, batch, max_iterations=12)
    assert module_digest(straight.policy) == module_digest(resumed.policy)
    assert (straight.epoch, straight.step, straight.episode) == (resumed.epoch, resumed.step, resumed.episode)


def test_without_the_generator_the_resumed_run_is_another(reference, batch, pairs):
    config = replace(QUICK, epochs=3)
    straight = trained(init_dpo(reference, pairs, config=config), pairs, batch, max_iterations=12)
    payload = trained(init_dpo(reference, pairs, config=config), pairs, batch, max_iterations=6).state_dict()
    payload["generator"] = torch.Generator().manual_seed(0).get_state()
    resumed = trained(DPOState.from_state_dict(payload), pairs, batch, max_iterations=12)
    assert module_digest(straight.policy) != module_digest(resumed.policy)


def test_other_pairs_than_those_of_the_state_are_refused(reference, batch, pairs):
    state = init_dpo(reference, pairs, config=QUICK)
    with pytest.raises(FormatError, match="belongs to other pairs"):
        trained(state, swapped(pairs), batch)


def test_training_ends_when_judgements_stop_improving_and_the_best_is_kept(reference, batch, pairs):
    scores = iter([1.0, 3.0, 2.0, 2.5, 9.0])
    digests = []

    def judge(policy):
        digests.append(module_digest(policy))
        return HeldOut(next(scores))

    config = replace(QUICK, epochs=9, log_every=1, patience=2)
    state = trained(init_dpo(reference, pairs, config=config), pairs, batch, evaluate=judge)
    assert state.iteration == 4
    assert "no better score than 3" in state.stopped
    assert module_digest(state.selection.best_policy(state.policy)) == digests[1]


def test_held_out_pairs_decide_where_nothing_else_does(reference, batch, pairs):
    held_out = made_pairs(reference, batch, n=16, seed=2)
    state = trained(
        init_dpo(reference, pairs, config=QUICK),
        pairs,
        batch,
        heldout=lambda policy: judge_pairs(policy, reference, held_out, config=QUICK),
    )
    assert state.selection.best_score is not None
    assert -1.0 < state.selection.best_score < 0.0


def test_steps_end_training_before_the_epochs_do(reference, batch, pairs):
    state = trained(init_dpo(reference, pairs, config=replace(QUICK, epochs=5)), pairs, batch, total_steps=1)
    assert state.iteration == 1
    assert "1 steps are done" in state.stopped
