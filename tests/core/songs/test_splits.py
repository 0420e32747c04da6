"""A song never changes sides."""

from pathlib import Path

import pytest

from editorbot_core.base.errors import ParameterError
from editorbot_core.base.files import read_json
from editorbot_core.songs.splits import assign_parts, hold_out, split_songs

IDS = [f"{i:016x}" for i in range(400)]


def own_works(track_ids: list[str]) -> dict[str, str]:
    return {track_id: track_id for track_id in track_ids}


def test_the_split_is_stable() -> None:
    split = split_songs(own_works(IDS[:100]))
    assert split == split_songs(own_works(list(reversed(IDS[:100]))))
    larger = split_songs(own_works(IDS), known=split)
    assert all(larger[track_id] == side for track_id, side in split.items())
    assert split_songs(own_works(IDS), seed=1) != split_songs(own_works(IDS))


@pytest.mark.parametrize("n", [4, 24, 200])
def test_the_split_has_the_share_that_was_asked_for(n: int) -> None:
    sides = list(split_songs(own_works(IDS[:n]), eval_fraction=0.25).values())
    assert sides.count("eval") == n // 4


def test_recordings_of_one_work_share_a_side() -> None:
    works = {track_id: str(i // 3) for i, track_id in enumerate(IDS[:60])}
    split = split_songs(works)
    assert {split[track_id] for track_id in split} == {"train", "eval"}
    assert len({(work, split[track_id]) for track_id, work in works.items()}) == 20


@pytest.mark.parametrize("eval_fraction", [1e-9, 1 - 1e-9])
def test_both_sides_have_a_song(eval_fraction: float) -> None:
    sides = sorted(split_songs(own_works(IDS[:2]), eval_fraction=eval_fraction).values())
    assert sides == ["eval", "train"]


def test_a_split_needs_two_songs() -> None:
    with pytest.raises(ParameterError, match="at least 2 songs; got 1"):
        split_songs({"a": "w", "b": "w"})
    with pytest.raises(ParameterError, match="between 0 and 1"):
        split_songs(own_works(IDS), eval_fraction=1.0)


def test_songs_are_held_out_by_their_name_alone():
    names = [f"song {i}" for i in range(20)]
    held = hold_out(names, fraction=0.2, seed=0)
    assert len(held) == 4 and hold_out(reversed(names), fraction=0.2, seed=0) == held
    assert hold_out(names, fraction=0.2, seed=1) != held
    assert len(hold_out(names[:2], fraction=0.01, seed=0)) == len(hold_out(names[:2], fraction=0.9, seed=0)) == 1
    with pytest.raises(ParameterError, match="at least 2 songs"):
        hold_out(["one"], fraction=0.2, seed=0)


def test_parts_are_written_only_if_they_are_new(tmp_path: Path) -> None:
    path = tmp_path / "parts.json"
    assign_parts(path, own_works(IDS[:4]), eval_fraction=0.25, seed=0)
    written_at = path.stat().st_mtime_ns
    assign_parts(path, own_works(IDS[:3]), eval_fraction=0.25, seed=0)
    assert path.stat().st_mtime_ns == written_at


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
