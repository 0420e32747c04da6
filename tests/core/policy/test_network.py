"""The network: songs do not touch each other, padding says nothing, every weight learns."""

from dataclasses import replace

import pytest
import torch

from editorbot_core.base.errors import ParameterError
from editorbot_core.base.tensors import module_digest
from editorbot_core.editing.batches import EditBatch, collate
from editorbot_core.editing.edits import CUT, KEEP, LOOP_2, N_ACTIONS
from editorbot_core.policy.config import PolicyConfig
from editorbot_core.policy.environment import plan_episodes, replay
from editorbot_core.policy.network import Policy
from editorbot_core.policy.observation import JOIN_GROUPS
from editorbot_core.policy.rollout import log_prob

SMALL = PolicyConfig(width=16, hidden=32, pair_width=8, n_layers=1, n_heads=2)


@pytest.fixture
def policy():
    torch.manual_seed(0)
    return Policy(SMALL).eval()


@pytest.fixture(scope="module")
def songs(synthetic_song):
    return [synthetic_song(0, n_bars=9), synthetic_song(1, n_bars=14)]


def test_a_song_is_encoded_alike_in_whatever_company(policy, songs):
    with torch.no_grad():
        for conv in policy.convs:
            conv.norm.bias.fill_(1.0)  # so that padding would be heard if it were let in
    together = policy.encode(collate(songs))
    alone = policy.encode(collate(songs[:1]))
    n = songs[0].units.n_units
    for name in ("unit", "expected", "query", "key"):
        torch.testing.assert_close(getattr(together, name)[0, :n], getattr(alone, name)[0], atol=1e-5, rtol=1e-4)
    pair = together.pair.view(2, 14, 14, -1)[0, :n, :n]
    torch.testing.assert_close(pair, alone.pair.view(n, n, -1), atol=1e-5, rtol=1e-4)


def test_a_unit_compared_with_itself_is_no_step(policy, songs):
    pair = policy.encode(collate(songs[:1])).pair.view(9, 9, -1)
    units = torch.arange(9)
    assert pair[units, units, : 2 * len(JOIN_GROUPS)].abs().max() < 1e-5
    assert (pair[0, 1, : 2 * len(JOIN_GROUPS)][:1] > 0.1).all()


def test_where_nothing_is_skipped_a_unit_is_compared_with_itself(policy, songs):
    batch = collate(songs[:1])
    episodes = plan_episodes(batch, torch.tensor([0]), torch.tensor([1.0]))
    states = policy.encode(batch)
    others = ~torch.eye(9, dtype=torch.bool).flatten()
    poisoned = replace(states, pair=states.pair.masked_fill(others[:, None], torch.nan))
    for actions, clean in (([KEEP] * 9, True), ([KEEP, CUT] + [KEEP] * 7, False)):
        state = replay(episodes, torch.tensor([actions]))
        logits = policy.decide(poisoned, torch.tensor([0]), episodes, state).logits
        assert bool(torch.isfinite(logits).all()) == clean


def test_long_songs_are_encoded_in_chunks_and_no_unit_is_left_out(policy, synthetic_song):
    batch = collate([synthetic_song(3, n_bars=40), synthetic_song(4, n_bars=7)])
    chunked = Policy(replace(SMALL, chunk_units=16))
    chunked.load_state_dict(policy.state_dict())
    a, b = policy.encode(batch).unit, chunked.encode(batch).unit
    assert torch.isfinite(b).all()
    # Every unit was encoded in a chunk: none differs from the whole by more than the missing far context does.
    assert (a - b).abs().amax(2)[0].max() < 0.5 * a.abs().max()
    assert (b.abs().sum(2)[batch.unit_mask] > 0).all()
    one_chunk = Policy(replace(SMALL, chunk_units=40))
    one_chunk.load_state_dict(policy.state_dict())
    assert torch.equal(one_chunk.encode(batch).unit, a)


