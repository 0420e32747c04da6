"""Transitions are those of the order in which an edit is played."""

from itertools import pairwise

import torch

from editorbot_core.editing.edits import CUT, KEEP, LOOP_2, LOOP_4, N_ACTIONS, REORDER_1, compile_actions
from editorbot_core.editing.transitions import all_slots, join_list, sum_by_edit, transitions


def joins_by_playing(actions):
    """The joins of one edit, read off the played order: (exit bound, entry bound) as often as heard."""
    order = compile_actions(actions[None], torch.ones_like(actions[None], dtype=torch.bool)).units[0].tolist()
    return sorted((x + 1, e) for x, e in pairwise(order) if e != x + 1), order


def test_transitions_are_those_of_the_played_order():
    generator = torch.Generator().manual_seed(0)
    actions = torch.randint(0, N_ACTIONS, (300, 9), generator=generator)
    actions = actions * (torch.rand(actions.shape, generator=generator) < 0.6)
    actions[:20] = CUT
    mask = torch.ones_like(actions, dtype=torch.bool)
    moves = transitions(actions, mask)
    assert not moves.any_played[:20].any()
    for joins in (join_list(moves), all_slots(moves)):
        for i in range(20, 300):
            expected, order = joins_by_playing(actions[i])
            mine = (joins.edit == i).nonzero()[:, 0].tolist()
            found = [
                (int(joins.exit_bound[j]), int(joins.entry_bound[j])) for j in mine for _ in range(int(joins.times[j]))
            ]
            assert sorted(found) == expected
            assert (int(moves.first[i]), int(moves.last[i])) == (order[0], order[-1])
            assert int(moves.n_joins[i]) == len(expected)
    values = torch.rand((len(join_list(moves).edit), 2), generator=generator)
    assert sum_by_edit(values, join_list(moves), 300).shape == (300, 2)


def test_padding_units_change_no_transition():
    actions = torch.tensor([[KEEP, CUT, LOOP_2, KEEP, REORDER_1, LOOP_4]])
    mask = torch.tensor([[True, True, True, True, False, False]])
    padded, alone = transitions(actions, mask), transitions(actions[:, :4], mask[:, :4])
    assert joins_by_playing(actions[0, :4])[0] == [(1, 2), (3, 2)]
    assert int(padded.n_joins) == int(alone.n_joins) == 2
    assert (int(padded.last), int(padded.first)) == (3, 0)
