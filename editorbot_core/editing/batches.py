"""Padded batches of songs and of their edits, the inputs of rewards and policies.

Shapes: S songs, T beats of the longest song, U units of the longest song, n edits. Padding beats belong to no unit.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch

from editorbot_core.base.errors import ParameterError
from editorbot_core.editing.outlook import OutlookBatch, outlook_of, stack_outlooks
from editorbot_core.songs.song import Song

# Standardised features are clipped to this magnitude.
FEATURE_LIMIT = 6.0


def standardise_per_song(
    features: torch.Tensor, beat_mask: torch.Tensor, *, limit: float | None = FEATURE_LIMIT
) -> torch.Tensor:
    """Features (S, T, d) with zero mean and unit variance over each song's beats, 0 in padding.

    Args:
        features: Any features per beat.
        beat_mask: bool (S, T), True for beats.
        limit: Values are clipped to this many deviations; None for no limit.
    """
    mask = beat_mask[..., None].float()
    count = mask.sum(1, keepdim=True).clamp(min=1)
    centred = (features - (features * mask).sum(1, keepdim=True) / count) * mask
    deviation = (centred.square().sum(1, keepdim=True) / count).sqrt()
    scaled = centred / deviation.clamp(min=1e-5)
    return scaled if limit is None else scaled.clamp(-limit, limit)


@dataclass(frozen=True)
class SongBatch:
    """Songs padded to one shape.

    Attributes:
        features: float32 (S, T, 121), raw (not standardised), 0 in padding.
        beat_mask: bool (S, T), True for beats.
        unit_id: int64 (S, T), the unit of a beat; U for padding.
        unit_mask: bool (S, U).
        unit_durations: float32 (S, U), s, 0 in padding.
        first_beat: int64 (S, U), first beat of a unit, 0 in padding.
        last_beat: int64 (S, U), last beat of a unit, 0 in padding.
        movable: bool (S, U), units that LOOP and REORDER may touch: all but the first and the last of a song, which
            own the lead-in and the final decay.
        phrase_start: float32 (S, U), probability that a phrase starts here.
        phase: float32 (S, U, 4), probabilities of the unit's position mod 4 in its phrase.
        cluster: int64 (S, U), material of the unit, -1 in padding.
        duration: float32 (S,), s.
        outlook: Costs of joins and costs-to-go (`editing.outlook`); only policies use it, other batches may lack it.
    """

    features: torch.Tensor
    beat_mask: torch.Tensor
    unit_id: torch.Tensor
    unit_mask: torch.Tensor
    unit_durations: torch.Tensor
    first_beat: torch.Tensor
    last_beat: torch.Tensor
    movable: torch.Tensor
    phrase_start: torch.Tensor
    phase: torch.Tensor
    cluster: torch.Tensor
    duration: torch.Tensor
    outlook: OutlookBatch | None = None

    @property
    def n_songs(self) -> int:
        """Number of songs."""
        return self.features.shape[0]

    @property
    def n_units(self) -> int:
        """Units of the longest song."""
        return self.unit_mask.shape[1]

    def to(self, device: torch.device | str) -> "SongBatch":
        """The same batch on `device`."""
        return self._with_each(lambda value: value.to(device))

    def select(self, index: torch.Tensor | Sequence[int]) -> "SongBatch":
        """The songs at `index`, in that order (repeats allowed)."""
        rows = torch.as_tensor(index, dtype=torch.int64, device=self.features.device)
        return self._with_each(lambda value: value.select(rows) if isinstance(value, OutlookBatch) else value[rows])

    def _with_each(self, change: Callable[[Any], Any]) -> "SongBatch":
        values = ((f.name, getattr(self, f.name)) for f in fields(self))
        return SongBatch(**{name: change(value) for name, value in values if value is not None})


def collate(songs: Sequence[Song]) -> SongBatch:
    """Pad `songs` to one batch."""
    if not songs:
        raise ParameterError("a batch needs at least one song")
    n_beats = max(song.grid.n_beats for song in songs)
    n_units = max(song.units.n_units for song in songs)

    def pad(rows: list[np.ndarray], length: int, fill: float, dtype: torch.dtype) -> torch.Tensor:
        out = torch.full((len(rows), length, *rows[0].shape[1:]), fill, dtype=dtype)
        for i, row in enumerate(rows):
            out[i, : len(row)] = torch.as_tensor(np.ascontiguousarray(row), dtype=dtype)
        return out

    def ones(counts: list[int], length: int) -> torch.Tensor:
        return torch.arange(length)[None] < torch.tensor(counts)[:, None]

    unit_counts = [song.units.n_units for song in songs]
    unit_mask = ones(unit_counts, n_units)
    movable = unit_mask.clone()
    movable[:, 0] = False
    movable[torch.arange(len(songs)), torch.tensor(unit_counts) - 1] = False
    return SongBatch(
        features=pad([song.features.values for song in songs], n_beats, 0.0, torch.float32),
        beat_mask=ones([song.grid.n_beats for song in songs], n_beats),
        unit_id=pad([song.units.unit_id for song in songs], n_beats, n_units, torch.int64),
        unit_mask=unit_mask,
        unit_durations=pad([song.unit_durations for song in songs], n_units, 0.0, torch.float32),
        first_beat=pad([song.units.first_beats for song in songs], n_units, 0, torch.int64),
        last_beat=pad([song.units.first_beats + song.units.lengths - 1 for song in songs], n_units, 0, torch.int64),
        movable=movable,
        phrase_start=pad([song.structure.phrase_start for song in songs], n_units, 0.0, torch.float32),
        phase=pad([song.structure.phase for song in songs], n_units, 0.0, torch.float32),
        cluster=pad([song.structure.cluster for song in songs], n_units, -1, torch.int64),
        duration=torch.tensor([song.duration for song in songs], dtype=torch.float32),
        outlook=stack_outlooks([outlook_of(song) for song in songs]),
    )


@dataclass(frozen=True)
class EditBatch:
    """Edits of the songs of a batch: the input of every reward and of a policy's log-probabilities.

    Attributes:
        songs: S songs.
        song_index: int64 (n,), the song each edit is of.
        actions: int64 (n, U), action ids per unit; padding units are ignored.
        target_ratio: float32 (n,), requested duration over the song's duration.
    """

    songs: SongBatch
    song_index: torch.Tensor
    actions: torch.Tensor
    target_ratio: torch.Tensor

    def __post_init__(self) -> None:
        """Check that the shapes of the three tensors fit each other and the songs."""
        n = len(self.song_index)
        if self.actions.shape != (n, self.songs.n_units) or self.target_ratio.shape != (n,):
            shape = (n, self.songs.n_units)
            raise ParameterError(
                f"{n} edits need actions {shape} and target_ratio {(n,)}; "
                f"got {tuple(self.actions.shape)} and {tuple(self.target_ratio.shape)}"
            )

    @property
    def unit_mask(self) -> torch.Tensor:
        """Real units of every edit's song, bool (n, U)."""
        return self.songs.unit_mask[self.song_index]

    def to(self, device: torch.device | str) -> "EditBatch":
        """The same edits on `device`."""
        return EditBatch(
            self.songs.to(device), self.song_index.to(device), self.actions.to(device), self.target_ratio.to(device)
        )


def stack_actions(unit_actions: Sequence[np.ndarray], n_units: int) -> torch.Tensor:
    """Action ids of several edits, each (n_units_i,), padded with CUT (1) to int64 (n, n_units).

    Examples:
        >>> stack_actions([np.array([0, 2, 0]), np.array([0, 0])], n_units=4)
        tensor([[0, 2, 0, 1],
                [0, 0, 1, 1]])
    """
    out = torch.ones((len(unit_actions), n_units), dtype=torch.int64)
    for i, row in enumerate(unit_actions):
        out[i, : len(row)] = torch.as_tensor(np.asarray(row, dtype=np.int64))
    return out
