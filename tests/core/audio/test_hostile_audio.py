"""Damaged and odd audio files: each gives features or a reason that names it, in bounded time and memory.

All files go through two warm worker processes. The seed is fixed: the same files every time.
"""

import io
import re
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile

from editorbot_core.analysis.features.extraction import analyse
from editorbot_core.analysis.features.table import read_features
from editorbot_core.base.errors import AudioError
from editorbot_core.base.files import path_to_text
from editorbot_core.songs.ingestion import Analysis, AnalysisPool

N_MUTATED = 480
_MOST_SECONDS = 30.0
_MOST_MB = 1_000


def passage(duration_s: float, sample_rate: int, n_channels: int = 1) -> np.ndarray:
    """Clicks at 150 BPM over a chord, float32 (n, n_channels)."""
    t = np.arange(round(duration_s * sample_rate)) / sample_rate
    mix = sum(0.1 * np.sin(2 * np.pi * hz * t) for hz in (110.0, 277.0, 330.0))
    mix += 0.5 * np.sin(2 * np.pi * 900 * t) * np.exp(-60 * (t % 0.4))
    return np.repeat(mix[:, None], n_channels, axis=1).astype(np.float32)


def encoded(samples: np.ndarray, sample_rate: int, container: str, subtype: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, sample_rate, format=container, subtype=subtype)
    return file.getvalue()


def odd_files() -> Iterator[tuple[str, bytes]]:
    """Whole files that are unusual: rates, channels, lengths, and samples."""
    for rate in (3_999, 4_000, 8_001, 11_025, 44_100, 96_000, 384_000, 384_001):
        yield f"rate-{rate}", encoded(passage(4.5, rate), rate, "WAV", "PCM_16")
    for n_channels in range(1, 10):
        yield f"channels-{n_channels}", encoded(passage(4.5, 22_050, n_channels), 22_050, "WAV", "FLOAT")
    for n_samples in (0, 1, 511, 2_048, 4 * 22_050 - 1, 4 * 22_050, 4 * 22_050 + 1):
        yield f"length-{n_samples}", encoded(passage(5.0, 22_050)[:n_samples], 22_050, "WAV", "PCM_16")
    rng = np.random.default_rng(1)
    whole = passage(4.5, 22_050)
    for name, samples in {
        "silence": np.zeros_like(whole),
        "dc": np.full_like(whole, 0.5),
        "dc-and-music": whole + np.float32(0.4),
        "tiny": whole * np.float32(1e-30),
        "denormal": np.full_like(whole, 1e-40),
        "loud": whole * np.float32(15.0),
        "too-loud": whole * np.float32(1e6),
        "noise": rng.standard_normal(whole.shape).astype(np.float32),
        "one-click": np.where(np.arange(len(whole)) == 40_000, 0.9, 0.0).astype(np.float32)[:, None],
        "square": np.sign(whole),
        "nyquist": np.where(np.arange(len(whole)) % 2, 0.5, -0.5).astype(np.float32)[:, None],
        "nan": np.where(np.arange(len(whole)) == 60_000, np.nan, whole[:, 0])[:, None],
        "infinite": np.where(np.arange(len(whole)) == 60_000, np.inf, whole[:, 0])[:, None],
        "opposite": np.concatenate([whole, -whole], axis=1),
    }.items():
        yield name, encoded(samples, 22_050, "WAV", "FLOAT")


