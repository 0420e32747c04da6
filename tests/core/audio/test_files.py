"""Audio files give back their samples, or a reason that names them."""

import os
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from editorbot_core.audio.clip import AudioClip, resample
from editorbot_core.audio.files import find_audio, open_audio, read_audio, sha256_audio, write_audio
from editorbot_core.base.errors import AudioError, ParameterError
from editorbot_core.base.files import path_to_text, sha256_file, text_to_path
from tests.core.audio.conftest import tone


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_lossless_files_give_back_the_samples(tmp_path: Path, suffix: str) -> None:
    clip = tone(n_channels=2, sample_rate=44_100)
    write_audio(tmp_path / f"a{suffix}", clip)
    again = read_audio(tmp_path / f"a{suffix}")
    assert again.sample_rate == 44_100
    np.testing.assert_allclose(again.samples, clip.samples, rtol=0, atol=2.0**-23)


@pytest.mark.parametrize("suffix", [".ogg", ".mp3", ".m4a"])
def test_lossy_files_keep_place_and_level(tmp_path: Path, suffix: str) -> None:
    # Longer than two blocks: soundfile's own block reading drops samples of MP3 between blocks.
    clip = tone(4.0, n_channels=2, sample_rate=44_100)
    write_audio(tmp_path / f"a{suffix}", clip)
    again = read_audio(tmp_path / f"a{suffix}")
    assert (again.n_channels, again.sample_rate) == (2, 44_100)
    assert abs(again.duration_s - clip.duration_s) < 0.1
    n = min(again.n_samples, clip.n_samples)
    np.testing.assert_allclose(again.samples[:, 4_000 : n - 4_000], clip.samples[:, 4_000 : n - 4_000], atol=0.05)


def test_long_ogg_files_are_written_in_blocks(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).standard_normal((1, 70 * 22_050)).astype(np.float32) * np.float32(0.1)
    write_audio(tmp_path / "long.ogg", AudioClip(noise, 22_050))
    assert read_audio(tmp_path / "long.ogg").n_samples == noise.shape[1]


