"""The harness of `make bench`: what a benchmark returns is printed and kept."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from editorbot_core.policy.gymnasium_adapter import gymnasium_env
from editorbot_core.rewards.dense import dense_reward
from tests.benchmarks import __main__ as program
from tests.benchmarks import registry
from tests.benchmarks.registry import Bench, Row, at_least, at_most, benchmark, taking_turns


@pytest.fixture
def _one_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "MODULES", ())
    monkeypatch.setattr(registry, "BENCHMARKS", {})

    @benchmark("reading")
    def reading(bench: Bench) -> Sequence[Row]:
        assert bench.folder.is_dir()
        bench.say("half way")
        return [Row("a page", 2.0, "s", "a slow reader", 6.0, 3.0, **at_least(3.0, 4.0), details={"runs_s": [2.0]})]


@pytest.mark.usefixtures("_one_benchmark")
def test_figures_are_printed_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["--only", "reading", "--output", str(tmp_path / "bench.json")]) == 0
    printed = capsys.readouterr()
    assert "[reading] half way" in printed.err
    assert "READING" in printed.out
    line = " ".join(printed.out.splitlines()[2].split())
    assert line == "a page 2 s a slow reader 6 3x ratio >= 4 MISSED"
    document = json.loads((tmp_path / "bench.json").read_text())
    assert document["schema"] == "editorbot.bench/1"
    assert {"processor", "python"} <= document["machine"].keys()
    assert "numpy" in document["versions"]
    (row,) = document["rows"]
    assert (row["benchmark"], row["figure"], row["ratio"], row["met"]) == ("reading", 2.0, 3.0, False)
    assert row["details"] == {"runs_s": [2.0]}


@pytest.mark.usefixtures("_one_benchmark")
def test_names_are_taken_once() -> None:
    with pytest.raises(ValueError, match="two benchmarks are called 'reading'"):
        benchmark("reading")(lambda bench: [])


def test_targets_are_judged() -> None:
    assert at_least(3.0, 3.0) == {"target": "ratio >= 3", "met": True}
    assert at_most(3.1, 3.0, "MB") == {"target": "MB <= 3", "met": False}


def test_functions_take_turns() -> None:
    called: list[str] = []
    functions = {name: (lambda name=name: called.append(name)) for name in "ab"}
    times = taking_turns(functions, ["a", "b", "a"])
    assert called == ["a", "b", "a"]
    assert (len(times["a"].runs), len(times["b"].runs)) == (2, 1)
    assert times["a"].best <= times["a"].median


def test_the_plain_environment_is_the_same_environment() -> None:
    from tests.benchmarks.plain_environment import PlainSongEnv
    from tests.core.conftest import make_song

    rng = np.random.default_rng(0)
    song = make_song(0, n_bars=9)
    plain, ours = PlainSongEnv(song, target_range=(0.35, 0.95)), gymnasium_env(song, reward=dense_reward)
    for ratio in (0.4, 0.7, 0.93, 1.1):
        (seen, info), (seen_ours, info_ours) = (env.reset(options={"target_ratio": ratio}) for env in (plain, ours))
        done = False
        while not done:
            np.testing.assert_array_equal(info["action_mask"], info_ours["action_mask"])
            np.testing.assert_allclose(seen, seen_ours, atol=2e-5)
            action = rng.integers(9) if rng.random() < 0.2 else rng.choice(np.flatnonzero(info["action_mask"]))
            seen, *result, info = plain.step(action)
            seen_ours, *result_ours, info_ours = ours.step(action)
            assert result == result_ours
            assert info["replaced"] == info_ours["replaced"]
            done = result[1]
