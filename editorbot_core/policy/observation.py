"""What the policy observes: the song, the edit so far, and the cost of what may follow."""

import math
from typing import NamedTuple

import torch

from editorbot_core.analysis.features.columns import columns_of
from editorbot_core.base.errors import ParameterError
from editorbot_core.editing.batches import SongBatch
from editorbot_core.editing.outlook import MARGIN_STEPS, UNREACHABLE
from editorbot_core.policy.environment import Episodes, EpisodeState


class Ways(NamedTuple):
    """Cost of the cheapest way on if the unit is kept, and if it is cut; float32, (n,) or (n, U) like the state."""

    keep: torch.Tensor
    cut: torch.Tensor


def ways_on(episodes: "Episodes", state: "EpisodeState") -> Ways:
    """What keeping and what cutting costs at the unit of `state`, or at all units; equal to the last bit either way.

    Args:
        episodes: n episodes.
        state: Before the unit.

    Raises:
        ParameterError: If the songs of the episodes have no outlook.
    """
    table, song, at = episodes.songs.outlook, episodes.song_index, state.at
    if table is None:
        raise ParameterError("a policy needs songs with their outlook, as collate() makes them")
    n_units = episodes.n_units
    device = song.device
    # When every unit and the end of the song begin.
    begins_us = episodes.remaining_us[:, :1] - torch.nn.functional.pad(episodes.remaining_us, (0, 1))
    alone = isinstance(at, int)
    unit = torch.arange(n_units, device=device)[at].expand(state.played_us.shape)
    row = song if alone else song[:, None].expand(unit.shape)
    expected = (state.exit_unit + 1).clamp(max=n_units - 1)
    target_us = episodes.target_us if alone else episodes.target_us[:, None]
    surplus_us = episodes.remaining_us[:, at] - (target_us - state.played_us)
    step_us = table.step_us[row]

    def look_up(costs: torch.Tensor, songs: torch.Tensor, units: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
        found = costs[songs, units, steps.clamp(0, costs.shape[2] - 1)].float()
        return found.masked_fill(steps < 0, UNREACHABLE)

    steps = (surplus_us / step_us).round().long() + MARGIN_STEPS
    keep = table.join[row, expected, unit] + look_up(table.after, row, unit, steps)
    cut = look_up(table.leaving, row, unit, steps)

    # Cuts that go on: the same exit for all of them, so each of them is looked into once.
    going_on = expected != unit
    moment_us = surplus_us + (begins_us[:, at] if alone else begins_us[:, :-1])
    if alone:
        first = going_on
        excursion = torch.arange(len(song), device=device)
    else:
        same = (expected[:, 1:] == expected[:, :-1]) & (moment_us[:, 1:] == moment_us[:, :-1]) & going_on[:, :-1]
        first = going_on & ~torch.nn.functional.pad(same, (1, 0))
        excursion = first.flatten().cumsum(0).view(first.shape) - 1
    if alone or bool(first.any()):
        chosen = slice(None) if alone else first
        songs = row[chosen]
        episode = torch.arange(len(song), device=device)
        own_begins = begins_us[episode if alone else episode[:, None].expand(first.shape)[first]]
        entries = torch.arange(n_units + 1, device=device).expand(len(songs), -1)
        later = ((moment_us[chosen][:, None] - own_begins) / step_us[chosen][:, None]).round().long() + MARGIN_STEPS
        costs = table.join[songs, expected[chosen]] + look_up(table.after, songs[:, None], entries, later)
        if alone:
            least = costs.masked_fill(entries <= unit[:, None], UNREACHABLE).amin(1)
            cut = torch.where(going_on, least, cut)
        else:
            least = costs.flip(1).cummin(1).values.flip(1)
            cut = torch.where(going_on, least[excursion.clamp(min=0), unit + 1], cut)
    return Ways(keep.clamp(max=UNREACHABLE), cut.clamp(max=UNREACHABLE))


# What two beats are compared by at a join.
JOIN_GROUPS = (
    columns_of("spectral shape", "contrast", "MFCC"),
    columns_of("chroma"),
    columns_of("level", "stem energy", "stem share"),
)
N_PAIR = 2 * len(JOIN_GROUPS) + 4 + 3
N_UNIT = 12
N_STATE = 23


def rows_at(table: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Rows `index` (S, U) of (S, T, width)."""
    return table.gather(1, index[..., None].expand(*index.shape, table.shape[2]))


def unit_features(songs: SongBatch) -> torch.Tensor:
    """What is known of a unit before anything is decided, float32 (S, U, 12)."""
    mask = songs.unit_mask
    n_units = mask.sum(1, keepdim=True)
    place = torch.arange(songs.n_units, device=mask.device)
    position = place / (n_units - 1).clamp(min=1)
    same = (songs.cluster[:, :, None] == songs.cluster[:, None]) & mask[:, :, None] & mask[:, None]
    size = same.sum(2)
    to_come = (same & (place >= place[:, None])).sum(2)
    median = songs.unit_durations.masked_fill(~mask, torch.nan).nanmedian(1, keepdim=True).values
    columns = [
        position,
        1 - position,
        (place == 0).expand_as(mask),
        place == n_units - 1,
        songs.phrase_start,
        *songs.phase.unbind(2),
        to_come / size.clamp(min=1),
        size / n_units,
        (songs.unit_durations / median).clamp(max=4.0).clamp(min=0.05).log(),
    ]
    return torch.stack([column.float() for column in columns], dim=2) * mask[..., None]


def pair_features(songs: SongBatch, standardised: torch.Tensor) -> torch.Tensor:
    """Every unit (dim 1) against every expected unit (dim 2), float32 (S, U, U, n_pair)."""
    first = songs.first_beat
    before = (first - 1).clamp(min=0)
    columns = []
    for group in JOIN_GROUPS:
        values = standardised[..., group] / math.sqrt(len(group))
        for beat in (first, before):
            rows = rows_at(values, beat)
            columns.append(torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist"))
    phase = songs.phase[:, :, None] * songs.phase[:, None]
    columns += list(phase.unbind(3))
    columns.append(phase.sum(3))
    columns.append(songs.phrase_start[:, :, None] * songs.phrase_start[:, None])
    columns.append((songs.cluster[:, :, None] == songs.cluster[:, None]).float())
    return torch.stack(columns, dim=3)


def finish_unit(episodes: Episodes, state: EpisodeState, unit: torch.Tensor) -> torch.Tensor:
    """The unit from which playing to the end of the song comes nearest to the target, int64 like the state.

    A cut up to there finishes the edit with one join; it is this unit itself when the song only has to play on.
    """
    alone = isinstance(state.at, int)
    last = episodes.unit_mask.sum(1) - 1
    place = episodes.remaining_us[:, 0] - episodes.target_us
    wanted = (place if alone else place[:, None]) + state.played_us
    nearest = torch.searchsorted(episodes.nearer_us, wanted[:, None] if alone else wanted, right=True) - 1
    nearest = nearest[:, 0] if alone else nearest
    return torch.maximum(torch.minimum(nearest, last if alone else last[:, None]), unit)


def state_features(episodes: Episodes, state: EpisodeState, unit: torch.Tensor, finish: torch.Tensor) -> torch.Tensor:
    """What the decisions so far amount to, float32 (..., 21)."""
    at = state.at

    def wide(x: torch.Tensor) -> torch.Tensor:
        return x if isinstance(at, int) else x[:, None]

    target = wide(episodes.target_us.float())
    played = state.played_us.float()
    remaining = episodes.remaining_us[:, at].float()
    missing = target - played
    surplus = remaining - missing
    surplus_units = surplus / wide(episodes.median_us.float())
    turn = surplus_units * (math.pi / 2)
    skipped = (unit - state.exit_unit - 1).float()
    heard = state.heard.float()
    # Room for this unit beside the end of the song, and whether keeping it would cost the end.
    room = episodes.high_us[:, at, 1] - state.played_us - episodes.durations_us[:, at]
    columns = [
        wide(episodes.target_ratio).expand_as(played),
        (played / target).clamp(max=2.0),
        (missing / target).clamp(min=-1.0),
        (remaining / target).clamp(max=3.0),
        (missing / remaining.clamp(min=1.0)).clamp(-1.0, 3.0),
        (surplus / target).clamp(-1.0, 3.0),
        (surplus_units / 8).clamp(-2.0, 2.0),
        (surplus.abs() <= wide(episodes.tolerance_us)).float(),
        turn.sin(),
        turn.cos(),
        skipped.log1p(),
        (skipped > 0).float(),
        state.since_join.float().log1p(),
        state.joins.float().log1p(),
        heard / episodes.cluster_size[:, at],
        (heard == 0).float(),
        (state.exit_unit < 0).float(),
        (finish - unit).float().log1p(),
        (finish == unit).float(),
        (room / wide(episodes.median_us)).clamp(-2.0, 4.0),
        (room < 0).float(),
    ]
    return torch.stack(columns, dim=-1)
