"""Rounds of collecting, comparing and learning."""

from typing import NamedTuple

import numpy as np
import pytest
import torch

from editorbot_core.base.errors import ParameterError
from editorbot_core.editing.batches import EditBatch, collate
from editorbot_core.preferences.listener import BootstrapListener
from editorbot_core.rewards.learned import RewardEnsemble
from editorbot_core.rewards.training import reward_metrics, train_reward_model
from editorbot_core.training import rounds
from editorbot_core.training.rounds import (
    COLLECTED_RATIOS,
    SAMPLES_PER_RATIO,
    Learned,
    guided_edits,
    learn_in_rounds,
    reward_on_songs,
    sampled_edits,
)
from tests.core.conftest import sides


class Observed(NamedTuple):
    """A run of learning in rounds, and what happened in it."""

    result: Learned
    lines: list
    ensembles: list
    judged: list


@pytest.fixture(scope="module")
def learned(songs, config):
    """What two rounds made of four songs, the lines of the log, and how earlier reward models were judged."""
    lines, trained, judged = [], [], []

    def train(*args, **options):
        trained.append(train_reward_model(*args, **options))
        return trained[-1]

    def judge(ensemble, pairs):
        judged.append((ensemble, pairs))
        return reward_metrics(ensemble, pairs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rounds, "train_reward_model", train)
        patch.setattr(rounds, "reward_metrics", judge)
        result = learn_in_rounds(
            songs[:4], config=config, n_rounds=2, log=lambda metrics, step: lines.append((step, metrics))
        )
    return Observed(result, lines, [training.ensemble for training in trained], judged)


def test_each_round_asks_new_questions_and_learns_from_all_answers(learned, config):
    result, lines = learned.result, learned.lines
    assert [step for step, _ in lines] == [0, 1] and result.rounds == tuple(metrics for _, metrics in lines)
    asked = [metrics["round/n_new_answers"] for metrics in result.rounds]
    assert asked[0] == config.n_pairs * 4 and asked[1] == config.n_pairs * 4 // 2
    assert len(result.answers) == sum(asked)
    assert {answer.round for answer in result.answers} == {0, 1}
    assert all(answer.source == "bootstrap" for answer in result.answers)
    trained_on = [m["rm/n_train_pairs"] + m["rm/n_heldout_pairs"] for m in result.rounds]
    assert trained_on == [asked[0], sum(asked)]


def test_later_rounds_judge_the_reward_on_edits_that_were_made_to_please_it(learned):
    first, second = learned.result.rounds
    assert "rm/acc_onpolicy" not in first
    # The answers of the second round, judged by the reward model of the first.
    ((ensemble, pairs),) = learned.judged
    assert ensemble is learned.ensembles[0]
    assert learned.result.ensemble is learned.ensembles[1]
    new = [answer for answer in learned.result.answers if answer.round == 1]
    assert pairs.n_refused == 0
    assert pairs.label.tolist() == [new[i].label for i in pairs.source_index]
    scores_a, scores_b = (ensemble.score_members(edits).mean(0) for edits in sides(pairs))
    gap = scores_a - scores_b
    clear = pairs.label != 0.5
    share = ((gap > 0) == (pairs.label == 1))[clear].float().mean()
    assert second["rm/acc_onpolicy"] == pytest.approx(float(share))


def test_the_same_seed_learns_the_same(songs, config, learned):
    again = learn_in_rounds(songs[:4], config=config, n_rounds=2)
    for a, b in zip(again.policy.parameters(), learned.result.policy.parameters(), strict=True):
        assert torch.equal(a, b)


def test_answers_may_come_from_anybody(songs, config):
    asked = []
    listener = BootstrapListener()

    def answer(pairs, number):
        asked.append((number, len(pairs)))
        return listener.answers(songs, pairs, seed=1, round=number)

    learn_in_rounds(songs[:4], config=config, n_rounds=1, answer=answer)
    assert asked == [(0, config.n_pairs * 4)]


def test_no_round_is_refused(songs, config):
    with pytest.raises(ParameterError, match="at least 1"):
        learn_in_rounds(songs, config=config, n_rounds=0)


def test_collected_edits_are_of_the_targets_asked_for(songs, learned):
    result = learned.result
    expected = sorted(r for r in COLLECTED_RATIOS for _ in range(SAMPLES_PER_RATIO))
    for edits in (
        sampled_edits(result.policy, songs[:2], seed=0),
        guided_edits(result.policy, result.ensemble, songs[:2], seed=0),
    ):
        assert set(edits) == {song.track_id for song in songs[:2]}
        for song in songs[:2]:
            ratios = [edl.target_duration_s / song.duration for edl in edits[song.track_id]]
            assert set(np.round(sorted(ratios), 6)) == set(expected)


class LikeTheReward(BootstrapListener):
    """A listener whose taste is that of a reward model, or the opposite, without any doubt."""

    def __init__(self, ensemble: RewardEnsemble, *, sign: float) -> None:
        super().__init__()
        self.ensemble, self.sign = ensemble, sign

    def utility(self, song, edl):
        ratio = torch.tensor([edl.target_duration_s / song.duration])
        edits = EditBatch(collate([song]), torch.tensor([0]), torch.tensor(edl.unit_actions)[None], ratio)
        return self.sign * 1e6 * float(self.ensemble.score_members(edits).mean(0))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_reward_is_right_about_a_listener_of_its_own_taste_and_wrong_about_the_opposite(songs, learned, sign):
    listener = LikeTheReward(learned.result.ensemble, sign=sign)
    own = sampled_edits(learned.result.policy, songs[4:], seed=0)
    for edits in (None, own):
        found = reward_on_songs(
            learned.result.ensemble, songs[4:], n_pairs=80, seed=0, policy_edits=edits, listener=listener
        )
        assert found["n_pairs"] > 0
        assert found["acc"] == pytest.approx(1.0 if sign > 0 else 0.0, abs=0.05)
        assert found["ceiling"] == pytest.approx(1.0, abs=0.05)
