"""Editors that a policy drives: a song and a target length in seconds to an edit decision list.

A *guided* editor chooses among the policy's edits and those of an exhaustive search for joins, by the learned reward in
calibrated log-odds less `SEARCH_WEIGHT` times what the search charges. A reward alone, asked for the best of hundreds,
finds the edit it is most wrong about; the search's cost is a prior that keeps it among edits that are sound.

The same policy, song, target and seed give the same edit, whatever was edited before.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from editorbot_core.base.errors import ParameterError
from editorbot_core.base.files import digest
from editorbot_core.editing.baselines import Editor
from editorbot_core.editing.batches import EditBatch, collate, stack_actions
from editorbot_core.editing.edits import EditDecisionList, compile_actions, edl_of
from editorbot_core.editing.joins import SearchWeights
from editorbot_core.editing.search import candidate_edits as searched_edits
from editorbot_core.editing.search import edit_cost
from editorbot_core.policy.network import Policy
from editorbot_core.policy.rollout import log_prob, sample_edits
from editorbot_core.rewards.base import RewardFunction
from editorbot_core.songs.song import Song

# Candidates sampled for every one that is wanted, because some turn out equal.
_OVERSAMPLING = 2
# What a guided editor looks at: samples of the policy, and searched edits by what the search is told to mind.
GUIDED_SAMPLES = 16
# Nats per unit of cost. On songs of the training set that the reward had not seen, edits got better up to 1 (below it
# the errors of the reward decide) and hardly changed above; from some 16 on, the search decides alone.
SEARCH_WEIGHT = 2.0
_SEARCHED = ((SearchWeights.full(), 160), (SearchWeights.light(), 64), (SearchWeights.acoustic(), 32))
# Share of the units that two candidates handed to a person treat differently.
_DIFFERENCE = 0.04


class _Candidates(NamedTuple):
    """Distinct edits of one song, the greedy one first: the batch, log-probability and search cost, float32 (n,)."""

    edits: EditBatch
    log_probs: torch.Tensor
    costs: torch.Tensor


def _generator(device: torch.device, seed: int, song: Song, target_s: float) -> torch.Generator:
    """A generator that depends on the seed, the song and the target alone."""
    mixed = int(digest([seed, song.track_id, float(target_s)])[:15], 16)
    return torch.Generator(device).manual_seed(mixed)


def _first_of_each_sound(edits: EditBatch) -> list[int]:
    """Rows of the edits that do not sound like an earlier one: other actions may play the same order."""
    seen: set[tuple[int, ...]] = set()
    rows = []
    for row, order in enumerate(compile_actions(edits.actions, edits.unit_mask).units.tolist()):
        key = tuple(unit for unit in order if unit >= 0)
        if key not in seen:
            seen.add(key)
            rows.append(row)
    return rows


def _sample_candidates(
    policy: Policy, song: Song, target_s: float, *, n: int, seed: int, temperature: float
) -> _Candidates:
    device = policy.device
    songs = collate([song]).to(device)
    ratio = torch.full((1 + _OVERSAMPLING * (n - 1),), target_s / song.duration, device=device)
    index = torch.zeros(len(ratio), dtype=torch.int64, device=device)
    greedy = sample_edits(policy, songs, song_index=index[:1], target_ratio=ratio[:1], greedy=True)
    rollouts = [greedy]
    if n > 1:
        generator = _generator(device, seed, song, target_s)
        rollouts.append(
            sample_edits(
                policy,
                songs,
                song_index=index[1:],
                target_ratio=ratio[1:],
                generator=generator,
                temperature=temperature,
            )
        )
    everything = EditBatch(songs, index, torch.cat([r.actions for r in rollouts]), ratio)
    log_probs = torch.cat([r.log_probs.sum(1) for r in rollouts])
    rows = torch.tensor(_first_of_each_sound(everything)[:n], device=device)
    edits = EditBatch(songs, index[rows], everything.actions[rows], ratio[rows])
    return _Candidates(edits, log_probs[rows], torch.zeros(len(rows), device=device))


def _with_searched(policy: Policy, song: Song, target_s: float, sampled: _Candidates) -> _Candidates:
    """The policy's candidates and those of the search, with the policy's log-probability and the cost of each."""
    searched = [(w, edit) for w, n in _SEARCHED for edit in searched_edits(song, target_s, weights=w, n_candidates=n)]
    songs, device, prior = sampled.edits.songs, policy.device, _SEARCHED[0][0]
    known = {edit.actions.tobytes(): edit.cost for weights, edit in searched if weights == prior}
    found = stack_actions([edit.actions for _, edit in searched], songs.n_units).to(device)
    actions = torch.cat([sampled.edits.actions, found])
    index = torch.zeros(len(actions), dtype=torch.int64, device=device)
    everything = EditBatch(songs, index, actions, sampled.edits.target_ratio[:1].expand(len(actions)))
    rows = torch.tensor(_first_of_each_sound(everything), device=device)
    edits = EditBatch(songs, index[rows], actions[rows], everything.target_ratio[rows])
    costs = []
    for row in edits.actions[:, : song.units.n_units].cpu().numpy():
        cost = known.get(row.tobytes())
        costs.append(edit_cost(song, row, target_s, weights=prior) if cost is None else cost)
    log_probs = log_prob(policy, edits).log_probs.sum(1)
    return _Candidates(edits, log_probs, torch.tensor(costs, dtype=torch.float32, device=device))


def _apart(order: Sequence[int], actions: torch.Tensor, n: int) -> list[int]:
    """The first `n` of the rows in `order` that differ clearly from all chosen before; fewer if there are fewer."""
    chosen: list[int] = []
    for row in order:
        if all(float((actions[row] != actions[other]).float().mean()) >= _DIFFERENCE for other in chosen):
            chosen.append(row)
        if len(chosen) == n:
            break
    return chosen


def candidate_edits(
    policy: Policy,
    song: Song,
    target_s: float,
    *,
    n: int,
    reward: RewardFunction | None = None,
    guided: bool = False,
    seed: int = 0,
    temperature: float = 1.0,
    model: Mapping[str, object] | None = None,
) -> list[EditDecisionList]:
    """Up to `n` edits that sound different, best first; fewer if the policy has fewer ideas.

    Args:
        policy: Proposes the greedy edit and samples, on its own device.
        song: What to edit.
        target_s: Duration asked for, s.
        n: How many candidates, at least 1.
        reward: Ranks them; without one, the policy's log-probability does. Its `temperature`, if it has one, turns
            differences of rewards into log-odds.
        guided: Choose also among the edits of an exhaustive search, by the reward and the cost of the search; needs a
            reward. The edits then differ in at least 4 % of the units.
        seed: Of the samples.
        temperature: Above 1 proposes more freely.
        model: Name and version written into the EDLs.

    Returns:
        EDLs whose `scores` hold `log_prob`, if there is a reward `reward`, and if they are guided `search_cost`.

    Raises:
        ParameterError: If `n` is below 1, the target is not positive, or nothing guides.
    """
    if n < 1 or not np.isfinite(target_s) or target_s <= 0:
        raise ParameterError(f"n must be at least 1 and target_s positive; got {n} and {target_s}")
    if guided and reward is None:
        raise ParameterError("a guided editor needs a reward to choose by")
    n_sampled = max(n, GUIDED_SAMPLES) if guided else n
    candidates = _sample_candidates(policy, song, target_s, n=n_sampled, seed=seed, temperature=temperature)
    with torch.no_grad():
        if guided:
            candidates = _with_searched(policy, song, target_s, candidates)
        rewards = reward(candidates.edits) if reward is not None else None
    log_odds_per_reward = 1.0 / float(getattr(reward, "temperature", 1.0))
    ranking = (
        candidates.log_probs if rewards is None else log_odds_per_reward * rewards - SEARCH_WEIGHT * candidates.costs
    )
    order = ranking.argsort(descending=True, stable=True).tolist()
    if guided:
        order = _apart(order, candidates.edits.actions[:, : song.units.n_units], n)
    edls = []
    for row in order:
        actions = candidates.edits.actions[row, : song.units.n_units].cpu().numpy()
        edl = edl_of(song, actions, target_duration_s=target_s, model=dict(model or {"name": "policy"}))
        scores = {"log_prob": float(candidates.log_probs[row])}
        if rewards is not None:
            scores["reward"] = float(rewards[row])
        if guided:
            scores["search_cost"] = float(candidates.costs[row])
        edls.append(edl.with_scores(**scores))
    return edls


def policy_editor(
    policy: Policy,
    *,
    n_candidates: int = 1,
    reward: RewardFunction | None = None,
    guided: bool = False,
    seed: int = 0,
    device: torch.device | str | None = None,
    temperature: float = 1.0,
    model: Mapping[str, object] | None = None,
) -> Editor:
    """An editor that takes the greedy edit, or the best of several candidates by `reward`.

    Args:
        policy: The policy; it is moved to `device` if one is given.
        n_candidates: The greedy edit and this many less one samples.
        reward: Chooses; needed if there is more than one candidate.
        guided: Choose also among the edits of an exhaustive search.
        seed: Of the samples; with the song and the target it decides everything.
        device: Where to run; where the policy is by default.
        temperature: Of the samples.
        model: Name and version written into the EDLs.

    Raises:
        ParameterError: If there are several candidates and nothing to choose by.
    """
    if n_candidates < 1 or (n_candidates > 1 and reward is None):
        raise ParameterError(f"{n_candidates} candidates need a reward to choose by (and must be at least 1)")
    if device is not None:
        policy.to(device)
    policy.eval()

    def edit(song: Song, target_s: float) -> EditDecisionList:
        return candidate_edits(
            policy,
            song,
            target_s,
            n=n_candidates,
            reward=reward,
            guided=guided,
            seed=seed,
            temperature=temperature,
            model=model,
        )[0]

    return edit


def sampling_editor(
    policy: Policy,
    *,
    seed: int = 0,
    device: torch.device | str | None = None,
    model: Mapping[str, object] | None = None,
) -> Editor:
    """An editor that takes one sample of the policy: what its training raised, where the greedy edit is one of many.

    Args:
        policy: The policy; it is moved to `device` if one is given.
        seed: With the song and the target it decides everything.
        device: Where to run; where the policy is by default.
        model: Name and version written into the EDLs.
    """
    if device is not None:
        policy.to(device)
    policy.eval()

    def edit(song: Song, target_s: float) -> EditDecisionList:
        at = policy.device
        rollout = sample_edits(
            policy,
            collate([song]).to(at),
            song_index=torch.zeros(1, dtype=torch.int64, device=at),
            target_ratio=torch.full((1,), target_s / song.duration, device=at),
            generator=_generator(at, seed, song, target_s),
        )
        actions = rollout.actions[0, : song.units.n_units].cpu().numpy()
        edl = edl_of(song, actions, target_duration_s=target_s, model=dict(model or {"name": "policy"}))
        return edl.with_scores(log_prob=float(rollout.log_probs[0].sum()))

    return edit