def test_chunks_match_the_whole_where_attention_is_not_used(policy, synthetic_song):
    batch = collate([synthetic_song(3, n_bars=41)])
    with torch.no_grad():
        for layer in policy.layers:
            layer.out.weight.zero_()
            layer.out.bias.zero_()
    chunked = Policy(replace(SMALL, chunk_units=16))
    chunked.load_state_dict(policy.state_dict())
    torch.testing.assert_close(chunked.encode(batch).unit, policy.encode(batch).unit, atol=1e-5, rtol=1e-5)


def test_initial_habits_are_to_go_on_and_to_move_little(policy, songs):
    batch = collate(songs)
    episodes = plan_episodes(batch, torch.tensor([1]), torch.tensor([0.6]))
    row = torch.tensor([1])
    states = policy.encode(batch)
    kept = policy.decide(states, row, episodes, replay(episodes, torch.full((1, 14), KEEP))).logits[0, 2]
    cut = policy.decide(states, row, episodes, replay(episodes, torch.full((1, 14), CUT))).logits[0, 2]
    assert kept[KEEP] - kept[CUT] > 1
    assert cut[CUT] - cut[KEEP] > 1
    assert (kept[LOOP_2:] < -4).all()


def test_statistics_standardise_the_features(policy, songs):
    batch = collate(songs)
    shifted = replace(batch, features=batch.features * 7 + 3)
    policy.fit_statistics(shifted)
    rows = shifted.features[shifted.beat_mask]
    torch.testing.assert_close(policy.feature_mean, rows.mean(0))
    torch.testing.assert_close(policy.feature_scale, rows.std(0, correction=0))


def test_silence_gives_finite_answers(policy, songs):
    batch = collate(songs)
    silent = replace(batch, features=torch.zeros_like(batch.features))
    policy.fit_statistics(silent)
    edits = EditBatch(silent, torch.tensor([0]), torch.zeros((1, 14), dtype=torch.int64), torch.tensor([1.0]))
    result = log_prob(policy, edits)
    assert torch.isfinite(result.log_probs).all()
    assert torch.isfinite(result.values).all()


def test_every_weight_gets_a_gradient(policy, songs):
    batch = collate(songs)
    actions = torch.tensor([[KEEP, KEEP, LOOP_2, CUT, CUT, KEEP, KEEP, CUT, KEEP] + [CUT] * 5])
    result = log_prob(policy, EditBatch(batch, torch.tensor([0]), actions, torch.tensor([0.75])))
    (result.log_probs.clamp(min=-50).sum() + result.values.sum()).backward()
    missing = [name for name, p in policy.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert missing == []


def test_the_value_does_not_shape_the_trunk(policy, songs):
    batch = collate(songs)
    edits = EditBatch(batch, torch.tensor([0]), torch.zeros((1, 14), dtype=torch.int64), torch.tensor([1.0]))
    log_prob(policy, edits).values.sum().backward()
    shaped = {name.split(".")[0] for name, p in policy.named_parameters() if p.grad is not None}
    assert shaped == {"value"}


def test_the_digest_names_the_weights(policy):
    before = module_digest(policy)
    other = Policy(SMALL)
    other.load_state_dict(policy.state_dict())
    assert module_digest(other) == before
    with torch.no_grad():
        other.to_logits.bias[0] += 1e-6
    assert module_digest(other) != before


def test_logits_cover_all_actions(policy, songs):
    batch = collate(songs)
    episodes = plan_episodes(batch, torch.tensor([0, 1, 1]), torch.tensor([0.5, 0.6, 0.7]))
    decision = policy.decide(
        policy.encode(batch),
        torch.tensor([0, 1, 1]),
        episodes,
        replay(episodes, torch.zeros((3, 14), dtype=torch.int64)),
    )
    assert decision.logits.shape == (3, 14, N_ACTIONS)
    assert decision.values.shape == (3, 14)


@pytest.mark.parametrize("change", [{"width": 18}, {"kernel_size": 4}, {"chunk_units": 1}, {"hidden": 0}])
def test_parts_that_do_not_fit_are_refused(change):
    with pytest.raises(ParameterError, match="must be"):
        PolicyConfig(**change)
