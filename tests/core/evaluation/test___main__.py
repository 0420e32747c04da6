"""The command: what it prints, and how it ends."""

import json
from types import SimpleNamespace

import pytest

from editorbot_core.editing.baselines import BASELINES
from editorbot_core.evaluation.__main__ import main
from tests.core.evaluation.conftest import phrased_song


@pytest.fixture
def untrained(tmp_path, monkeypatch):
    """Arguments of the command for an untrained policy and two songs that need no audio."""
    from editorbot_core.policy.config import PolicyConfig
    from editorbot_core.policy.files import save_policy
    from editorbot_core.policy.network import Policy
    from editorbot_core.songs import library

    songs = [phrased_song(seed=seed, n_phrases=3) for seed in range(2)]
    records = [
        SimpleNamespace(accepted=True, path="a.mp3"),
        SimpleNamespace(accepted=True, path="b.mp3"),
        SimpleNamespace(accepted=False, path="x.mp3", reason="silence"),
    ]
    monkeypatch.setattr(library, "ingest", lambda folder, store, **options: records)
    monkeypatch.setattr(library, "load_songs", lambda records, store, **options: songs)
    save_policy(tmp_path / "policy.pt", Policy(PolicyConfig()), model={"name": "untrained"})
    (tmp_path / "songs").mkdir()
    names = {"checkpoint": "policy.pt", "test_dir": "songs", "output_dir": "results"}
    return [word for flag, name in names.items() for word in (f"--{flag}", str(tmp_path / name))] + ["--device", "cpu"]


def test_the_command_compares_a_policy_with_the_baselines(untrained, tmp_path, capsys):
    assert main([*untrained, "--ratio", "0.5", "0.8"]) == 0
    printed = capsys.readouterr().out
    assert "left out: x.mp3: silence" in printed
    assert "policy better than one_cut in" in printed
    document = json.loads((tmp_path / "results/evaluation.json").read_text())
    assert document["editors"] == [*BASELINES, "policy"]
    assert len(document["rows"]) == 2 * 2 * (len(BASELINES) + 1)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--checkpoint", "none.pt"], "none.pt: no such file"),
        (["--test_dir", "nowhere"], "nowhere: no such folder"),
        (["--candidates", "4"], "--reward_model"),
        (["--candidates", "0"], "at least 1"),
        (["--reward_model", "none.pt", "--candidates", "2"], "none.pt"),
        (["--device", "tpu"], "cpu, cuda or cuda:N"),
        (["--ratio", "-1"], "--ratio takes"),
        (["--ratio", "0.5", "0.5"], "--ratio takes different shares"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line_with_exit_status_2(untrained, flags, message, capsys):
    assert main([*untrained, *flags]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert message in printed
    assert printed.count("\n") == 1


def test_a_folder_without_usable_songs_is_an_error(untrained, monkeypatch, capsys):
    from editorbot_core.songs import library

    rejected = [SimpleNamespace(accepted=False, path=f"{name}.mp3", reason="silence") for name in "xy"]
    monkeypatch.setattr(library, "ingest", lambda folder, store, **options: rejected)
    assert main(untrained) == 2
    assert "none of its 2 files" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["--checkpoint", "x.pt"], ["--test_dir", "x"], ["--ratio", "half"]])
def test_wrong_use_of_the_command_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage" in capsys.readouterr().err
