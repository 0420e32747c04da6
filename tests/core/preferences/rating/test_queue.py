"""Which pair is asked next."""

from dataclasses import replace

import pytest

from editorbot_core.base.errors import FormatError
from editorbot_core.preferences.pair_files import pairs_path, write_pairs
from editorbot_core.preferences.preference import Preference
from editorbot_core.preferences.rating.queue import PairQueue, comparison_key, edit_key
from tests.core.preferences.conftest import make_pairs, write_song


def test_a_question_is_the_same_whichever_edit_comes_first(tmp_path):
    first, second, _ = (pair.a for pair in make_pairs(write_song(tmp_path), 3))
    assert comparison_key(first, second) == comparison_key(second, first)
    assert comparison_key(first, second) != comparison_key(first, replace(second, target_duration_s=7.0))
    assert edit_key(first) != edit_key(second)
    assert edit_key(first) == edit_key(first.with_scores(quality=1.0))


def test_most_informative_first_and_nobody_is_asked_twice(page):
    write_pairs(pairs_path(page.home), page.pairs, priorities=[1, 5, 1])
    queue = PairQueue(pairs_path(page.home))
    queue.refresh()
    assert [waiting.pair for waiting in queue.waiting("ana")] == [page.pairs[i] for i in (1, 0, 2)]

    answered = page.pairs[1]
    preference = Preference(
        # Another run may name and order the same two edits in another way.
        answered.b.with_scores(quality=1.0), answered.a, 1.0, 2, 1.0, "ana", "person", "id", "2026-01-01T00:00:00+00:00"
    )  # fmt: skip
    queue.note_answer(replace(preference, source="bootstrap"))
    assert len(queue.waiting("ana")) == 3
    queue.note_answer(preference)
    queue.note_answer(preference)
    queue.skip("ana", queue.waiting("ana")[0].key)
    assert [waiting.pair for waiting in queue.waiting("ana")] == [page.pairs[2]]
    assert len(queue.waiting("ben")) == 3
    assert (queue.n_answers("ana"), queue.n_answers("ben"), queue.n_answers()) == (1, 0, 1)


def test_a_replaced_file_is_noticed_and_a_damaged_one_changes_nothing(page):
    path = pairs_path(page.home)
    queue = PairQueue(path)
    queue.refresh()
    shown = queue.waiting("ana")[0]
    queue.show(shown.key)
    write_pairs(path, page.pairs[2:])
    queue.refresh()
    assert [waiting.pair for waiting in queue.waiting("ana")] == page.pairs[2:]
    assert queue.get(shown.key) == shown.pair
    path.write_text("{")
    with pytest.raises(FormatError):
        queue.refresh()
    assert len(queue) == 1
    path.unlink()
    queue.refresh()
    assert len(queue) == 0
