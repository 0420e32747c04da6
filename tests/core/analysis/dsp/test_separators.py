"""The choice of separators. Demucs itself is not installed here: what stands in for it shows only that the parts that
it returns become stems.
"""

import sys
import types
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from editorbot_core.analysis.dsp import separators
from editorbot_core.analysis.dsp.filterbanks import SAMPLE_RATE
from editorbot_core.analysis.dsp.frames import FrameFeatures, analyse_frames
from editorbot_core.analysis.dsp.separators import find_stems, separates_samples, separator_version
from editorbot_core.analysis.dsp.stems import STEM_NAMES, stem_frames
from editorbot_core.analysis.features.columns import FEATURE_INDEX
from editorbot_core.analysis.features.table import read_features
from editorbot_core.audio.clip import AudioClip
from editorbot_core.audio.files import write_audio
from editorbot_core.base.errors import ParameterError
from editorbot_core.songs import library
from editorbot_core.songs.ingestion import Analysis, analyse_into, features_path

RATE = 44_100


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    t = np.arange(8 * SAMPLE_RATE) / SAMPLE_RATE
    clicks = 0.5 * np.sin(2 * np.pi * 900 * t) * np.exp(-60 * (t % 0.5))
    return (clicks + 0.2 * np.sin(2 * np.pi * 440 * t)).astype(np.float32)


@pytest.fixture(scope="module")
def frames(samples: np.ndarray) -> FrameFeatures:
    return analyse_frames(samples)


@pytest.fixture
def demucs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Stands in for the package: vocals are three quarters of the mix, bass a quarter, drums and other nothing."""
    package, pretrained, apply = (types.ModuleType(f"demucs{name}") for name in ("", ".pretrained", ".apply"))
    stand_in = types.SimpleNamespace(loaded=[], heard=[], options=[])

    class Model:
        sources = ("drums", "bass", "other", "vocals")
        samplerate, audio_channels = RATE, 2

        def eval(self) -> "Model":
            return self

    def get_model(name: str) -> Model:
        stand_in.loaded.append(name)
        return Model()

    def apply_model(model: Model, mix: Any, **options: Any) -> Any:
        stand_in.heard.append(mix.numpy())
        stand_in.options.append(options)
        return torch.stack([0 * mix, 0.25 * mix, 0 * mix, 0.75 * mix], dim=1)

    pretrained.get_model, apply.apply_model = get_model, apply_model  # type: ignore[attr-defined]
    for module in (package, pretrained, apply):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr("editorbot_core.analysis.names.version", lambda name: "4.0.1")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    stand_in.weights = tmp_path / "checkpoints" / "955717e8-8726e21a.th"
    stand_in.weights.parent.mkdir()
    stand_in.weights.touch()
    separators._demucs_model.cache_clear()
    yield stand_in
    separators._demucs_model.cache_clear()


def test_the_default_is_masks(frames: FrameFeatures) -> None:
    np.testing.assert_array_equal(find_stems("masks", frames).power, stem_frames(frames.mel).power)
    assert separator_version("masks") == "masks"
    assert not separates_samples("masks")


def test_unknown_and_missing_separators_say_what_to_do(
    monkeypatch: pytest.MonkeyPatch, frames: FrameFeatures, samples: np.ndarray
) -> None:
    with pytest.raises(ParameterError, match="one of masks, demucs, got 'spleeter'"):
        find_stems("spleeter", frames)

    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("editorbot_core.analysis.names.version", missing)
    with pytest.raises(ParameterError, match=r"pip install 'editorbot\[demucs\]'"):
        find_stems("demucs", frames, samples)


def test_missing_weights_are_not_fetched(demucs: Any, frames: FrameFeatures, samples: np.ndarray) -> None:
    demucs.weights.unlink()
    with pytest.raises(ParameterError, match="needs its weights at"):
        find_stems("demucs", frames, samples)
    assert demucs.loaded == []


def test_parts_become_stems(demucs: Any, frames: FrameFeatures, samples: np.ndarray) -> None:
    assert separates_samples("demucs")
    assert separator_version("demucs") == "demucs-4.0.1-htdemucs"
    stems = find_stems("demucs", frames, samples)
    assert stems.power.shape == stems.centroid_power.shape == (frames.n_frames, 4)
    whole = stem_frames(frames.mel)
    power, mix = stems.power[5:-5], whole.power[5:-5].sum(axis=1)
    for stem, gain in {"drums": 0.0, "bass": 0.25, "vocals": 0.75, "other": 0.0}.items():
        i = STEM_NAMES.index(stem)
        np.testing.assert_allclose(power[:, i], gain**2 * mix, rtol=0.05, atol=1e-6, err_msg=stem)
    centroid = stems.centroid_power[5:-5, 2] / power[:, 2]
    np.testing.assert_allclose(centroid, whole.centroid_power[5:-5].sum(axis=1) / mix, rtol=0.05)
    (heard,) = demucs.heard
    assert heard.shape == (1, 2, 8 * RATE)
    np.testing.assert_array_equal(heard[0, 0], heard[0, 1])
    assert heard.std() == pytest.approx(1.0, abs=0.01)
    # The same file gives the same features: no random shifts.
    assert demucs.options[0]["shifts"] == 0
    assert demucs.loaded == ["htdemucs"]


def test_the_separator_is_stored_with_the_features(demucs: Any, tmp_path: Path, samples: np.ndarray) -> None:
    path, store = tmp_path / "a.wav", tmp_path / "store"
    (store / "features").mkdir(parents=True)
    write_audio(path, AudioClip(samples[None], SAMPLE_RATE))

    def stored(**choice: str) -> tuple[str, float]:
        analysis = analyse_into(path, store, **choice)
        assert not analysis.reason
        found = read_features(features_path(store, analysis.sha256))
        share = found.features.values[:, FEATURE_INDEX["drums_energy_share"]]
        return found.metadata["separator"], float(share.mean())

    name, share = stored()
    assert name == "masks" and share > 0.01
    name, share = stored(separator="demucs")
    assert name == "demucs-4.0.1-htdemucs" and share < 1e-6
    assert len(demucs.heard) == 1
    stored(separator="demucs")
    assert len(demucs.heard) == 1
    assert stored()[0] == "masks"


class InThisProcess:
    """Stands in for the pool of processes."""

    def __init__(self, n_processes: int, store: Path, **choices: Any) -> None:
        self._choices = {"store": store, **choices}

    def __enter__(self) -> "InThisProcess":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def analyse(self, path: Path) -> Analysis:
        return analyse_into(path, **self._choices)


def test_another_separator_analyses_songs_again(
    demucs: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, samples: np.ndarray
) -> None:
    monkeypatch.setattr(library, "AnalysisPool", InThisProcess)
    songs, store = tmp_path / "songs", tmp_path / "store"
    songs.mkdir()
    write_audio(songs / "a.wav", AudioClip(samples[None], SAMPLE_RATE))
    for separator, expected in (("masks", "masks"), ("demucs", "demucs-4.0.1-htdemucs"), ("masks", "masks")):
        (record,) = library.ingest(songs, store, separator=separator)
        assert record.accepted
        assert read_features(features_path(store, record.sha256)).metadata["separator"] == expected


def test_a_missing_package_is_no_reason_to_use_masks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, samples: np.ndarray
) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("editorbot_core.analysis.names.version", missing)
    (tmp_path / "features").mkdir()
    write_audio(tmp_path / "a.wav", AudioClip(samples[None], SAMPLE_RATE))
    assert "pip install" in analyse_into(tmp_path / "a.wav", tmp_path, separator="demucs").reason
    assert not list((tmp_path / "features").iterdir())
