import numpy as np
import pytest
import torch

from editorbot_core.base.errors import ParameterError
from editorbot_core.editing.batches import EditBatch, collate
from editorbot_core.editing.edits import CUT, played_units
from editorbot_core.editing.joins import SearchWeights
from editorbot_core.editing.search import edit_cost, search_edits
from editorbot_core.policy.config import PolicyConfig
from editorbot_core.policy.editors import SEARCH_WEIGHT, candidate_edits, policy_editor, sampling_editor
from editorbot_core.policy.network import Policy


@pytest.fixture(scope="module")
def policy():
    torch.manual_seed(0)
    return Policy(PolicyConfig(width=16, hidden=32, pair_width=8, n_layers=1, n_heads=2)).eval()


@pytest.fixture(scope="module")
def song(synthetic_song):
    return synthetic_song(0, n_bars=16)


def late_units(edits):
    """Prefers edits that keep the end."""
    place = torch.arange(edits.actions.shape[1], dtype=torch.float32)
    return ((edits.actions != CUT) * place).sum(1)


def tolerance_s(song, target_s):
    return 0.015 * target_s + 0.5 * float(np.median(song.unit_durations)) + 1e-3


@pytest.mark.parametrize("share", [0.4, 0.7, 1.0, 1.2])
def test_the_edit_has_the_length_that_was_asked_for(policy, song, share):
    target_s = share * song.duration
    edl = policy_editor(policy, model={"name": "p", "version": "7"})(song, target_s)
    assert edl.track_id == song.track_id
    assert edl.target_duration_s == target_s
    assert dict(edl.model) == {"name": "p", "version": "7"}
    assert abs(edl.duration_s - target_s) <= tolerance_s(song, target_s)


def test_a_sample_depends_on_its_seed_and_keeps_the_length(policy, song):
    target_s = 0.5 * song.duration
    edls = [sampling_editor(policy, seed=seed)(song, target_s) for seed in (0, *range(8))]
    assert np.array_equal(edls[0].actions, edls[1].actions)
    assert len({edl.actions.tobytes() for edl in edls}) > 1
    assert all(abs(edl.duration_s - target_s) <= tolerance_s(song, target_s) for edl in edls)


def test_candidates_sound_different_and_come_best_first(policy, song):
    edls = candidate_edits(policy, song, 0.5 * song.duration, n=8, reward=late_units, temperature=2.0)
    orders = {tuple(played_units(edl.unit_actions)) for edl in edls}
    assert 4 < len(edls) <= 8
    assert len(orders) == len(edls)
    rewards = [edl.scores["reward"] for edl in edls]
    assert rewards == sorted(rewards, reverse=True)
    place = np.arange(song.units.n_units)
    assert rewards[0] == (place * (edls[0].unit_actions != CUT)).sum()


def test_without_a_reward_the_likeliest_comes_first(policy, song):
    edls = candidate_edits(policy, song, 0.5 * song.duration, n=6)
    likely = [edl.scores["log_prob"] for edl in edls]
    assert likely == sorted(likely, reverse=True)
    assert all("reward" not in edl.scores for edl in edls)


def test_the_best_of_several_beats_the_greedy_edit_where_that_is_not_the_best(policy, song):
    gains = []
    for reward in (late_units, lambda edits: -late_units(edits)):
        greedy = candidate_edits(policy, song, 0.5 * song.duration, n=1, reward=reward)[0]
        best = policy_editor(policy, n_candidates=16, reward=reward)(song, 0.5 * song.duration)
        gains.append(best.scores["reward"] - greedy.scores["reward"])
    assert min(gains) >= 0
    assert max(gains) > 0


def test_an_edit_does_not_depend_on_what_was_edited_before(policy, song, synthetic_song):
    editor = policy_editor(policy, n_candidates=4, reward=late_units, seed=1)
    first = editor(song, 20.0)
    editor(synthetic_song(5), 10.0)
    assert editor(song, 20.0) == first
    others = [policy_editor(policy, n_candidates=4, reward=late_units, seed=s)(song, 20.0) for s in range(2, 8)]
    assert any(other != first for other in others)


