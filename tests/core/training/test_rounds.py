"""Rounds of collecting, comparing and learning, and the study that judges them."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from editorbot_core.analysis.beats.annotations import Annotation, Section
from editorbot_core.base.errors import ParameterError
from editorbot_core.config import get_default_config, overridden
from editorbot_core.training.rounds import (
    COLLECTED_RATIOS,
    SAMPLES_PER_RATIO,
    guided_edits,
    learn_in_rounds,
    listener_answers,
    reward_on_songs,
    sampled_edits,
)
from editorbot_core.training.study import Study, run_study

SMALL = {
    "n_pairs": 12,
    "total_steps": 1500,
    "reward.hidden": 32,
    "reward.n_layers": 1,
    "reward.n_members": 1,
    "reward.epochs": 1,
    "policy.width": 32,
    "policy.n_layers": 1,
    "warm_start.n_steps": 2,
    "warm_start.edits_per_song": 3,
    "ppo.n_steps": 1000,
    "ppo.samples_per_song": 4,
    "ppo.whitening_edits": 8,
    "ppo.evaluate_every": 2,
}


@pytest.fixture(scope="module")
def config():
    return overridden(get_default_config(), SMALL)


@pytest.fixture(scope="module")
def songs(synthetic_song):
    def annotated(song, work):
        bounds = song.units.bounds(song.grid)
        starts = song.grid.times[song.units.first_beats]
        sections = tuple(
            Section(float(starts[i]), float(bounds[min(i + 4, song.units.n_units)]), "ABAC"[i // 4 % 4])
            for i in range(0, song.units.n_units, 4)
        )
        return replace(song, annotation=Annotation(work, song.grid, sections))

    return [annotated(synthetic_song(seed, n_bars=16), f"work-{seed}") for seed in range(6)]


@pytest.fixture(scope="module")
def learned(songs, config):
    lines = []
    result = learn_in_rounds(
        songs[:4], config=config, n_rounds=2, log=lambda metrics, step: lines.append((step, metrics))
    )
    return result, lines


def test_each_round_asks_new_questions_and_learns_from_all_answers(learned, config):
    result, lines = learned
    assert [step for step, _ in lines] == [0, 1] and result.rounds == tuple(metrics for _, metrics in lines)
    asked = [metrics["round/n_new_answers"] for metrics in result.rounds]
    assert asked[0] == config.n_pairs * 4 and asked[1] == config.n_pairs * 4 // 2
    assert len(result.answers) == sum(asked)
    assert {answer.round for answer in result.answers} == {0, 1}
    assert all(answer.source == "bootstrap" for answer in result.answers)
    trained_on = [m["rm/n_train_pairs"] + m["rm/n_heldout_pairs"] for m in result.rounds]
    assert trained_on == [asked[0], sum(asked)]


def test_later_rounds_judge_the_reward_on_edits_that_were_made_to_please_it(learned):
    first, second = learned[0].rounds
    assert "rm/acc_onpolicy" not in first and 0 <= second["rm/acc_onpolicy"] <= 1


def test_the_same_seed_learns_the_same(songs, config, learned):
    again = learn_in_rounds(songs[:4], config=config, n_rounds=2)
    for a, b in zip(again.policy.parameters(), learned[0].policy.parameters(), strict=True):
        assert torch.equal(a, b)


def test_answers_may_come_from_anybody(songs, config):
    asked = []
    listener = listener_answers(songs, seed=1)

    def answer(pairs, number):
        asked.append((number, len(pairs)))
        return listener(pairs, number)

    learn_in_rounds(songs[:4], config=config, n_rounds=1, answer=answer)
    assert asked == [(0, config.n_pairs * 4)]


def test_no_round_is_refused(songs, config):
    with pytest.raises(ParameterError, match="at least 1"):
        learn_in_rounds(songs, config=config, n_rounds=0)


def test_collected_edits_are_of_the_targets_asked_for(songs, learned):
    result, _ = learned
    expected = sorted(r for r in COLLECTED_RATIOS for _ in range(SAMPLES_PER_RATIO))
    for edits in (
        sampled_edits(result.policy, songs[:2], seed=0),
        guided_edits(result.policy, result.ensemble, songs[:2], seed=0),
    ):
        assert set(edits) == {song.track_id for song in songs[:2]}
        for song in songs[:2]:
            ratios = [edl.target_duration_s / song.duration for edl in edits[song.track_id]]
            assert set(np.round(sorted(ratios), 6)) == set(expected)


def test_a_reward_is_judged_beside_the_ceiling(songs, learned):
    result, _ = learned
    own = sampled_edits(result.policy, songs[4:], seed=0)
    for edits in (None, own):
        found = reward_on_songs(result.ensemble, songs[4:], n_pairs=80, seed=0, policy_edits=edits)
        assert 0 <= found["acc"] <= 1 and 0.5 <= found["ceiling"] <= 1


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
    share, low, high = study.wins("ppo", "dp_bars", 0.5)
    assert share == pytest.approx(2.5 / 4) and low <= share <= high
    assert study.wins("dp_bars", "ppo", 0.5)[0] == pytest.approx(1.5 / 4)
