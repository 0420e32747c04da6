"""A song never changes sides."""

from pathlib import Path

import pytest

from editorbot_core.base.errors import ParameterError
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


def test_a_work_that_was_away_comes_back_to_its_part(tmp_path: Path) -> None:
    path, works = tmp_path / "parts.json", own_works(IDS[:12])
    first = assign_parts(path, works, eval_fraction=0.25, seed=0)
    fewer = {track_id: work for track_id, work in works.items() if first[track_id] == "train"}
    assert set(assign_parts(path, {**fewer, IDS[12]: IDS[12]}, eval_fraction=0.25, seed=0)) == {*fewer, IDS[12]}
    again = assign_parts(path, works, eval_fraction=0.25, seed=1)
    assert again == first


def test_parts_are_written_only_if_they_are_new(tmp_path: Path) -> None:
    path = tmp_path / "parts.json"
    assign_parts(path, own_works(IDS[:4]), eval_fraction=0.25, seed=0)
    written_at = path.stat().st_mtime_ns
    assign_parts(path, own_works(IDS[:3]), eval_fraction=0.25, seed=0)
    assert path.stat().st_mtime_ns == written_at
