from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from editorbot_core.analysis.beats.grid import BeatGrid, Units
from editorbot_core.audio.segments import Segment
from editorbot_core.base.errors import ParameterError
from editorbot_core.editing.edits import (
    ACTION_REPEATS,
    CUT,
    KEEP,
    LOOP_2,
    LOOP_3,
    LOOP_4,
    N_ACTIONS,
    REORDER_1,
    REORDER_2,
    REORDER_4,
    EditDecisionList,
    beat_actions_to_units,
    compile_actions,
    order_to_segments,
    played_units,
    unit_actions_to_beats,
)


def make_grid(n_bars=4, *, pickup=0, beat_s=0.5):
    n = 4 * n_bars + pickup
    positions = (np.arange(n) - pickup) % 4 + 1
    return BeatGrid(0.3 + beat_s * np.arange(n), positions, 0.3 + beat_s * n + 1.0)


def reference_order(actions):
    """The definition, unit by unit: repeats, then a stable sort by u, or by u + k + 0.5 for REORDER +k."""
    played = []
    for u, action in enumerate(actions):
        shift = action - REORDER_1 + 1 if action >= REORDER_1 else None
        repeats = {CUT: 0, LOOP_2: 2, LOOP_3: 3, LOOP_4: 4}.get(action, 1)
        played += [(u + shift + 0.5 if shift else u, u)] * repeats
    return [u for _, u in sorted(played, key=lambda entry: entry[0])]


actions_lists = st.lists(st.integers(0, N_ACTIONS - 1), min_size=1, max_size=24)


@given(actions_lists)
@settings(max_examples=200, deadline=None)
def test_the_played_order_is_the_one_that_is_defined(actions):
    assert played_units(actions).tolist() == reference_order(actions)


@given(st.lists(actions_lists, min_size=1, max_size=5))
@settings(max_examples=50, deadline=None)
def test_a_batch_compiles_as_its_rows_do_alone(rows):
    longest = max(map(len, rows))
    # Padding holds an id that would be refused in a real unit.
    actions = torch.tensor([row + [99] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[True] * len(row) + [False] * (longest - len(row)) for row in rows])
    order = compile_actions(actions, mask)
    for i, row in enumerate(rows):
        assert order.units[i, : order.lengths[i]].tolist() == reference_order(row)
        assert (order.units[i, order.lengths[i] :] == -1).all()


@given(actions_lists.filter(lambda row: any(ACTION_REPEATS[a] for a in row)), st.integers(0, 3))
@settings(max_examples=100, deadline=None)
def test_segments_use_only_the_source_and_add_up(actions, pickup):
    n_bars = len(actions) - (pickup > 0)
    if n_bars < 1:
        return
    grid = make_grid(n_bars, pickup=pickup)
    units = Units.bars(grid)
    edl = EditDecisionList.from_unit_actions(np.array(actions), grid=grid, units=units)
    durations = units.durations(grid)
    expected = sum(ACTION_REPEATS[a] * d for a, d in zip(actions, durations, strict=True))
    assert edl.duration_s == pytest.approx(expected)
    assert edl.duration_s == pytest.approx(sum(s.end_s - s.start_s for s in edl.segments))
    assert all(0 <= s.start_s < s.end_s <= grid.duration for s in edl.segments)
    edges = units.bounds(grid)
    assert all(s.start_s in edges and s.end_s in edges for s in edl.segments)


def test_worked_examples_of_every_action():
    assert played_units([KEEP, CUT, KEEP]).tolist() == [0, 2]
    assert played_units([KEEP, LOOP_2, KEEP]).tolist() == [0, 1, 1, 2]
    assert played_units([LOOP_3, LOOP_4]).tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert played_units([REORDER_1, KEEP, KEEP]).tolist() == [1, 0, 2]
    assert played_units([REORDER_2, KEEP, KEEP, KEEP]).tolist() == [1, 2, 0, 3]
    # Both come after unit 2; the one that is earlier in the song is heard first.
    assert played_units([REORDER_2, REORDER_1, KEEP, KEEP]).tolist() == [2, 0, 1, 3]
    # Beyond the last unit: after everything.
    assert played_units([REORDER_4, KEEP, LOOP_2]).tolist() == [1, 2, 2, 0]
    assert played_units([CUT, CUT]).tolist() == []


