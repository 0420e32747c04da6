import json
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest

from editorbot_core.analysis.beats.grid import BeatGrid, Units
from editorbot_core.base.errors import ParameterError, StoreError
from editorbot_core.editing.edits import CUT, KEEP, EditDecisionList
from editorbot_core.preferences.preference import EditPair, Preference, utc_now
from editorbot_core.preferences.store import PreferenceStore

GRID = BeatGrid(times=0.5 * np.arange(16), positions=np.arange(16) % 4 + 1, duration=8.0)
UNITS = Units.bars(GRID)


def edl(*actions, track_id="song", target_s=4.0):
    return EditDecisionList.from_unit_actions(
        np.array(actions), grid=GRID, units=UNITS, track_id=track_id, target_duration_s=target_s
    )


A, B = edl(KEEP, CUT, CUT, KEEP), edl(KEEP, KEEP, CUT, CUT)


def answer(answer_id="1", **changes):
    fields = {
        "a": A,
        "b": B,
        "label": 1.0,
        "strength": 2,
        "confidence": 0.75,
        "rater": "ann",
        "source": "person",
        "answer_id": answer_id,
        "created_at": "2026-01-01T12:00:00+00:00",
    }
    return Preference(**(fields | changes))


@pytest.fixture
def store(tmp_path):
    with PreferenceStore(tmp_path / "answers.db") as opened:
        yield opened


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


def test_what_is_stored_comes_back(store):
    given = [answer("1"), answer("2", label=0.5, strength=0, source="bootstrap", round=3), answer("3", label=0)]
    assert store.add_many(given) == 3
    assert store.all() == given
    assert store.all(source="bootstrap") == given[1:2]
    assert store.counts() == {"person": 2, "bootstrap": 1}
    assert store.answer_ids() == {"1", "2", "3"} and store.answer_ids(source="bootstrap") == {"2"}
    assert store.count() == 3 and store.count("person") == 2


def test_an_answer_sent_again_is_stored_once(store):
    assert store.add(answer()) is True
    assert store.add(answer(created_at=utc_now())) is False
    assert store.count() == 1
    assert store.all()[0].created_at == answer().created_at


def test_another_answer_with_the_same_id_is_refused_and_nothing_is_stored(store):
    store.add(answer())
    with pytest.raises(StoreError, match="stored with other content"):
        store.add_many([answer("2"), answer("1", label=0)])
    assert store.all() == [answer()]


def test_streaming_reads_more_than_one_page_in_order(store):
    given = [answer(str(i)) for i in range(450)]
    store.add_many(given)
    assert [p.answer_id for p in store] == [str(i) for i in range(450)]


def test_the_digest_depends_on_the_answers_alone(tmp_path):
    with PreferenceStore(tmp_path / "one.db") as one, PreferenceStore(tmp_path / "two.db") as two:
        empty = one.digest()
        one.add_many([answer("1"), answer("2")])
        two.add(answer("2", created_at=utc_now()))
        two.add(answer("1"))
        assert one.digest() == two.digest() != empty
        two.add(answer("3"))
        assert one.digest() != two.digest()


def test_a_store_is_opened_by_path_and_by_address(tmp_path):
    with PreferenceStore(tmp_path / "a b" / "answers.db") as store:
        store.add(answer())
    with PreferenceStore(f"sqlite:///{tmp_path}/a b/answers.db") as store:
        assert store.count() == 1


def test_sqlite_is_durable(store):
    with store._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2


def test_a_writer_takes_the_lock_before_it_writes_and_a_reader_does_not(tmp_path, store):
    other = sqlite3.connect(tmp_path / "answers.db", timeout=0, isolation_level=None)
    with store._engine.begin(), pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("BEGIN IMMEDIATE")
    other.execute("BEGIN IMMEDIATE")
    assert store.count() == 0
    other.execute("ROLLBACK")
    other.close()


@pytest.mark.parametrize("address", ["mysql://host/db", "sqlite://", "sqlite:///:memory:"])
def test_other_databases_are_refused(address):
    with pytest.raises(ParameterError):
        PreferenceStore(address)


def test_a_file_that_is_no_database_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "notes.db"
    path.write_bytes(b"not a database, " * 100)
    with pytest.raises(StoreError, match=r"notes\.db: cannot open preferences"):
        PreferenceStore(path)


def test_tables_of_a_newer_version_are_refused(tmp_path):
    path = tmp_path / "answers.db"
    PreferenceStore(path).close()
    connection = sqlite3.connect(path)
    connection.execute("UPDATE editorbot_schema SET version = 2")
    connection.commit()
    connection.close()
    with pytest.raises(StoreError, match="tables of version 2"):
        PreferenceStore(path)


def test_an_answer_changed_behind_the_stores_back_is_not_trusted(tmp_path, store):
    store.add(answer())
    connection = sqlite3.connect(tmp_path / "answers.db")
    connection.execute("UPDATE preferences SET label = 0.0")
    connection.commit()
    connection.close()
    with pytest.raises(StoreError, match="damaged"):
        store.all()


def test_stored_edits_are_json(tmp_path, store):
    store.add(answer())
    connection = sqlite3.connect(tmp_path / "answers.db")
    text = connection.execute("SELECT a FROM preferences").fetchone()[0]
    connection.close()
    assert json.loads(text)["track_id"] == "song"


def test_threads_write_side_by_side(store):
    def write(name):
        for i in range(10):
            store.add(answer(f"{name}-{i}"))

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.count() == 40


_OPEN = "import sys; from editorbot_core.preferences.store import PreferenceStore; PreferenceStore(sys.argv[1]).close()"


@pytest.mark.slow
def test_processes_make_the_tables_once(tmp_path):
    path = tmp_path / "answers.db"
    running = [subprocess.Popen([sys.executable, "-c", _OPEN, str(path)], stderr=subprocess.PIPE) for _ in range(4)]
    assert [(p.communicate()[1], p.returncode) for p in running] == [(b"", 0)] * 4


def test_answers_are_frozen():
    with pytest.raises(AttributeError):
        answer().label = 0.0  # type: ignore[misc]
    assert replace(answer(), label=0).label == 0.0