def test_content_decides_the_format(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.flac", tone())
    (tmp_path / "a.flac").rename(tmp_path / "a.mp3")
    with open_audio(tmp_path / "a.mp3") as stream:
        assert stream.container == "FLAC"
        assert sum(len(block) for block in stream) == 2 * 22_050


def test_digest_is_of_the_file(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav", tone())
    with open_audio(tmp_path / "a.wav") as stream:
        assert stream.sha256 == sha256_file(tmp_path / "a.wav") == sha256_audio(tmp_path / "a.wav")


@pytest.mark.parametrize(("sample_rate", "n_channels"), [(8_000, 1), (192_000, 2), (44_100, 7)])
def test_any_rate_and_number_of_channels_becomes_mono(tmp_path: Path, sample_rate: int, n_channels: int) -> None:
    clip = tone(3.0, sample_rate=sample_rate, n_channels=n_channels)
    soundfile.write(tmp_path / "a.wav", clip.samples.T, sample_rate, subtype="FLOAT")
    mono = read_audio(tmp_path / "a.wav", sample_rate=22_050, mono=True)
    expected = resample(AudioClip(clip.samples.mean(axis=0, dtype=np.float32)[None], sample_rate), 22_050)
    assert mono.samples.shape == (1, 3 * 22_050)
    np.testing.assert_allclose(mono.samples, expected.samples, atol=1e-5)


def test_blocks_join_to_the_whole(tmp_path: Path) -> None:
    clip = tone(10.0, sample_rate=48_000, n_channels=2)
    write_audio(tmp_path / "a.wav", clip)
    with open_audio(tmp_path / "a.wav", mono=True) as stream:
        blocks = list(stream)
    assert len(blocks) > 5
    np.testing.assert_allclose(np.concatenate(blocks)[:, 0], clip.samples.mean(axis=0), atol=1e-6)


def _write(path: Path, samples: np.ndarray, sample_rate: int = 22_050) -> Path:
    soundfile.write(path, samples, sample_rate, subtype="FLOAT")
    return path


def _truncated_flac(folder: Path) -> Path:
    write_audio(folder / "cut.flac", tone(20.0))
    content = (folder / "cut.flac").read_bytes()
    (folder / "cut.flac").write_bytes(content[: len(content) // 2])
    return folder / "cut.flac"


def _wav_with_header(folder: Path, *, sample_rate: int, n_channels: int) -> Path:
    path = _write(folder / "lie.wav", np.zeros((4_000, 1), dtype=np.float32) + 0.1)
    content = bytearray(path.read_bytes())
    place = content.index(b"fmt ") + 8
    struct.pack_into("<HI", content, place + 2, n_channels, sample_rate)
    struct.pack_into("<H", content, place + 12, n_channels * 4)
    path.write_bytes(content)
    return path


def _made_of(folder: Path, content: bytes) -> Path:
    (folder / "a.mp3").write_bytes(content)
    return folder / "a.mp3"


def _fifo(folder: Path) -> Path:
    os.mkfifo(folder / "pipe.wav")
    return folder / "pipe.wav"


BAD_FILES = {
    "empty": (lambda folder: _made_of(folder, b""), "the file is empty"),
    "text": (lambda folder: _made_of(folder, b"la la la " * 1_000), "not audio that can be decoded"),
    "noise": (lambda folder: _made_of(folder, np.random.default_rng(0).bytes(50_000)), "a.mp3: "),
    "playlist": (
        lambda folder: _made_of(folder, b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n/etc/passwd\n#EXT-X-ENDLIST\n"),
        "not audio that can be decoded",
    ),
    "missing": (lambda folder: folder / "none.wav", "cannot be opened: No such file"),
    "folder": (lambda folder: folder, "not a regular file"),
    "fifo": (_fifo, "not a regular file"),
    "no samples": (lambda folder: _write(folder / "a.wav", np.zeros((0, 1), dtype=np.float32)), "holds no samples"),
    "nan": (lambda folder: _write(folder / "a.wav", np.full(9_000, np.nan, dtype=np.float32)), "not finite numbers"),
    "infinite": (lambda folder: _write(folder / "a.wav", np.full(9_000, np.inf, dtype=np.float32)), "not finite"),
    "huge": (lambda folder: _write(folder / "a.wav", np.full(9_000, 99.0, dtype=np.float32)), "a peak of 99"),
    "too many channels": (
        lambda folder: _wav_with_header(folder, sample_rate=22_050, n_channels=100),
        "100 channels; 1-8 are read",
    ),
    "too fast": (
        lambda folder: _wav_with_header(folder, sample_rate=1_000_000_000, n_channels=1),
        "sample rate 1000000000 Hz; 4000-384000 Hz are read",
    ),
    "truncated": (_truncated_flac, "cut short or damaged"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_files_are_refused_by_name_and_reason(tmp_path: Path, kind: str) -> None:
    make, reason = BAD_FILES[kind]
    path = make(tmp_path)
    with pytest.raises(AudioError, match=re.escape(reason)) as caught:
        read_audio(path)
    assert str(path) in str(caught.value)


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav", tone(20.0))
    with (
        pytest.raises(AudioError, match="changed while it was read"),
        open_audio(tmp_path / "a.wav") as stream,
    ):
        for _ in stream:
            with (tmp_path / "a.wav").open("ab") as handle:
                handle.write(b"more")


def test_names_that_are_not_text_are_data(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9 <b>\n.wav")
    write_audio(path, tone())
    text = path_to_text(path)
    text.encode("utf-8")
    assert find_audio(tmp_path) == [path]
    assert text_to_path(text) == path
    assert read_audio(text).n_samples == 2 * 22_050
    ordinary = tmp_path / "ordinary.wav"
    assert path_to_text(ordinary) == str(ordinary)


def test_find_audio_sorts_and_leaves_hidden_files_out(tmp_path: Path) -> None:
    for name in ("b/2.WAV", "a.mp3", "b/1.flac", ".hidden.wav", ".git/x.wav", "notes.txt", "._a.mp3"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert find_audio(tmp_path) == [tmp_path / name for name in ("a.mp3", "b/1.flac", "b/2.WAV")]
    with pytest.raises(ParameterError, match="not a folder"):
        find_audio(tmp_path / "a.mp3")


@pytest.mark.parametrize(
    ("clip", "name", "reason"),
    [
        (tone(), "a.txt", "audio is written as .wav, .flac, .ogg, .mp3, .m4a"),
        (AudioClip(np.zeros((1, 0), dtype=np.float32), 22_050), "a.wav", "nothing to write"),
        (AudioClip(np.full((1, 9), np.nan, dtype=np.float32), 22_050), "a.wav", "not finite"),
        (tone(0.1, n_channels=3), "a.mp3", "cannot hold 3 channels"),
        (tone(0.1, n_channels=3), "a.m4a", "1 or 2 channels"),
    ],
)
def test_what_cannot_be_written_leaves_no_file(tmp_path: Path, clip: AudioClip, name: str, reason: str) -> None:
    with pytest.raises(ParameterError, match=re.escape(reason)):
        write_audio(tmp_path / name, clip)
    assert list(tmp_path.iterdir()) == []
