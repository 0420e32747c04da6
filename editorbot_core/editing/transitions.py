"""Transitions of the played order and the joins among them, as tensors for rewards and policies.

Shapes: S songs, U units of the longest song, n edits.

A *join* is a place where playback leaves the order of the source: after unit `x` comes unit `e` and `e != x + 1`. It is
described by two *bounds*, instants between units: bound `k` is the start of unit `k`, and bound `n_units` is the end of
the song. Playback leaves the source at bound `x + 1` and enters it again at bound `e`.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch

from editorbot_core.editing.edits import ACTION_REPEATS, ACTION_SHIFTS, CUT


@dataclass(frozen=True)
class Transitions:
    """The transitions of n edits, in tensors whose shapes depend only on the shape of the input.

    Slots are the units in played order, cut units included; a slot is empty if its unit is cut or played last.

    Attributes:
        exit_bound: int64 (n, U), bound at which playback leaves the slot's unit: the unit + 1.
        entry_bound: int64 (n, U), bound at which it continues: the next unit played; undefined in empty slots.
        is_join: bool (n, U), True where the two differ; False in empty slots.
        repeats: int64 (n, U), times unit u is played, in the order of the source.
        first: int64 (n,), unit played first; 0 where nothing is played.
        last: int64 (n,), unit played last; 0 where nothing is played.
        any_played: bool (n,), whether the edit plays any unit.
    """

    exit_bound: torch.Tensor
    entry_bound: torch.Tensor
    is_join: torch.Tensor
    repeats: torch.Tensor
    first: torch.Tensor
    last: torch.Tensor
    any_played: torch.Tensor

    @property
    def extra_plays(self) -> torch.Tensor:
        """Joins of a unit with itself, made by LOOP actions, int64 (n, U), in the order of the source."""
        return (self.repeats - 1).clamp(min=0)

    @property
    def n_joins(self) -> torch.Tensor:
        """Joins of every edit, loops included, int64 (n,)."""
        return self.is_join.sum(1) + self.extra_plays.sum(1)


def transitions(actions: torch.Tensor, unit_mask: torch.Tensor) -> Transitions:
    """The joins of edits, without branching on values: the order of `edits.compile_actions`, loops not expanded.

    Args:
        actions: int64 (n, U), ids 0-8; ids of padding units are ignored.
        unit_mask: bool (n, U), False for padding.

    Examples:
        The middle two of four units are cut: one join, from bound 1 to bound 3.

        >>> from editorbot_core.editing.edits import KEEP
        >>> actions = torch.tensor([[KEEP, CUT, CUT, KEEP]])
        >>> moves = transitions(actions, torch.ones_like(actions, dtype=torch.bool))
        >>> moves.is_join, moves.n_joins
        (tensor([[ True, False, False, False]]), tensor([1]))
        >>> int(moves.exit_bound[0, 0]), int(moves.entry_bound[0, 0])
        (1, 3)
    """
    actions = actions.where(unit_mask, torch.full_like(actions, CUT))
    repeats = torch.tensor(ACTION_REPEATS, device=actions.device)[actions]
    shifts = torch.tensor(ACTION_SHIFTS, device=actions.device)[actions]
    n_units = actions.shape[1]
    place = torch.arange(n_units, device=actions.device).expand_as(actions)
    # Twice the key of `compile_actions`, and made unique by the place, so that any sort is a stable one.
    key = (2 * (place + shifts) + (shifts > 0)) * n_units + place
    by_key = key.argsort(dim=1)
    played = repeats.gather(1, by_key) > 0
    # The slot of the next played unit after each slot: a running minimum from the right over played slots.
    slots = torch.where(played, place, torch.full_like(place, n_units))
    next_or_self = slots.flip(1).cummin(1).values.flip(1)
    following = torch.cat([next_or_self[:, 1:], torch.full_like(place[:, :1], n_units)], dim=1)
    has_next = played & (following < n_units)
    entry = by_key.gather(1, following.clamp(max=n_units - 1))
    exit_bound = by_key + 1
    first_slot = next_or_self[:, :1]
    last_slot = torch.where(played, place, torch.full_like(place, -1)).amax(1, keepdim=True)
    return Transitions(
        exit_bound=exit_bound,
        entry_bound=entry,
        is_join=has_next & (entry != exit_bound),
        repeats=repeats,
        first=by_key.gather(1, first_slot.clamp(max=n_units - 1))[:, 0].where(last_slot[:, 0] >= 0, 0),
        last=by_key.gather(1, last_slot.clamp(min=0))[:, 0].where(last_slot[:, 0] >= 0, 0),
        any_played=last_slot[:, 0] >= 0,
    )


class JoinList(NamedTuple):
    """The joins of several edits, one after the other.

    Attributes:
        edit: int64 (j,), the edit each join belongs to.
        exit_bound: int64 (j,).
        entry_bound: int64 (j,).
        times: float32 (j,), how often the join is played (a unit that is played four times makes the same join thrice).
        is_loop: bool (j,), True where a unit is joined to itself.
    """

    edit: torch.Tensor
    exit_bound: torch.Tensor
    entry_bound: torch.Tensor
    times: torch.Tensor
    is_loop: torch.Tensor


def join_list(moves: Transitions) -> JoinList:
    """The joins that exist; costly features are computed on this list, since n x U slots hold few joins.

    Examples:
        A unit that is played three times is joined to itself twice:

        >>> from editorbot_core.editing.edits import KEEP, LOOP_3
        >>> actions = torch.tensor([[KEEP, LOOP_3, KEEP]])
        >>> joins = join_list(transitions(actions, torch.ones_like(actions, dtype=torch.bool)))
        >>> joins.exit_bound, joins.entry_bound, joins.times
        (tensor([2]), tensor([1]), tensor([2.]))
    """
    edit, slot = moves.is_join.nonzero(as_tuple=True)
    looped, unit = (moves.repeats > 1).nonzero(as_tuple=True)
    return JoinList(
        edit=torch.cat([edit, looped]),
        exit_bound=torch.cat([moves.exit_bound[edit, slot], unit + 1]),
        entry_bound=torch.cat([moves.entry_bound[edit, slot], unit]),
        times=torch.cat([torch.ones_like(edit), moves.repeats[looped, unit] - 1]).float(),
        is_loop=torch.cat([torch.zeros_like(edit, dtype=torch.bool), torch.ones_like(looped, dtype=torch.bool)]),
    )


def all_slots(moves: Transitions) -> JoinList:
    """Every possible join, two per unit and edit, with `times` 0 where there is none: fixed shapes, the same sums."""
    n, n_units = moves.repeats.shape
    unit = torch.arange(n_units, device=moves.repeats.device).expand(n, n_units)
    edit = torch.arange(n, device=moves.repeats.device)[:, None].expand(n, n_units)
    zeros = torch.zeros_like(moves.is_join)
    return JoinList(
        edit=torch.cat([edit, edit], 1).flatten(),
        exit_bound=torch.cat([moves.exit_bound, unit + 1], 1).flatten(),
        entry_bound=torch.cat([moves.entry_bound, unit], 1).flatten(),
        times=torch.cat([moves.is_join.float(), moves.extra_plays.float()], 1).flatten(),
        is_loop=torch.cat([zeros, ~zeros], 1).flatten(),
    )


def sum_by_edit(values: torch.Tensor, joins: JoinList, n_edits: int) -> torch.Tensor:
    """Sums over the joins of every edit: (j, c) to (n_edits, c), each join as often as it is played."""
    totals = torch.zeros((n_edits, values.shape[1]), dtype=values.dtype, device=values.device)
    return totals.index_add(0, joins.edit, values * joins.times[:, None])
