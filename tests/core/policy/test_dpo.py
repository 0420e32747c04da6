import math
from dataclasses import replace

import pytest
import torch

from editorbot_core.analysis.features.columns import FEATURE_INDEX
from editorbot_core.base.errors import FormatError, ParameterError
from editorbot_core.base.tensors import load_tensors, save_tensors
from editorbot_core.editing.batches import collate
from editorbot_core.editing.edits import CUT
from editorbot_core.policy.config import DPOConfig, PolicyConfig
from editorbot_core.policy.dpo import edit_log_probs, init_dpo, judge_pairs, train_dpo
from editorbot_core.policy.dpo_state import DPOState
from editorbot_core.policy.losses import dpo_loss, ipo_loss, soft_preference
from editorbot_core.policy.network import Policy, policy_digest
from editorbot_core.policy.rollout import sample_edits
from editorbot_core.policy.selection import HeldOut
from editorbot_core.preferences.pairs import PairBatch
from editorbot_core.rewards.mixing import RewardPair

# A reference that hardly looks ahead tries many edits, of which some are preferred.
SMALL = PolicyConfig(width=16, hidden=32, pair_width=8, n_layers=1, n_heads=2, outlook_trust=0.05)
QUICK = DPOConfig(batch_pairs=16, log_every=2, rollout_edits=16)


def loud_bars(edits):
    songs = edits.songs
    sums = torch.zeros((songs.n_songs, songs.n_units + 1))
    sums = sums.scatter_add(1, songs.unit_id, songs.features[..., FEATURE_INDEX["rms"]])[:, :-1]
    kept = ((edits.actions != CUT) & edits.unit_mask).float()
    return (sums[edits.song_index] / 4 * kept).sum(1) / kept.sum(1)


REWARDS = RewardPair(loud_bars, lambda edits: torch.full_like(edits.target_ratio, 0.5))


@pytest.fixture(scope="module")
def batch(synthetic_song):
    return collate([synthetic_song(seed, n_bars=12) for seed in range(4)])


@pytest.fixture(scope="module")
def reference(batch):
    torch.manual_seed(0)
    policy = Policy(SMALL)
    policy.fit_statistics(batch)
    return policy.eval()