def test_the_default_editor_is_greedy_and_needs_no_seed(policy, song):
    a, b = (policy_editor(policy, seed=seed)(song, 15.0) for seed in (0, 1))
    assert a == b


def test_choosing_needs_something_to_choose_by(policy):
    with pytest.raises(ParameterError, match="need a reward to choose by"):
        policy_editor(policy, n_candidates=4)


@pytest.mark.parametrize(("n", "target_s"), [(0, 10.0), (1, 0.0), (1, float("nan"))])
def test_impossible_requests_are_refused(policy, song, n, target_s):
    with pytest.raises(ParameterError, match="must be at least 1 and target_s positive"):
        candidate_edits(policy, song, target_s, n=n)


def worth(edl):
    return edl.scores["reward"] - SEARCH_WEIGHT * edl.scores["search_cost"]


def test_a_guided_edit_is_worth_at_least_as_much_as_any_the_policy_or_the_search_proposes(policy, song):
    target_s, weights = 0.5 * song.duration, SearchWeights.full()
    for reward in (late_units, lambda edits: -late_units(edits)):
        guided = candidate_edits(policy, song, target_s, n=1, reward=reward, guided=True, seed=2)[0]
        assert abs(guided.duration_s - target_s) <= tolerance_s(song, target_s)
        for edl in candidate_edits(policy, song, target_s, n=16, reward=reward, seed=2):
            cost = edit_cost(song, edl.unit_actions, target_s, weights=weights)
            assert worth(guided) >= edl.scores["reward"] - SEARCH_WEIGHT * cost - 1e-3
        searched = search_edits(song, target_s, weights=weights)[0]
        batch = EditBatch(
            collate([song]), torch.tensor([0]), torch.as_tensor(searched.actions)[None], torch.tensor([0.5])
        )
        assert worth(guided) >= float(reward(batch)[0]) - SEARCH_WEIGHT * searched.cost - 1e-3


def test_the_cost_of_the_search_is_the_one_of_the_edit(policy, song):
    for edl in candidate_edits(policy, song, 0.6 * song.duration, n=5, reward=late_units, guided=True):
        cost = edit_cost(song, edl.unit_actions, 0.6 * song.duration, weights=SearchWeights.full())
        assert edl.scores["search_cost"] == pytest.approx(cost, rel=1e-4, abs=1e-4)


def test_guided_candidates_differ_clearly_and_come_best_first(policy, synthetic_song):
    song = synthetic_song(3, n_bars=40)
    edls = candidate_edits(policy, song, 0.6 * song.duration, n=6, reward=late_units, guided=True)
    assert len(edls) == 6
    values = [worth(edl) for edl in edls]
    assert values == sorted(values, reverse=True)
    actions = [edl.unit_actions for edl in edls]
    apart = [np.mean(a != b) for i, a in enumerate(actions) for b in actions[:i]]
    assert min(apart) >= 0.04
    assert all(np.isfinite(edl.scores["log_prob"]) for edl in edls)


def test_a_reward_with_a_temperature_guides_by_its_log_odds(policy, song):
    class Warm:
        temperature = torch.tensor(2.0**-10)

        def __call__(self, edits):
            return 2.0**-10 * late_units(edits)

    target_s = 0.6 * song.duration
    plain, warm = (candidate_edits(policy, song, target_s, n=3, reward=r, guided=True) for r in (late_units, Warm()))
    assert [edl.actions.tobytes() for edl in plain] == [edl.actions.tobytes() for edl in warm]
    cold = candidate_edits(policy, song, target_s, n=3, reward=lambda edits: 2.0**-10 * late_units(edits), guided=True)
    assert [edl.actions.tobytes() for edl in plain] != [edl.actions.tobytes() for edl in cold]


def test_songs_that_must_grow_are_guided_too(policy, song):
    edl = policy_editor(policy, reward=late_units, guided=True)(song, 1.2 * song.duration)
    assert abs(edl.duration_s - 1.2 * song.duration) <= tolerance_s(song, 1.2 * song.duration)


def test_nothing_guides_without_a_reward(policy, song):
    with pytest.raises(ParameterError, match="needs a reward"):
        candidate_edits(policy, song, 10.0, n=1, guided=True)
