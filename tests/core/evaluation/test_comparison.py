"""Comparison of editors: paired, and honest about ties."""

import numpy as np
import pandas as pd
import pytest

from editorbot_core.base.errors import ParameterError
from editorbot_core.evaluation.comparison import Gain, bootstrap_mean, is_better, paired_gain

RULES = {"min_gain": 0.0, "min_probability": 0.8}


def _rows(**quality: list[float]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"track_id": f"song{i}", "editor": editor, "quality": value}
            for editor, values in quality.items()
            for i, value in enumerate(values)
        ]
    )


def test_gain_is_paired_by_song() -> None:
    # Songs differ by 30 points, editors by one: only pairing shows it.
    easy = np.linspace(40, 70, 8)
    gain = paired_gain(_rows(new=list(easy + 1), old=list(easy)), "new", "old")
    assert gain.mean == pytest.approx(1.0)
    assert gain.probability == 1.0
    assert gain.n_songs == 8
    assert is_better(gain, **RULES)


def test_equal_editors_are_no_gain() -> None:
    gain = paired_gain(_rows(new=[50.0, 60.0], old=[50.0, 60.0]), "new", "old")
    assert gain == Gain(0.0, 0.5, 2)
    assert not is_better(gain, **RULES)


def test_exchanging_the_editors_mirrors_the_gain() -> None:
    rows = _rows(new=[50.0, 61.0, 44.0], old=[52.0, 55.0, 47.0])
    forth, back = paired_gain(rows, "new", "old"), paired_gain(rows, "old", "new")
    assert forth.mean == pytest.approx(-back.mean)
    assert forth.probability == pytest.approx(1 - back.probability)


def test_a_doubtful_gain_is_not_enough() -> None:
    assert not is_better(Gain(2.0, 0.79, 4), **RULES)
    assert is_better(Gain(2.0, 0.8, 4), **RULES)
    assert not is_better(Gain(-0.1, 0.9, 4), **RULES)


def test_an_editor_that_was_not_evaluated_is_named() -> None:
    with pytest.raises(ParameterError, match="'other'"):
        paired_gain(_rows(new=[50.0]), "new", "other")


def test_the_bootstrap_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        interval = bootstrap_mean(rng.normal(0.0, 1.0, 40), seed=trial, n_resamples=400)
        hits += interval.low <= 0.0 <= interval.high
    assert 0.88 <= hits / 200 <= 0.99
    assert bootstrap_mean(np.full(5, 3.0)) == (3.0, 3.0, 3.0)
    with pytest.raises(ParameterError, match="at least one"):
        bootstrap_mean(np.array([]))
