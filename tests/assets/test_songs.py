"""The parts of songs: made once, stored, by work."""

from pathlib import Path

from editorbot_core.base.files import read_json
from editorbot_core.songs.splits import assign_parts


def _works(n: int, start: int = 0) -> dict[str, str]:
    return {f"{i:016x}": f"work {i}" for i in range(start, start + n)}


def test_songs_that_come_or_go_move_no_other(tmp_path: Path) -> None:
    path = tmp_path / "parts.json"
    first = assign_parts(path, _works(10), eval_fraction=0.25, seed=0)
    assert set(first.values()) == {"train", "eval"}
    more = assign_parts(path, _works(30), eval_fraction=0.25, seed=0)
    assert {song: more[song] for song in first} == first
    without = assign_parts(path, _works(5, start=20), eval_fraction=0.25, seed=0)
    assert without == {song: more[song] for song in _works(5, start=20)}


def test_parts_are_not_made_again_with_other_settings(tmp_path: Path) -> None:
    path = tmp_path / "parts.json"
    first = assign_parts(path, _works(12), eval_fraction=0.25, seed=0)
    assert assign_parts(path, _works(12), eval_fraction=0.9, seed=7) == first
    assert read_json(path) == {f"work {int(song, 16)}": part for song, part in first.items()}


def test_another_recording_of_a_work_goes_where_the_work_is(tmp_path: Path) -> None:
    path = tmp_path / "parts.json"
    first = assign_parts(path, _works(8), eval_fraction=0.25, seed=0)
    covers = {f"{100 + i:016x}": f"work {i}" for i in range(8)}
    second = assign_parts(path, {**_works(8), **covers}, eval_fraction=0.25, seed=0)
    assert [second[f"{100 + i:016x}"] for i in range(8)] == [first[f"{i:016x}"] for i in range(8)]
