from itertools import product

import pytest
import torch

from editorbot_core.base.errors import ParameterError
from editorbot_core.editing.batches import collate
from editorbot_core.editing.edits import CUT, KEEP
from editorbot_core.editing.joins import SearchWeights
from editorbot_core.editing.outlook import MARGIN_STEPS, UNREACHABLE, outlook_of
from editorbot_core.editing.search import edit_cost, search_edits
from editorbot_core.policy.environment import BeatEditingEnv, plan_episodes, replay
from editorbot_core.policy.observation import ways_on
from tests.core.conftest import make_song


def even_song(n_bars, *, seed=0):
    """Bars of two seconds, random features, random guesses at phrases."""
    return make_song(
        seed, n_bars=n_bars, beat_s=0.5, jitter=0.0, first_s=0.0, tail_s=0.0, phrase_bars=None, n_materials=3
    )


def cost_of(outlook, kept, surplus_units):
    """What the outlook charges for the units kept, with `surplus_units` to go before the first."""
    n = len(outlook.join)
    played = [u for u in range(n) if kept[u]]
    cost, expected = 0.0, 0
    for u in [*played, n]:
        cost += outlook.join[expected, u] if u < n or expected < n else 0.0
        expected = min(u + 1, n)
    missed = surplus_units - (n - len(played))
    step = round(missed * 2.0 / outlook.step_s) + MARGIN_STEPS
    if not 0 <= step < outlook.after.shape[1]:
        return UNREACHABLE
    return min(cost + float(outlook.after[n, step]), UNREACHABLE)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("surplus", [2, 4, 5])
def test_the_cheapest_way_on_is_the_cheapest_of_all_edits(seed, surplus):
    song = even_song(9, seed=seed)
    outlook = outlook_of(song)
    every = [kept for kept in product([True, False], repeat=9) if any(kept)]
    batch = collate([song])
    episodes = plan_episodes(batch, torch.tensor([0]), torch.tensor([1.0 - surplus / 9]))
    ways = ways_on(episodes, BeatEditingEnv(batch).reset(torch.tensor([0]), torch.tensor([1.0 - surplus / 9])))
    for way, first in ((ways.keep, True), (ways.cut, False)):
        best = min(cost_of(outlook, kept, surplus) for kept in every if kept[0] is first)
        assert float(way[0]) == pytest.approx(best, abs=0.05)


def random_edits(songs, n, seed):
    """Edits that respect the mask, by a random walk."""
    batch, generator = collate(songs), torch.Generator().manual_seed(seed)
    index = torch.arange(n) % len(songs)
    ratio = 0.4 + 0.8 * torch.rand(n, generator=generator)
    env = BeatEditingEnv(batch)
    state = env.reset(index, ratio)
    seen = []
    for _ in range(env.n_steps):
        seen.append(ways_on(env.episodes, state))
        allowed = env.allowed_actions().float()
        # Mostly what was done before, so that there are long cuts.
        allowed *= 0.02
        allowed[:, :2] = allowed[:, :2] * 10
        same = state.previous.clamp(max=1)[:, None]
        allowed = allowed.scatter_add(1, same, (allowed.gather(1, same) > 0).float())
        state = env.step(torch.multinomial(allowed, 1, generator=generator)[:, 0]).state
    return env, seen


def test_all_units_at_once_equal_one_unit_at_a_time(synthetic_song):
    env, seen = random_edits([synthetic_song(i, n_bars=b) for i, b in ((0, 12), (1, 30), (2, 21))], 60, seed=1)
    together = ways_on(env.episodes, replay(env.episodes, env.actions))
    real = env.episodes.unit_mask[:, : env.n_steps]
    for name in ("keep", "cut"):
        alone = torch.stack([getattr(ways, name) for ways in seen], dim=1)
        assert torch.equal(alone[real], getattr(together, name)[:, : env.n_steps][real])
    state = replay(env.episodes, env.actions)
    n_ongoing = int(((state.exit_unit + 1 != torch.arange(env.actions.shape[1])) & env.episodes.unit_mask).sum())
    assert n_ongoing > 100


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ratio", [0.4, 0.5, 0.7])
def test_going_the_cheaper_way_finds_what_the_search_finds(seed, ratio):
    song = even_song(32, seed=seed)
    env = BeatEditingEnv(collate([song]))
    state = env.reset(torch.tensor([0]), torch.tensor([ratio]))
    for _ in range(song.units.n_units):
        keep, cut = ways_on(env.episodes, state)
        allowed = env.allowed_actions()[0]
        wanted = KEEP if float(keep) <= float(cut) else CUT
        assert allowed[wanted], "the outlook promises what the mask forbids"
        state = env.step(torch.tensor([wanted])).state
    weights = SearchWeights(coverage=0.0)
    target_s = ratio * song.duration
    found = edit_cost(song, env.actions[0].numpy(), target_s, weights=weights)
    assert found <= search_edits(song, target_s, weights=weights)[0].cost + 0.5


def test_padding_changes_nothing():
    short, long = even_song(12, seed=3), even_song(40, seed=4)
    ratio = torch.tensor([0.5])
    alone = BeatEditingEnv(collate([short]))
    padded = BeatEditingEnv(collate([long, short]))
    state_alone, state_padded = alone.reset(torch.tensor([0]), ratio), padded.reset(torch.tensor([1]), ratio)
    first, second = ways_on(alone.episodes, state_alone), ways_on(padded.episodes, state_padded)
    assert torch.equal(first.keep, second.keep) and torch.equal(first.cut, second.cut)


def test_an_edit_longer_than_the_song_is_out_of_sight():
    env = BeatEditingEnv(collate([even_song(12)]))
    state = env.reset(torch.tensor([0]), torch.tensor([1.25]))
    ways = ways_on(env.episodes, state)
    assert float(ways.keep) == float(ways.cut) == UNREACHABLE


def test_songs_without_an_outlook_are_refused():
    batch = collate([even_song(8)])
    bare = type(batch)(**{name: getattr(batch, name) for name in batch.__dataclass_fields__ if name != "outlook"})
    env = BeatEditingEnv(bare)
    env.reset(torch.tensor([0]), torch.tensor([0.5]))
    with pytest.raises(ParameterError, match="collate"):
        ways_on(env.episodes, env.state)
