"""What is in the figures."""

from pathlib import Path

import numpy as np
import pytest

from editorbot_core.evaluation.plots import curves, quality_figure, save_figure, shares_figure


def test_a_panel_per_group_and_a_line_per_metric_that_was_logged() -> None:
    history = [
        {"step": step, "metrics": {"ppo/kl": 0.1 * step} | ({"reward": step} if step else {})} for step in range(3)
    ]
    figure = curves(history, {"distance": ["ppo/kl"], "reward": ["reward", "never"], "nothing": ["never"]})
    distance, reward, nothing = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["distance", "reward", "nothing"]
    assert [len(axes.lines) for axes in figure.axes] == [1, 1, 0]
    assert distance.get_legend().get_texts()[0].get_text() == "kl"
    np.testing.assert_allclose(distance.lines[0].get_xydata(), [[0, 0], [1, 0.1], [2, 0.2]])
    np.testing.assert_allclose(reward.lines[0].get_xydata(), [[1, 1], [2, 2]])
    assert nothing.get_legend() is None


def test_bars_are_means_and_every_song_has_a_dot() -> None:
    per_song = {"one_cut": np.array([40.0, 60.0]), "policy": np.array([70.0, 90.0])}
    figure = quality_figure(per_song, {"one_cut": (50.0, 40.0, 60.0), "policy": (80.0, 70.0, 90.0)})
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.patches] == [50.0, 80.0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["one_cut", "policy"]
    dots = [line.get_xdata().tolist() for line in axes.lines if line.get_marker() == "."]
    assert dots == [[40.0, 60.0], [70.0, 90.0]]


def test_shares_are_percentages_and_unknown_ones_are_empty() -> None:
    shares = np.array([[0.256, np.nan], [1.0, 0.0]])
    (axes,) = shares_figure(shares, rows=["a", "b"], columns=["x", "y"], title="wins").axes
    assert {text.get_position(): text.get_text() for text in axes.texts} == {(0, 0): "26", (0, 1): "100", (1, 1): "0"}
    assert axes.get_title() == "wins"


def test_a_figure_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = curves([], {"nothing": []})
    assert save_figure(tmp_path / "a.png", figure).read_bytes().startswith(b"\x89PNG")

    def fail(*_: object, **__: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(figure, "savefig", fail)
    with pytest.raises(OSError, match="full"):
        save_figure(tmp_path / "b.png", figure)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
