"""Rounds of collecting, comparing and learning."""

import numpy as np
import pytest
import torch

from editorbot_core.base.errors import ParameterError
from editorbot_core.preferences.listener import BootstrapListener
from editorbot_core.training.rounds import (
    COLLECTED_RATIOS,
    SAMPLES_PER_RATIO,
    guided_edits,
    learn_in_rounds,
    reward_on_songs,
    sampled_edits,
)


@pytest.fixture(scope="module")
def learned(songs, config):
    lines = []
    result = learn_in_rounds(
        songs[:4], config=config, n_rounds=2, log=lambda metrics, step: lines.append((step, metrics))
    )
    return result, lines


def test_each_round_asks_new_questions_and_learns_from_all_answers(learned, config):
    result, lines = learned
    assert [step for step, _ in lines] == [0, 1] and result.rounds == tuple(metrics for _, metrics in lines)
    asked = [metrics["round/n_new_answers"] for metrics in result.rounds]
    assert asked[0] == config.n_pairs * 4 and asked[1] == config.n_pairs * 4 // 2
    assert len(result.answers) == sum(asked)
    assert {answer.round for answer in result.answers} == {0, 1}
    assert all(answer.source == "bootstrap" for answer in result.answers)
    trained_on = [m["rm/n_train_pairs"] + m["rm/n_heldout_pairs"] for m in result.rounds]
    assert trained_on == [asked[0], sum(asked)]


def test_later_rounds_judge_the_reward_on_edits_that_were_made_to_please_it(learned):
    first, second = learned[0].rounds
    assert "rm/acc_onpolicy" not in first and 0 <= second["rm/acc_onpolicy"] <= 1


def test_the_same_seed_learns_the_same(songs, config, learned):
    again = learn_in_rounds(songs[:4], config=config, n_rounds=2)
    for a, b in zip(again.policy.parameters(), learned[0].policy.parameters(), strict=True):
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
    result, _ = learned
    expected = sorted(r for r in COLLECTED_RATIOS for _ in range(SAMPLES_PER_RATIO))
    for edits in (
        sampled_edits(result.policy, songs[:2], seed=0),
        guided_edits(result.policy, result.ensemble, songs[:2], seed=0),
    ):
        assert set(edits) == {song.track_id for song in songs[:2]}
        for song in songs[:2]:
            ratios = [edl.target_duration_s / song.duration for edl in edits[song.track_id]]
            assert set(np.round(sorted(ratios), 6)) == set(expected)


def test_a_reward_is_judged_beside_the_ceiling(songs, learned):
    result, _ = learned
    own = sampled_edits(result.policy, songs[4:], seed=0)
    for edits in (None, own):
        found = reward_on_songs(result.ensemble, songs[4:], n_pairs=80, seed=0, policy_edits=edits)
        assert 0 <= found["acc"] <= 1 and 0.5 <= found["ceiling"] <= 1
