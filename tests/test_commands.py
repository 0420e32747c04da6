"""The commands and files of the specification, run as a user runs them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from editorbot_core import infer, trainer
from editorbot_core.analysis.beats.corrections import list_corrections
from editorbot_core.base.home import corrections_folder
from editorbot_core.editing.interchange import read_edl
from editorbot_core.evaluation import __main__ as evaluation
from editorbot_core.policy.files import load_policy
from pipelines import cli

ROOT = Path(__file__).resolve().parents[1]


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    """What a failed command said: one line, no traceback."""
    lines = capsys.readouterr().err.strip().splitlines()
    assert not any("Traceback" in line for line in lines)
    return lines[-1]


def test_train_help_explains_every_flag() -> None:
    shown = subprocess.run(
        [sys.executable, str(ROOT / "train_rlhf.py"), "--help"], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    flags = (
        "data_dir",
        "checkpoint",
        "reward_model",
        "total_steps",
        "algorithm",
        "device",
        "save_interval",
        "log_level",
    )
    for flag in (*flags, "seed", "batch_size", "target", "output_dir"):
        assert f"--{flag}" in shown
    assert "100000" in shown
    assert "torchrun" in shown


def test_the_launcher_offers_the_trainer() -> None:
    code = "import train_rlhf; from editorbot_core import trainer; assert train_rlhf.RLHFTrainer is trainer.RLHFTrainer"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data_dir", "nowhere"], "nowhere: no such folder"),
        (["--data_dir", "{songs}", "--device", "cuda:7"], "--device cpu"),
        (["--data_dir", "{songs}", "--device", "tpu"], "cpu, cuda or cuda:N"),
        (["--data_dir", "{songs}", "--reward_model", "nowhere.pt"], "nowhere.pt: no such file"),
        (["--data_dir", "{songs}", "--checkpoint", "nowhere.pt"], "nowhere.pt: no such file"),
        (["--data_dir", "{songs}", "--checkpoint", "{output}/models/policy_best.pt"], "not a training checkpoint"),
        (["--data_dir", "{songs}", "--total_steps", "0"], "total_steps must be at least 1"),
        (["--data_dir", "{songs}", "--set", "ppo.colour=red"], "no setting ppo.colour"),
        (["--data_dir", "{songs}", "--set", "ppo.epochs"], "NAME=VALUE"),
    ],
)
def test_wrong_use_of_training_is_one_line_and_status_2(
    trained: Any,
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("EDITORBOT_HOME", str(trained.home))
    filled = [text.format(songs=trained.songs, output=trained.output) for text in arguments]
    assert trainer.main([*filled, "--output_dir", str(tmp_path)]) == 2
    assert message in last_line(capsys)
    assert not (tmp_path / "models").exists()


def test_out_of_memory_names_the_two_settings_to_lower(
    trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(trainer.RLHFTrainer, "train", exhausted)
    assert trainer.main(["--data_dir", str(trained.songs), "--output_dir", str(tmp_path)]) == 1
    said = last_line(capsys)
    assert "--batch_size" in said
    assert "reward.pairs_per_song" in said


@pytest.mark.parametrize("arguments", [[], ["--algorithm", "magic"], ["--log_level", "LOUD"], ["--save_interval", "x"]])
def test_flags_with_unusable_values_are_status_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        trainer.main(["--data_dir", "somewhere", *arguments] if arguments else [])
    assert stopped.value.code == 2


def test_training_says_where_it_runs_and_that_nobody_has_rated(trained: Any) -> None:
    log = (trained.output / "logs" / "training.log").read_text()
    assert "no person has rated anything yet" in log


def test_dpo_from_the_command_line(
    trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDITORBOT_HOME", str(trained.home))
    small = [
        "policy.width=32",
        "policy.n_layers=1",
        "warm_start.n_steps=5",
        "warm_start.edits_per_song=4",
        "n_pairs=20",
    ]
    status = trainer.main(
        [
            *("--data_dir", str(trained.songs), "--algorithm", "dpo", "--output_dir", str(tmp_path), "--device", "cpu"),
            *("--reward_model", str(trained.output / trained.config.reward_model_path), "--log_level", "INFO"),
            *(part for item in small for part in ("--set", item)),
        ]
    )
    assert status == 0
    assert "policy_best.pt" in capsys.readouterr().out
    history = json.loads((tmp_path / "logs" / "training_history.json").read_text())
    assert np.isfinite(history["total_reward"]).all()
    assert len(history["step"]) == len(history["dpo/loss"]) > 0
    assert "device: cpu" in (tmp_path / "logs" / "training.log").read_text()


def test_every_weights_file_loads_without_unpickling(trained: Any) -> None:
    files = sorted(trained.output.rglob("*.pt"))
    names = {path.name for path in files}
    assert {"policy_best.pt", "policy_final.pt", "reward_model_final.pt"} <= names
    assert any(name.startswith("checkpoint_") for name in names)
    for path in files:
        assert isinstance(torch.load(path, weights_only=True), dict)


def test_a_checkpoint_is_a_policy_too(trained: Any) -> None:
    checkpoint = next((trained.output / "models").glob("checkpoint_*.pt"))
    assert load_policy(checkpoint).model["name"] == "editorbot-ppo"


@pytest.mark.parametrize(
    ("length", "expected"), [(["--duration", "30"], 30.0), (["--keep", "0.7"], None), ([], None)], ids=str
)
def test_infer_meets_the_length(
    trained: Any, length: list[str], expected: float | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    song = sorted(trained.songs.glob("*.flac"))[0]
    source = soundfile.info(song)
    ratio = float(length[1]) if length[:1] == ["--keep"] else 0.5
    target = expected or ratio * source.duration
    output, edl_path = tmp_path / "edited.wav", tmp_path / "edited.json"
    status = infer.main(
        [
            *("--checkpoint", str(trained.output / "models" / "policy_best.pt"), "--audio", str(song)),
            *("--output", str(output), "--edl", str(edl_path), "--device", "cpu", *length),
        ]
    )
    assert status == 0
    assert "edited.wav" in capsys.readouterr().out
    made, edl = soundfile.info(output), read_edl(edl_path)
    assert (made.samplerate, made.channels) == (source.samplerate, source.channels)
    assert made.duration == pytest.approx(edl.duration_s, abs=1e-3)
    # The tolerance of the decision process: 1.5 % plus half a bar, and some for a long last bar.
    assert made.duration == pytest.approx(target, rel=0.1)
    assert edl.target_duration_s == pytest.approx(target)


def test_infer_edits_on_the_beats_that_a_person_corrected(
    trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDITORBOT_HOME", str(tmp_path / "home"))
    song = sorted(trained.songs.glob("*.flac"))[0]
    assert cli.main(["grid", str(song), "--shift", "+1"]) == 0
    (correction,) = list_corrections(corrections_folder(tmp_path / "home"))
    status = infer.main(
        [
            *("--checkpoint", str(trained.output / "models" / "policy_best.pt"), "--audio", str(song)),
            *("--output", str(tmp_path / "out.wav"), "--edl", str(tmp_path / "out.json"), "--device", "cpu"),
        ]
    )
    assert status == 0
    edl = read_edl(tmp_path / "out.json")
    np.testing.assert_allclose(edl.grid.times, correction.grid.times)
    np.testing.assert_array_equal(edl.grid.positions, correction.grid.positions)
    assert edl.grid.confidence == 1.0


def test_candidates_are_different_edits(trained: Any, tmp_path: Path) -> None:
    song = sorted(trained.songs.glob("*.flac"))[1]
    status = infer.main(
        [
            *("--checkpoint", str(trained.output / "models" / "policy_final.pt"), "--audio", str(song)),
            *("--output", str(tmp_path / "out.wav"), "--edl", str(tmp_path / "out.json"), "--candidates", "3"),
        ]
    )
    assert status == 0
    edits = [read_edl(tmp_path / name) for name in ("out.json", "out.2.json", "out.3.json")]
    assert len({edit.segments for edit in edits}) == 3
    assert all((tmp_path / name).is_file() for name in ("out.wav", "out.2.wav", "out.3.wav"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--audio": "nowhere.wav"}, "nowhere.wav"),
        ({"--audio": "{broken}"}, "broken.wav"),
        ({"--checkpoint": "nowhere.pt"}, "nowhere.pt: no such file"),
        ({"--duration": "100000"}, "cannot be met"),
        ({"--duration": "nan"}, "cannot be met"),
        ({"--candidates": "0"}, "--candidates must be at least 1"),
        ({"--output": "{song}"}, "would overwrite the song"),
    ],
)
def test_wrong_use_of_infer_is_one_line_and_status_2(
    trained: Any, changes: dict[str, str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    song = sorted(trained.songs.glob("*.flac"))[0]
    before = song.read_bytes()
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF but not really")
    flags = {
        "--checkpoint": str(trained.output / "models" / "policy_best.pt"),
        "--audio": str(song),
        "--output": str(tmp_path / "edited.wav"),
        **{flag: value.format(broken=broken, song=song) for flag, value in changes.items()},
    }
    assert infer.main([part for item in flags.items() for part in item]) == 2
    assert message in last_line(capsys)
    assert song.read_bytes() == before
    assert not (tmp_path / "edited.wav").exists()


def test_infer_without_a_champion_says_what_to_do(
    trained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    song = sorted(trained.songs.glob("*.flac"))[0]
    assert infer.main(["--audio", str(song), "--output", str(tmp_path / "edited.wav")]) == 2
    assert "make run" in last_line(capsys)


def test_evaluation_prints_a_table_and_writes_files(
    trained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = evaluation.main(
        [
            *("--checkpoint", str(trained.output / "models" / "policy_best.pt"), "--test_dir", str(trained.songs)),
            *("--output_dir", str(tmp_path / "results"), "--device", "cpu"),
        ]
    )
    assert status == 0
    table = capsys.readouterr().out
    for editor in ("keep_all", "truncate_fade", "one_cut", "dp_beats", "dp_bars", "search_structure", "policy"):
        assert editor in table
    assert json.loads((tmp_path / "results" / "evaluation.json").read_text())
    assert list((tmp_path / "results").glob("*.png"))
