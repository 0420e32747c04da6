"""The decision process: units are decided from first to last, under a mask that keeps the target length in reach.

An *episode* is one song and one target length; a step decides one unit. Everything is batched: n episodes over the
songs of a `SongBatch`, U units of the longest song. Durations are integer microseconds (`_us`), so that the mask
computed step by step and the mask computed for all units at once are the same to the last bit, on every device.

The tolerance around the target is 1.5 % of it plus half a median unit. An action is allowed if the song can still end
within the tolerance: what remains can be cut, or kept once (looped only where the target is above 0.95 of the song),
and the last unit, which owns the final decay and may be long, is either kept or cut. No other unit may be longer than
the whole tolerance window for this to be exact. Where nothing is allowed (a longer unit, or a target that the song
cannot reach) the escape opens the actions with the smallest final error. At least one unit is kept.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch

from editorbot_core.base.errors import ParameterError
from editorbot_core.editing.batches import EditBatch, SongBatch
from editorbot_core.editing.edits import (
    ACTION_NAMES,
    ACTION_REPEATS,
    ACTION_SHIFTS,
    CUT,
    KEEP,
    LOOP_2,
    LOOP_RATIO,
    N_ACTIONS,
    REORDER_1,
    TOLERANCE_RATIO,
    TOLERANCE_UNITS,
)

START = N_ACTIONS  # the "previous action" of the first unit
MAX_SHIFT = max(ACTION_SHIFTS)

_US = 1_000_000
_FORBIDDEN = 2**62


@dataclass(frozen=True)
class Episodes:
    """What stays fixed during n episodes.

    Attributes:
        songs: The S songs.
        song_index: int64 (n,), song of each episode.
        target_ratio: float32 (n,), target length over the song's length.
        unit_mask: bool (n, U), real units.
        durations_us: int64 (n, U), 0 in padding.
        target_us: int64 (n,).
        tolerance_us: int64 (n,), allowed distance from the target.
        median_us: int64 (n,), median length of the song's units.
        remaining_us: int64 (n, U), length of this unit and all that follow.
        nearer_us: int64 (n, U), places in the song from which on the start of this unit is nearer than that of the
            unit before.
        added_us: int64 (n, U, 9), what each action adds to the edit.
        low_us: int64 (n, U, 2), least length after this unit from which the target is in reach, with the last unit
            cut (column 0) or kept (column 1).
        high_us: int64 (n, U, 2), greatest such length.
        possible: bool (n, U, 9), actions the unit may take whatever was decided before; only CUT in padding.
        silent: bool (n, U, 9), actions forbidden while nothing is kept yet: CUT of the last unit.
        cluster: int64 (n, U), material of the unit, 0 in padding.
        cluster_size: int64 (n, U), units of that material in the song, at least 1.
    """

    songs: SongBatch
    song_index: torch.Tensor
    target_ratio: torch.Tensor
    unit_mask: torch.Tensor
    durations_us: torch.Tensor
    target_us: torch.Tensor
    tolerance_us: torch.Tensor
    median_us: torch.Tensor
    remaining_us: torch.Tensor
    nearer_us: torch.Tensor
    added_us: torch.Tensor
    low_us: torch.Tensor
    high_us: torch.Tensor
    possible: torch.Tensor
    silent: torch.Tensor
    cluster: torch.Tensor
    cluster_size: torch.Tensor

    @property
    def n_units(self) -> int:
        """Units of the longest song."""
        return self.unit_mask.shape[1]


class EpisodeState(NamedTuple):
    """What the decisions before a unit amount to; tensors are int64, of shape (n,) at one unit or (n, U) at all.

    Attributes:
        at: The unit that is decided next, or `slice(None)` for every unit at once.
        played_us: Length of what is kept so far.
        exit_unit: Unit that is heard before this one if this one is kept in place, -1 if none is.
        previous: Action of the unit before, 9 at the first.
        joins: Joins made so far.
        since_join: Units since the last join, or since the start.
        heard: Units of this unit's material that are kept already.
    """

    at: int | slice
    played_us: torch.Tensor
    exit_unit: torch.Tensor
    previous: torch.Tensor
    joins: torch.Tensor
    since_join: torch.Tensor
    heard: torch.Tensor


def _suffix_sums(values: torch.Tensor) -> torch.Tensor:
    return values.flip(1).cumsum(1).flip(1)


def _possible_actions(songs: SongBatch, last_unit: torch.Tensor) -> torch.Tensor:
    """Actions that a unit's place allows, bool (S, U, 9)."""
    place = torch.arange(songs.n_units, device=last_unit.device)
    possible = torch.zeros((*songs.unit_mask.shape, N_ACTIONS), dtype=torch.bool, device=last_unit.device)
    possible[..., KEEP] = songs.unit_mask
    possible[..., CUT] = True
    possible[..., LOOP_2:REORDER_1] = songs.movable[..., None]
    for action in range(REORDER_1, N_ACTIONS):
        possible[..., action] = songs.movable & (place + ACTION_SHIFTS[action] < last_unit[:, None])
    return possible