def test_keeping_everything_is_one_segment_from_the_first_sample_to_the_last():
    grid = make_grid(5, pickup=2)
    edl = EditDecisionList.keep_all(grid)
    assert edl.segments == (Segment(0.0, grid.duration),)
    assert edl.duration_s == edl.target_duration_s == grid.duration


def test_units_that_follow_each_other_join_into_one_segment():
    bounds = np.array([0.0, 1.0, 2.5, 4.0, 6.0])
    segments = order_to_segments(np.array([0, 1, 3, 3, 0]), bounds)
    assert [(s.start_s, s.end_s) for s in segments] == [(0.0, 2.5), (4.0, 6.0), (4.0, 6.0), (0.0, 1.0)]
    assert order_to_segments(np.array([], dtype=np.int64), bounds) == ()


def test_unit_bounds_tile_the_file():
    grid = make_grid(3, pickup=1)
    units = Units.bars(grid)
    assert units.n_units == 4
    assert units.lengths.tolist() == [1, 4, 4, 4]
    assert units.first_beats.tolist() == [0, 1, 5, 9]
    bounds = units.bounds(grid)
    assert (bounds[0], bounds[-1]) == (0.0, grid.duration)
    np.testing.assert_allclose(bounds[1:-1], grid.times[[1, 5, 9]])
    assert units.durations(grid).sum() == pytest.approx(grid.duration)


@given(st.integers(1, 8), st.integers(0, 3), st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_actions_per_unit_and_per_beat_convert_exactly(n_bars, pickup, random):
    units = Units.bars(make_grid(n_bars, pickup=pickup))
    actions = np.array([random.randrange(N_ACTIONS) for _ in range(units.n_units)])
    np.testing.assert_array_equal(beat_actions_to_units(unit_actions_to_beats(actions, units), units), actions)


def test_beats_of_one_unit_that_disagree_are_refused():
    units = Units.bars(make_grid(2))
    actions = np.zeros(8, dtype=np.int64)
    actions[2] = CUT
    with pytest.raises(ParameterError, match="beat 2 has action 1"):
        beat_actions_to_units(actions, units)
    with pytest.raises(ParameterError, match="2 units"):
        unit_actions_to_beats(np.zeros(3), units)


@pytest.mark.parametrize("bad", [-1, 9, 100])
def test_unknown_action_ids_are_refused(bad):
    with pytest.raises(ParameterError, match=r"0-8.*got \["):
        compile_actions(torch.tensor([[0, bad]]), torch.ones((1, 2), dtype=torch.bool))


@pytest.mark.parametrize("ids", [[], [1, 2], [0, 2], [0, 1, 0]])
def test_unit_ids_that_do_not_count_up_are_refused(ids):
    with pytest.raises(ParameterError, match="rise by 0 or 1"):
        Units(np.array(ids, dtype=np.int64))


def test_an_edit_of_nothing_is_refused():
    grid = make_grid(2)
    with pytest.raises(ParameterError, match="at least one unit"):
        EditDecisionList.from_unit_actions(np.array([CUT, CUT]), grid=grid, units=Units.bars(grid))


def test_edits_are_equal_by_content():
    grid = make_grid(3)
    units = Units.bars(grid)
    first, same, other = (
        EditDecisionList.from_unit_actions(np.array(a), grid=grid, units=units)
        for a in ([KEEP, CUT, KEEP], [KEEP, CUT, KEEP], [KEEP, KEEP, KEEP])
    )
    assert first == same
    assert first != other
    assert first != first.with_scores(quality=1.0)
    assert first != replace(first, segments=(Segment(0.0, 1.0),))
    assert first.with_scores(a=1.0).with_scores(b=2.0).scores == {"a": 1.0, "b": 2.0}
