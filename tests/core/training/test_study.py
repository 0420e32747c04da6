"""The study judges on songs that nothing was learned from, and writes its tables."""

from dataclasses import replace

import pandas as pd
import pytest

from editorbot_core.base.errors import ParameterError
from editorbot_core.training.study import Study, run_study


def test_a_study_never_judges_on_what_it_learned_from(songs, config, tmp_path):
    with pytest.raises(ParameterError, match="1 works are in both"):
        run_study(songs[:4], songs[3:], config=config, seeds=[0], n_rounds=1, ratios=[0.5], output=tmp_path)


def test_a_study_writes_its_tables(songs, config, tmp_path):
    study = run_study(songs[:4], songs[4:], config=config, seeds=[0, 1], n_rounds=1, ratios=[0.5], output=tmp_path)
    text = (tmp_path / "study.md").read_text()
    assert text == study.markdown()
    for name in ("dp_bars", "search_acoustic", "warm_start", "ppo", "guided_search", "2 seeds"):
        assert name in text
    assert {path.name for path in (tmp_path / "seed1").iterdir() if path.suffix != ".sha256"} == {
        *("policy.pt", "warm_start.pt", "reward.pt", "learned.json")
    }
    saved = (tmp_path / "seed1" / "policy.pt").stat().st_mtime_ns
    again = run_study(songs[:4], songs[4:], config=config, seeds=[0, 1], n_rounds=1, ratios=[0.5], output=tmp_path)
    assert (tmp_path / "seed1" / "policy.pt").stat().st_mtime_ns == saved
    pd.testing.assert_frame_equal(again.rows, study.rows)


def rows(values, seeds):
    names = list(Study.__dataclass_fields__)
    assert names[0] == "rows"
    return [
        {"track_id": song, "target_ratio": 0.5, "editor": editor, "seed": seed, "quality": quality}
        for editor, by_song in values.items()
        for seed in ([-1] if editor == "dp_bars" else seeds)
        for song, quality in by_song.items()
    ]


def test_wins_count_songs_and_ties_half():
    values = {
        "dp_bars": {"a": 50.0, "b": 50.0, "c": 50.0, "d": 50.0},
        "ppo": {"a": 60.0, "b": 50.0, "c": 40.0, "d": 51.0},
    }
    study = Study(pd.DataFrame(rows(values, [0, 1])), [{}, {}], 1, [1, 1])
    share, low, high, n_songs = study.wins("ppo", "dp_bars", 0.5)
    assert share == pytest.approx(2.5 / 4) and low <= share <= high and n_songs == 4
    assert study.wins("dp_bars", "ppo", 0.5)[0] == pytest.approx(1.5 / 4)


def test_models_of_other_grids_are_not_reused(songs, config, tmp_path):
    """A person corrected the beats of one song since: the study learns again."""
    options = {"config": config, "seeds": [0], "n_rounds": 1, "ratios": [0.5], "output": tmp_path}
    run_study(songs[:4], songs[4:], **options)
    saved = (tmp_path / "seed0" / "policy.pt").stat().st_mtime_ns
    grid = songs[0].grid
    moved = replace(songs[0], features=replace(songs[0].features, grid=replace(grid, times=grid.times + 0.01)))
    run_study([moved, *songs[1:4]], songs[4:], **options)
    assert (tmp_path / "seed0" / "policy.pt").stat().st_mtime_ns != saved