def plan_episodes(songs: SongBatch, song_index: torch.Tensor, target_ratio: torch.Tensor) -> Episodes:
    """Prepare n episodes.

    Args:
        songs: S songs.
        song_index: int64 (n,), in [0, S).
        target_ratio: float (n,), positive: target length over the song's length.

    Raises:
        ParameterError: If a target is not a positive number or the two differ in length.
    """
    if song_index.shape != target_ratio.shape or song_index.ndim != 1:
        raise ParameterError(f"one target per episode: got {tuple(target_ratio.shape)} for {tuple(song_index.shape)}")
    if not bool((torch.isfinite(target_ratio) & (target_ratio > 0)).all()):
        raise ParameterError("target_ratio must be positive: the target length over the length of the song")
    device = song_index.device
    n_units = songs.unit_mask.sum(1)
    last_unit = n_units - 1
    seconds = songs.unit_durations.double()
    song_durations = (seconds * _US).round().long()
    song_median = seconds.masked_fill(~songs.unit_mask, torch.nan).nanmedian(1).values
    cluster = songs.cluster.clamp(min=0)
    counts = torch.zeros((songs.n_songs, int(cluster.max()) + 1), dtype=torch.int64, device=device)
    counts.scatter_add_(1, cluster, songs.unit_mask.long())

    durations = song_durations[song_index]
    median = (song_median * _US).round().long()[song_index]
    target = (target_ratio.double() * durations.sum(1)).round().long()
    tolerance = (TOLERANCE_RATIO * target + TOLERANCE_UNITS * median).round().long()

    place = torch.arange(songs.n_units, device=device)
    last = last_unit[song_index]
    is_last = place == last[:, None]
    loops = (target_ratio > LOOP_RATIO)[:, None] & songs.movable[song_index]
    interior = (durations * torch.where(loops, max(ACTION_REPEATS), 1)).masked_fill(is_last, 0)
    interior_after = _suffix_sums(interior) - interior
    last_after = (durations * is_last).sum(1, keepdim=True) * (place < last[:, None])
    ends = torch.stack([torch.zeros_like(last_after), last_after], dim=-1)
    low = (target - tolerance)[:, None, None] - interior_after[..., None] - ends
    high = (target + tolerance)[:, None, None] - ends

    remaining = _suffix_sums(durations)
    half_before = torch.cat([torch.zeros_like(durations[:, :1]), durations[:, :-1] // 2], dim=1)
    silent = torch.zeros((*is_last.shape, N_ACTIONS), dtype=torch.bool, device=device)
    silent[..., CUT] = is_last
    return Episodes(
        songs=songs,
        song_index=song_index,
        target_ratio=target_ratio.float(),
        unit_mask=songs.unit_mask[song_index],
        durations_us=durations,
        target_us=target,
        tolerance_us=tolerance,
        median_us=median,
        remaining_us=remaining,
        nearer_us=(remaining[:, :1] - remaining - half_before).contiguous(),
        added_us=durations[..., None] * torch.tensor(ACTION_REPEATS, device=device),
        low_us=low,
        high_us=high,
        possible=_possible_actions(songs, last_unit)[song_index],
        silent=silent,
        cluster=cluster[song_index],
        cluster_size=counts.gather(1, cluster)[song_index].clamp(min=1),
    )


def allowed_actions(episodes: Episodes, state: EpisodeState) -> torch.Tensor:
    """The mask, bool (n, 9) at one unit or (n, U, 9) at all: where it is True the target can still be met.

    At least one action is allowed everywhere; in padding it is CUT.
    """
    at = state.at
    total = (state.played_us[..., None] + episodes.added_us[:, at])[..., None]
    short = (episodes.low_us[:, at, None] - total).clamp_(min=0)
    long = (total - episodes.high_us[:, at, None]).clamp_(min=0)
    error = torch.minimum(*short.add_(long).unbind(-1))
    silent = episodes.silent[:, at] & (state.played_us == 0)[..., None]
    error.masked_fill_(silent | ~episodes.possible[:, at], _FORBIDDEN)
    return error == error.amin(-1, keepdim=True)


def replay(episodes: Episodes, actions: torch.Tensor) -> EpisodeState:
    """The state before every unit, given the actions of all, without a loop over units.

    Args:
        episodes: n episodes.
        actions: int64 (n, U), ids 0-8; ids in padding are ignored.
    """
    n, n_units = actions.shape
    device = actions.device
    actions = actions.masked_fill(~episodes.unit_mask, CUT)
    kept = actions != CUT
    place = torch.arange(n_units, device=device)
    added = episodes.added_us.gather(2, actions[..., None])[..., 0]

    # A unit is heard before unit `slot` and all later ones; of those sharing a slot the moved one with the highest
    # index comes last (ties of the stable sort in compile_actions).
    shift = torch.tensor(ACTION_SHIFTS, device=device)[actions]
    code = (place + n_units * (shift > 0)).masked_fill(~kept, -1)
    slots = torch.full((n, n_units + MAX_SHIFT + 1), -1, dtype=torch.int64, device=device)
    slots.scatter_reduce_(1, place + 1 + shift, code, "amax")
    order = torch.arange(slots.shape[1], device=device) * 2 * n_units + slots
    latest = order.masked_fill(slots < 0, -1).cummax(1).values[:, :n_units]
    exit_unit = torch.where(latest < 0, -1, latest % n_units)

    joined = kept & (((exit_unit >= 0) & (exit_unit + 1 != place)) | (actions != KEEP))
    last_join = torch.where(joined, place, 0).cummax(1).values
    one_hot = torch.zeros((n, n_units, int(episodes.cluster.max()) + 1), dtype=torch.int64, device=device)
    one_hot.scatter_(2, episodes.cluster[..., None], kept[..., None].long())
    heard = (one_hot.cumsum(1) - one_hot).gather(2, episodes.cluster[..., None])[..., 0]
    first = actions.new_zeros((n, 1))
    return EpisodeState(
        at=slice(None),
        played_us=added.cumsum(1) - added,
        exit_unit=exit_unit,
        previous=torch.cat([first + START, actions[:, :-1]], dim=1),
        joins=joined.long().cumsum(1) - joined.long(),
        since_join=place - torch.cat([first, last_join[:, :-1]], dim=1),
        heard=heard,
    )


def respects_mask(edits: EditBatch) -> torch.Tensor:
    """Which edits make only allowed decisions, bool (n,)."""
    episodes = plan_episodes(edits.songs, edits.song_index, edits.target_ratio)
    actions = edits.actions.masked_fill(~episodes.unit_mask, CUT)
    allowed = allowed_actions(episodes, replay(episodes, actions))
    return allowed.gather(2, actions[..., None])[..., 0].all(1)


class EnvStep(NamedTuple):
    """Result of a step.

    Attributes:
        state: The next state, or the last one after the end.
        reward: float32 (n,), 0 before the last step.
        done: Whether the longest song is decided.
    """

    state: EpisodeState
    reward: torch.Tensor
    done: bool


class BeatEditingEnv:
    """Steps n episodes together; between episodes nothing is remembered.

    Episodes of shorter songs take CUT, the only action allowed there, until the longest one ends.

    Args:
        songs: S songs.
        reward: Scores the finished edits, `EditBatch` to (n,); without one the reward is 0.
    """

    def __init__(self, songs: SongBatch, *, reward: Callable[[EditBatch], torch.Tensor] | None = None) -> None:
        self.songs = songs
        self._reward = reward

    def reset(self, song_index: torch.Tensor, target_ratio: torch.Tensor) -> EpisodeState:
        """Begin n episodes: int64 (n,) songs, float (n,) targets."""
        self.episodes = episodes = plan_episodes(self.songs, song_index, target_ratio)
        n, n_units = episodes.unit_mask.shape
        # Padding at the end that no episode of this batch reaches is not stepped through.
        self.n_steps = int(episodes.unit_mask.sum(1).max())
        self.actions = torch.full((n, n_units), CUT, dtype=torch.int64, device=song_index.device)
        self._shifts = torch.tensor(ACTION_SHIFTS, device=song_index.device)
        self._slots = self.actions.new_full((n, n_units + MAX_SHIFT + 1), -1)
        self._counts = self.actions.new_zeros((n, int(episodes.cluster.max()) + 1))
        self._last_join = self.actions.new_zeros(n)
        zero = self.actions.new_zeros(n)
        self.state = EpisodeState(0, zero, zero - 1, zero + START, zero, zero, zero)
        return self.state

    def allowed_actions(self) -> torch.Tensor:
        """The mask at the current unit, bool (n, 9)."""
        return allowed_actions(self.episodes, self.state)

    def step(self, actions: torch.Tensor, *, validate: bool = True) -> EnvStep:
        """Decide the current unit of every episode.

        Args:
            actions: int64 (n,).
            validate: Check against the mask; a sampler that has applied the mask may leave it out.

        Raises:
            ParameterError: If an action is forbidden or the episodes have ended.
        """
        state, episodes = self.state, self.episodes
        u = state.at
        assert isinstance(u, int)
        if u >= self.n_steps:
            raise ParameterError(f"all {self.n_steps} units are decided; call reset() first")
        if validate:
            forbidden = ~self.allowed_actions().gather(1, actions[:, None])[:, 0]
            if bool(forbidden.any()):
                i = int(forbidden.nonzero()[0])
                raise ParameterError(
                    f"{ACTION_NAMES[int(actions[i])]} is not allowed at unit {u} of episode {i}; see allowed_actions()"
                )
        kept = (actions != CUT) & episodes.unit_mask[:, u]
        shift = self._shifts[actions]
        code = (u + episodes.n_units * (shift > 0)).masked_fill(~kept, -1)
        slot = (u + 1 + shift)[:, None]
        self._slots.scatter_(1, slot, torch.maximum(self._slots.gather(1, slot), code[:, None]))
        self._counts.scatter_add_(1, episodes.cluster[:, u, None], kept[:, None].long())
        joined = kept & (((state.exit_unit >= 0) & (state.exit_unit + 1 != u)) | (actions != KEEP))
        self._last_join = self._last_join.masked_fill(joined, u)
        self.actions[:, u] = actions
        played = state.played_us + episodes.added_us[:, u].gather(1, actions[:, None])[:, 0]
        done = u + 1 >= self.n_steps
        upcoming = self._slots[:, u + 1]
        next_cluster = episodes.cluster[:, u if done else u + 1, None]
        self.state = EpisodeState(
            at=u + 1,
            played_us=played,
            exit_unit=torch.where(upcoming < 0, state.exit_unit, upcoming % episodes.n_units),
            previous=actions,
            joins=state.joins + joined,
            since_join=u + 1 - self._last_join,
            heard=self._counts.gather(1, next_cluster)[:, 0],
        )
        reward = self._reward(self.edits) if done and self._reward else played.new_zeros(len(played)).float()
        return EnvStep(self.state, reward, done)

    @property
    def edits(self) -> EditBatch:
        """The edits as decided so far; what is undecided is cut."""
        return EditBatch(self.songs, self.episodes.song_index, self.actions.clone(), self.episodes.target_ratio)