def made_pairs(reference, batch, *, n, seed):
    """Pairs sampled from the reference, of which the louder side is preferred."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.arange(n) % batch.n_songs
    ratio = torch.full((n,), 0.5)
    sides = [
        sample_edits(reference, batch, song_index=index, target_ratio=ratio, generator=generator).edits
        for _ in range(2)
    ]
    a, b = (loud_bars(side) for side in sides)
    return PairBatch(
        songs=batch,
        song_index=index,
        actions_a=sides[0].actions,
        actions_b=sides[1].actions,
        target_ratio=ratio,
        label=(a > b).float(),
        confidence=torch.ones(n),
        strength=torch.full((n,), 2),
        source_index=torch.arange(n),
        n_refused=0,
    )


@pytest.fixture(scope="module")
def pairs(reference, batch):
    return made_pairs(reference, batch, n=64, seed=0)


def swapped(pairs):
    return replace(pairs, actions_a=pairs.actions_b, actions_b=pairs.actions_a, label=1 - pairs.label)


def trained(state, pairs, batch, **options):
    return train_dpo(state, pairs, songs=batch, rewards=REWARDS, **options)


def test_dpo_loss_by_hand():
    # -log sigmoid(0.5 * 2) where a is preferred, -log sigmoid(-1) where b is; a tie is their mean.
    preferred, rejected = -math.log(1 / (1 + math.exp(-1))), -math.log(1 / (1 + math.exp(1)))
    loss = dpo_loss(torch.tensor([2.0, 2.0, 2.0]), torch.tensor([1.0, 0.0, 0.5]), beta=0.5)
    torch.testing.assert_close(loss, torch.tensor([preferred, rejected, (preferred + rejected) / 2]))
    # At the reference nothing is known: log 2.
    assert float(dpo_loss(torch.tensor(0.0), torch.tensor(1.0), beta=0.1)) == pytest.approx(math.log(2))


def test_a_doubtful_label_is_best_met_by_a_finite_margin():
    # The soft loss is least where sigmoid(beta m) = p: beta m = log(0.9 / 0.1).
    margins = torch.linspace(-60, 60, 12001)
    best = margins[dpo_loss(margins, torch.full_like(margins, 0.9), beta=0.1).argmin()]
    assert float(best) == pytest.approx(math.log(9) / 0.1, abs=0.02)


def test_ipo_loss_by_hand():
    # Aimed-at margin 1 / (2 * 0.25) = 2.
    loss = ipo_loss(torch.tensor([2.0, 5.0, -2.0, 1.0]), torch.tensor([1.0, 1.0, 0.0, 0.5]), beta=0.25)
    torch.testing.assert_close(loss, torch.tensor([0.0, 9.0, 0.0, 1.0]))


def test_soft_preferences_by_hand():
    label = torch.tensor([1.0, 0.0, 0.5, 1.0])
    confidence = torch.tensor([1.0, 1.0, 1.0, 0.5])
    result = soft_preference(label, confidence, label_smoothing=0.05)
    torch.testing.assert_close(result, torch.tensor([0.95, 0.05, 0.5, 0.725]))


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
    assert policy_digest(straight.policy) == policy_digest(resumed.policy)
    assert (straight.epoch, straight.step, straight.episode) == (resumed.epoch, resumed.step, resumed.episode)


def test_without_the_generator_the_resumed_run_is_another(reference, batch, pairs):
    config = replace(QUICK, epochs=3)
    straight = trained(init_dpo(reference, pairs, config=config), pairs, batch, max_iterations=12)
    payload = trained(init_dpo(reference, pairs, config=config), pairs, batch, max_iterations=6).state_dict()
    payload["generator"] = torch.Generator().manual_seed(0).get_state()
    resumed = trained(DPOState.from_state_dict(payload), pairs, batch, max_iterations=12)
    assert policy_digest(straight.policy) != policy_digest(resumed.policy)


@pytest.mark.parametrize("piece", ["reference_log_probs", "order", "generator"])
def test_incomplete_state_is_refused(reference, pairs, piece):
    payload = init_dpo(reference, pairs, config=QUICK).state_dict()
    del payload[piece]
    with pytest.raises(FormatError, match=f"missing \\['{piece}'\\]"):
        DPOState.from_state_dict(payload)


def test_the_state_knows_its_reference(reference, pairs):
    state = init_dpo(reference, pairs, config=QUICK)
    assert state.reference_digest == policy_digest(reference)
    assert DPOState.from_state_dict(state.state_dict()).reference_digest == state.reference_digest


def test_other_pairs_than_those_of_the_state_are_refused(reference, batch, pairs):
    state = init_dpo(reference, pairs, config=QUICK)
    with pytest.raises(FormatError, match="belongs to other pairs"):
        trained(state, swapped(pairs), batch)


def test_training_ends_when_judgements_stop_improving_and_the_best_is_kept(reference, batch, pairs):
    scores = iter([1.0, 3.0, 2.0, 2.5, 9.0])
    digests = []

    def judge(policy):
        digests.append(policy_digest(policy))
        return HeldOut(next(scores))

    config = replace(QUICK, epochs=9, log_every=1, patience=2)
    state = trained(init_dpo(reference, pairs, config=config), pairs, batch, evaluate=judge)
    assert state.iteration == 4
    assert "no better score than 3" in state.stopped
    assert policy_digest(state.selection.best_policy(state.policy)) == digests[1]


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


def test_all_faults_of_a_config_are_reported_together():
    with pytest.raises(ParameterError, match=r"epochs must be at least 1.*beta must be positive.*sigmoid or ipo"):
        DPOConfig(epochs=0, beta=0.0, loss="other")
