"""What is stored comes back, once, and nothing else does."""

import json
import sqlite3
import subprocess
import sys
import threading

import pytest

from editorbot_core.base.errors import ParameterError, StoreError
from editorbot_core.preferences.preference import utc_now
from editorbot_core.preferences.store import PreferenceStore
from tests.core.preferences.conftest import answer


@pytest.fixture
def store(tmp_path):
    with PreferenceStore(tmp_path / "answers.db") as opened:
        yield opened


def test_what_is_stored_comes_back(store):
    given = [answer("1"), answer("2", label=0.5, strength=0, source="bootstrap", round=3), answer("3", label=0)]
    assert store.add_many(given) == 3
    assert store.all() == given
    assert store.all(source="bootstrap") == given[1:2]
    assert store.counts() == {"person": 2, "bootstrap": 1}
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
