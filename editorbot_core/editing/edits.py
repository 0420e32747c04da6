"""Edits: the actions that can be chosen for a unit of beats, and the edit decision list.

A *unit* is a run of beats with one action: a bar by default. An action id is stored for every beat; all beats of a
unit have the same id. The *played order* is the sequence of units that results from the actions. An
`EditDecisionList` (EDL) holds the actions and the segments of the source that a player needs, in output order;
segments are half-open ranges `[start_s, end_s)` in seconds from the start of the source file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch

from editorbot_core.analysis.beats.grid import BeatGrid, Units
from editorbot_core.audio.segments import Segment
from editorbot_core.base.errors import ParameterError
from editorbot_core.songs.song import Song

KEEP, CUT, LOOP_2, LOOP_3, LOOP_4, REORDER_1, REORDER_2, REORDER_3, REORDER_4 = range(9)
ACTION_NAMES = ("KEEP", "CUT", "LOOP_2", "LOOP_3", "LOOP_4", "REORDER_1", "REORDER_2", "REORDER_3", "REORDER_4")
N_ACTIONS = len(ACTION_NAMES)

# How often each action plays a unit, and by how many units it moves the unit later.
ACTION_REPEATS = (1, 0, 2, 3, 4, 1, 1, 1, 1)
ACTION_SHIFTS = (0, 0, 0, 0, 0, 1, 2, 3, 4)

# An edit meets its target if its error is at most this share of the target plus this many median units.
TOLERANCE_RATIO = 0.015
TOLERANCE_UNITS = 0.5

# Units may be repeated only if the target is above this share of the song: below it, every repeat needs further cuts.
# A unit is played at most `MAX_REPEATS` times.
LOOP_RATIO = 0.95
MAX_REPEATS = 4


class PlayedOrder(NamedTuple):
    """Units in the order in which they are played.

    Attributes:
        units: int64 (n, max_length), unit indices, -1 after the end.
        lengths: int64 (n,), units played.
    """

    units: torch.Tensor
    lengths: torch.Tensor


def compile_actions(actions: torch.Tensor, unit_mask: torch.Tensor) -> PlayedOrder:
    """The played order of a batch of edits.

    KEEP plays a unit once at its place, CUT never, LOOP xk k times in a row; REORDER +k plays it after the k-th
    following unit: units are stably sorted by `u + k + 0.5`, all others by `u`.

    Args:
        actions: int64 (n, n_units), ids 0-8; ids of padding units are ignored.
        unit_mask: bool (n, n_units), False for padding.

    Raises:
        ParameterError: If an id is outside 0-8 where the mask is True.

    Examples:
        Of five units, the second is cut, the third played twice, and the fourth moved behind the fifth:

        >>> actions = torch.tensor([[KEEP, CUT, LOOP_2, REORDER_1, KEEP]])
        >>> compile_actions(actions, unit_mask=torch.ones_like(actions, dtype=torch.bool))
        PlayedOrder(units=tensor([[0, 2, 2, 4, 3]]), lengths=tensor([5]))
    """
    unknown = unit_mask & ((actions < 0) | (actions >= N_ACTIONS))
    if bool(unknown.any()):
        values = sorted(set(actions[unknown].tolist()))
        raise ParameterError(f"action ids are 0-8 ({', '.join(ACTION_NAMES)}); got {values[:5]}")
    actions = actions.where(unit_mask, torch.full_like(actions, CUT))
    repeats = torch.tensor(ACTION_REPEATS, device=actions.device)[actions]
    shifts = torch.tensor(ACTION_SHIFTS, device=actions.device)[actions]
    n_units = actions.shape[1]
    place = torch.arange(n_units, device=actions.device).expand_as(actions)
    # Twice the key, so that the half of `u + k + 0.5` stays an integer.
    key = 2 * (place + shifts) + (shifts > 0)
    by_key = key.argsort(dim=1, stable=True)
    ends = repeats.gather(1, by_key).cumsum(1)
    lengths = ends[:, -1] if n_units else torch.zeros(len(actions), dtype=torch.int64, device=actions.device)
    longest = int(lengths.max()) if len(actions) else 0
    slots = torch.arange(longest, device=actions.device).expand(len(actions), longest).contiguous()
    source = torch.searchsorted(ends.contiguous(), slots, right=True).clamp(max=max(n_units - 1, 0))
    played = by_key.gather(1, source)
    return PlayedOrder(played.masked_fill(slots >= lengths[:, None], -1), lengths)


def played_units(actions: Sequence[int] | np.ndarray) -> np.ndarray:
    """The played order of one edit: action ids per unit (n_units,) to unit indices, int64.

    Examples:
        >>> played_units([KEEP, CUT, LOOP_2, KEEP])
        array([0, 2, 2, 3])
    """
    row = torch.as_tensor(np.asarray(actions, dtype=np.int64))[None]
    return compile_actions(row, torch.ones_like(row, dtype=torch.bool)).units[0].numpy()


def unit_actions_to_beats(actions: np.ndarray, units: Units) -> np.ndarray:
    """Spread action ids per unit (n_units,) over beats (n_beats,)."""
    actions = np.asarray(actions, dtype=np.int64)
    if actions.shape != (units.n_units,):
        raise ParameterError(f"one action per unit is needed: {units.n_units} units, {actions.shape} actions")
    return actions[units.unit_id]


def beat_actions_to_units(actions: np.ndarray, units: Units) -> np.ndarray:
    """Action ids per beat (n_beats,) to one id per unit (n_units,).

    Raises:
        ParameterError: If the beats of a unit carry different ids.
    """
    actions = np.asarray(actions, dtype=np.int64)
    if actions.shape != units.unit_id.shape:
        raise ParameterError(f"one action per beat is needed: {len(units.unit_id)} beats, {actions.shape} actions")
    per_unit = actions[units.first_beats]
    wrong = np.flatnonzero(per_unit[units.unit_id] != actions)
    if len(wrong):
        raise ParameterError(f"beat {wrong[0]} has action {actions[wrong[0]]}, unlike the first beat of its unit")
    return per_unit


def order_to_segments(order: np.ndarray, unit_bounds: np.ndarray) -> tuple[Segment, ...]:
    """Played units to segments, one for every run of units that follow each other in the source.

    Args:
        order: Unit indices in played order, int64 (n_played,).
        unit_bounds: Edges of the units, s, (n_units + 1,).

    Examples:
        Units of two seconds; the first two are one segment, since the second follows the first in the source:

        >>> for segment in order_to_segments(np.array([0, 1, 3]), np.array([0.0, 2.0, 4.0, 6.0, 8.0])):
        ...     print(segment.start_s, segment.end_s)
        0.0 4.0
        6.0 8.0
    """
    order = np.asarray(order, dtype=np.int64)
    if len(order) == 0:
        return ()
    breaks = np.flatnonzero(np.diff(order) != 1) + 1
    return tuple(
        Segment(float(unit_bounds[run[0]]), float(unit_bounds[run[-1] + 1])) for run in np.split(order, breaks)
    )


@dataclass(frozen=True, eq=False)
class EditDecisionList:
    """One edit of one song.

    Attributes:
        track_id: Content id of the song.
        source_path: Where the song was read from, as text; never joined to a folder.
        source_sha256: Digest of the file, or "" if there is no file.
        grid: The beats of the source.
        units: How beats are grouped.
        actions: int64 (n_beats,), one id per beat, equal within a unit.
        segments: Ranges of the source to play, in output order.
        target_duration_s: Requested length, s.
        model: Name and version of the editor that made the edit.
        scores: Named scores of the edit.

    Examples:
        The middle of a song of four bars, cut out:

        >>> grid = BeatGrid(np.arange(16) * 0.5, np.tile([1, 2, 3, 4], 4), duration=8.0)
        >>> actions = np.array([KEEP, CUT, CUT, KEEP])
        >>> edl = EditDecisionList.from_unit_actions(actions, grid=grid, units=Units.bars(grid))
        >>> edl.duration_s, edl.actions.shape, edl.unit_actions
        (4.0, (16,), array([0, 1, 1, 0]))
        >>> [(segment.start_s, segment.end_s) for segment in edl.segments]
        [(0.0, 2.0), (6.0, 8.0)]
    """

    track_id: str
    source_path: str
    source_sha256: str
    grid: BeatGrid
    units: Units
    actions: np.ndarray
    segments: tuple[Segment, ...]
    target_duration_s: float
    model: Mapping[str, object] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that actions fit the grid and segments lie within the source."""
        actions = np.asarray(self.actions, dtype=np.int64)
        object.__setattr__(self, "actions", actions)
        object.__setattr__(self, "segments", tuple(self.segments))
        if len(self.units.unit_id) != self.grid.n_beats:
            raise ParameterError(f"{self.grid.n_beats} beats but unit ids for {len(self.units.unit_id)}")
        if ((actions < 0) | (actions >= N_ACTIONS)).any():
            raise ParameterError(f"action ids are 0-8; got {sorted(set(actions.tolist()))}")
        beat_actions_to_units(actions, self.units)
        if not np.isfinite(self.target_duration_s) or self.target_duration_s <= 0:
            raise ParameterError(f"target_duration_s must be positive; got {self.target_duration_s}")
        for segment in self.segments:
            if segment.end_s > self.grid.duration + 1e-6:
                raise ParameterError(f"{segment} ends after the source ({self.grid.duration:.3f} s)")

    @classmethod
    def from_unit_actions(
        cls,
        actions: np.ndarray,
        *,
        grid: BeatGrid,
        units: Units,
        track_id: str = "",
        source_path: str = "",
        source_sha256: str = "",
        target_duration_s: float | None = None,
        model: Mapping[str, object] | None = None,
    ) -> "EditDecisionList":
        """The EDL of action ids per unit (n_units,); without a target, the target is the length of the edit."""
        segments = order_to_segments(played_units(actions), units.bounds(grid))
        if not segments:
            raise ParameterError("an edit must keep at least one unit")
        return cls(
            track_id=track_id,
            source_path=source_path,
            source_sha256=source_sha256,
            grid=grid,
            units=units,
            actions=unit_actions_to_beats(actions, units),
            segments=segments,
            target_duration_s=sum(s.duration_s for s in segments) if target_duration_s is None else target_duration_s,
            model=dict(model or {}),
        )

    @classmethod
    def keep_all(
        cls, grid: BeatGrid, *, track_id: str = "", source_path: str = "", source_sha256: str = ""
    ) -> "EditDecisionList":
        """The edit that plays the source from its first sample to its last."""
        units = Units.bars(grid)
        return cls.from_unit_actions(
            np.zeros(units.n_units, dtype=np.int64),
            grid=grid,
            units=units,
            track_id=track_id,
            source_path=source_path,
            source_sha256=source_sha256,
        )

    @property
    def unit_actions(self) -> np.ndarray:
        """Action ids per unit, int64 (n_units,)."""
        return beat_actions_to_units(self.actions, self.units)

    @property
    def duration_s(self) -> float:
        """Length of the edit, s: the sum of its segments."""
        return float(sum(segment.duration_s for segment in self.segments))

    def with_scores(self, **scores: float) -> "EditDecisionList":
        """The same edit with `scores` added."""
        return replace(self, scores={**self.scores, **scores})

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, EditDecisionList):
            return NotImplemented
        return (
            (self.track_id, self.source_path, self.source_sha256)
            == (other.track_id, other.source_path, other.source_sha256)
            and np.array_equal(self.grid.times, other.grid.times)
            and np.array_equal(self.grid.positions, other.grid.positions)
            and (self.grid.duration, self.grid.confidence) == (other.grid.duration, other.grid.confidence)
            and np.array_equal(self.units.unit_id, other.units.unit_id)
            and np.array_equal(self.actions, other.actions)
            and self.segments == other.segments
            and self.target_duration_s == other.target_duration_s
            and dict(self.model) == dict(other.model)
            and dict(self.scores) == dict(other.scores)
        )

    __hash__ = None  # type: ignore[assignment]


def edl_of(
    song: Song,
    unit_actions: np.ndarray,
    *,
    target_duration_s: float,
    model: Mapping[str, object] | None = None,
) -> EditDecisionList:
    """The EDL of `song` with the given action ids per unit, (n_units,)."""
    return EditDecisionList.from_unit_actions(
        unit_actions,
        grid=song.grid,
        units=song.units,
        track_id=song.track_id,
        source_path=song.path,
        source_sha256=song.sha256,
        target_duration_s=target_duration_s,
        model=model,
    )