def mutated_files() -> Iterator[tuple[str, bytes]]:
    """Files of four formats, each damaged in one way."""
    samples = passage(4.5, 22_050)
    bases = {
        "wav": encoded(samples, 22_050, "WAV", "PCM_16"),
        "float": encoded(samples, 22_050, "WAV", "FLOAT"),
        "flac": encoded(samples, 22_050, "FLAC", "PCM_16"),
        "ogg": encoded(samples, 22_050, "OGG", "VORBIS"),
        "mp3": encoded(samples, 22_050, "MP3", "MPEG_LAYER_III"),
    }
    rng = np.random.default_rng(0)
    extremes = (0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
    for i in range(N_MUTATED):
        name = list(bases)[i % len(bases)]
        content = bytearray(bases[name])
        kind = ("bits", "header", "field", "cut", "hole", "zeros", "twice", "tail")[i // len(bases) % 8]
        place = int(rng.integers(len(content)))
        length = int(rng.integers(1, 4_000))
        if kind == "bits":
            for at in rng.integers(len(content), size=int(rng.integers(1, 33))):
                content[at] ^= 1 << int(rng.integers(8))
        elif kind == "header":
            for at in rng.integers(96, size=int(rng.integers(1, 5))):
                content[at] = int(rng.integers(256))
        elif kind == "field":
            struct.pack_into("<I", content, int(rng.integers(60)), extremes[int(rng.integers(len(extremes)))])
        elif kind == "cut":
            del content[place:]
        elif kind == "hole":
            del content[place : place + length]
        elif kind == "zeros":
            content[place : place + length] = bytes(len(content[place : place + length]))
        elif kind == "twice":
            content[place:place] = content[place : place + length]
        else:
            content += rng.bytes(length)
        yield f"{i:03d}-{name}-{kind}", bytes(content)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, tuple[Analysis, float]]:
    """What became of every file, and how long it took, s."""
    folder = tmp_path_factory.mktemp("hostile")
    store = folder / "store"
    (store / "features").mkdir(parents=True)
    paths = []
    for name, content in (*odd_files(), *mutated_files()):
        paths.append(folder / f"{name}.wav")
        paths[-1].write_bytes(content)

    def run(path: Path) -> tuple[Analysis, float]:
        start = time.monotonic()
        return pool.analyse(path), time.monotonic() - start

    with AnalysisPool(2, store) as pool, ThreadPoolExecutor(2) as threads:
        found = list(threads.map(run, paths))
        for process in pool._processes:
            status = Path(f"/proc/{process.pid}/status")
            if status.exists():
                peak_kb = int(re.findall(r"VmHWM:\s+(\d+)", status.read_text())[0])
                assert peak_kb < 1_000 * _MOST_MB
    return dict(zip(paths, found, strict=True))


def test_no_file_hurts(results: dict[Path, tuple[Analysis, float]]) -> None:
    assert len(results) >= 500
    for path, (analysis, seconds) in results.items():
        assert seconds < _MOST_SECONDS, path.name
        assert "analysis process died" not in analysis.reason, path.name
        # Only errors of audio are a reason; any other begins with the name of its type.
        assert not re.match(r"[A-Z]\w+Error: ", analysis.reason), f"{path.name}: {analysis.reason}"
        if not analysis.reason:
            store = path.parent / "store" / "features"
            assert read_features(store / f"{analysis.sha256[:16]}.parquet").features.n_beats == analysis.n_beats >= 4


def test_some_files_are_used_and_some_refused(results: dict[Path, tuple[Analysis, float]]) -> None:
    refused = {path.stem for path, (analysis, _) in results.items() if analysis.reason}
    assert 100 < len(refused) < len(results) - 100
    assert {"rate-3999", "rate-384001", "channels-9", "length-0", "silence", "tiny", "denormal", "nan"} <= refused
    assert {"infinite", "too-loud", "opposite", "length-88199"} <= refused
    assert not {"rate-4000", "rate-96000", "channels-8", "dc-and-music", "loud", "length-88201"} & refused


def test_every_reason_names_the_file(results: dict[Path, tuple[Analysis, float]]) -> None:
    one_each = {re.sub(r"[\d.]+", "", analysis.reason): path for path, (analysis, _) in results.items()}
    one_each.pop("", None)
    for path in one_each.values():
        with pytest.raises(AudioError) as caught:
            analyse(path)
        assert str(caught.value) == f"{path_to_text(path)}: {results[path][0].reason}"
