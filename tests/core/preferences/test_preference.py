"""A preference is symmetric, frozen, and about two edits of one song and target."""

from dataclasses import replace

import pytest

from editorbot_core.base.errors import ParameterError
from editorbot_core.editing.edits import CUT, KEEP
from editorbot_core.preferences.preference import EditPair
from tests.core.preferences.conftest import A, B, answer, edl


def test_swapping_the_sides_twice_changes_nothing():
    assert answer().swapped().swapped() == answer()
    assert answer().swapped().chosen == answer().chosen


def test_chosen_and_rejected_follow_the_label():
    assert answer(label=1.0).chosen is A and answer(label=1.0).rejected is B
    assert answer(label=0).chosen is B and answer(label=0).rejected is A
    with pytest.raises(ParameterError, match="tie"):
        _ = answer(label=0.5).chosen


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": 0.7}, "label must be 1"),
        ({"label": True}, "label must be 1"),
        ({"label": float("nan")}, "label must be 1"),
        ({"strength": 4}, r"strength must be a whole number in \[0, 3\]"),
        ({"strength": 1.5}, "strength must be a whole number"),
        ({"confidence": 1.1}, r"confidence must be in \[0, 1\]"),
        ({"confidence": float("nan")}, "confidence must be in"),
        ({"source": "people"}, "source must be one of person, bootstrap"),
        ({"rater": ""}, "rater must be 1-200"),
        ({"answer_id": "a\nb"}, "answer_id must be 1-200"),
        ({"created_at": "yesterday"}, "created_at must be ISO 8601"),
        ({"created_at": "2026-01-01T12:00:00"}, "created_at must be UTC"),
        ({"created_at": "2026-01-01T12:00:00+02:00"}, "created_at must be UTC"),
        ({"b": edl(KEEP, KEEP, CUT, CUT, track_id="other")}, "of one song"),
        ({"b": edl(KEEP, KEEP, CUT, CUT, target_s=5.0)}, "one target"),
        ({"round": -1}, "round must be"),
    ],
)
def test_unusable_answers_are_refused(changes, message):
    with pytest.raises(ParameterError, match=message):
        answer(**changes)


def test_a_pair_is_named_by_what_is_compared():
    pair = EditPair.of(A, B, origin="dp~random")
    assert pair.pair_id == EditPair.of(A, B, origin="elsewhere").pair_id
    assert pair.pair_id != EditPair.of(B, A, origin="dp~random").pair_id
    with pytest.raises(ParameterError, match="of one song"):
        EditPair.of(A, edl(KEEP, KEEP, CUT, CUT, track_id="other"), origin="x")


def test_answers_are_frozen():
    with pytest.raises(AttributeError):
        answer().label = 0.0  # type: ignore[misc]
    assert replace(answer(), label=0).label == 0.0
