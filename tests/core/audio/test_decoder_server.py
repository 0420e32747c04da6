"""Decoders that crash, hang, lie or outlive their file."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from editorbot_core.audio import decoder as decoding
from editorbot_core.audio import decoder_server as decoders
from editorbot_core.audio.decoder import DecodingLimits
from editorbot_core.audio.files import open_audio, read_audio, write_audio
from editorbot_core.base.errors import AudioError
from tests.core.audio.conftest import tone, with_decoder


def test_a_decoder_that_crashes_is_an_error_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_audio(tmp_path / "a.wav", tone())
    with_decoder(monkeypatch, tmp_path, "os.kill(os.getpid(), signal.SIGSEGV)")
    for _ in range(2):
        with pytest.raises(AudioError, match=r"a\.wav: the decoder crashed on it \(SIGSEGV\)"):
            read_audio(tmp_path / "a.wav")


def test_a_decoder_that_ends_early_is_an_error_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_audio(tmp_path / "a.wav", tone())
    with_decoder(monkeypatch, tmp_path, "os._exit(3)")
    with pytest.raises(AudioError, match=r"a\.wav: the decoder ended early \(status 3\)"):
        read_audio(tmp_path / "a.wav")


def test_a_decoder_that_hangs_is_an_error_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_audio(tmp_path / "a.wav", tone())
    with_decoder(monkeypatch, tmp_path, "time.sleep(60)")
    with pytest.raises(AudioError, match=r"made no progress for 0\.3 s"):
        read_audio(tmp_path / "a.wav", limits=DecodingLimits(stall_s=0.3))


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_no_decoder_is_left_behind(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav", tone(60.0))
    with open_audio(tmp_path / "a.wav") as stream:
        next(iter(stream))
        pid = stream._decoder._pid
        assert _lives(pid)
    assert not _lives(pid)


def test_a_server_of_decoders_that_died_is_replaced(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav", tone(60.0))
    with open_audio(tmp_path / "a.wav") as stream:
        blocks = iter(stream)
        next(blocks)
        server = decoders.decoder_server()
        os.kill(server._process.pid, signal.SIGKILL)
        server._process.wait()
        # What is being decoded is decoded to the end.
        assert sum(len(block) for block in blocks) == 60 * 22_050 - decoding.BLOCK_FRAMES
    assert read_audio(tmp_path / "a.wav").n_samples == 60 * 22_050
    assert decoders.decoder_server() is not server


def test_threads_share_the_server_of_decoders(tmp_path: Path) -> None:
    for i in range(4):
        write_audio(tmp_path / f"{i}.wav", tone(1.0 + i))
    with ThreadPoolExecutor(4) as threads:
        clips = list(threads.map(lambda i: read_audio(tmp_path / f"{i % 4}.wav"), range(24)))
    assert [clip.n_samples for clip in clips] == [(1 + i % 4) * 22_050 for i in range(24)]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ('decoding.BLOCK, struct.pack("<f", float("nan"))', "not finite numbers"),
        ('decoding.END, b"22050"', "the decoder sent 0 samples of 22050"),
        ("decoding.BLOCK, bytes(2**25)", "the decoder sent a message of 33554432 bytes"),
    ],
)
def test_a_decoder_that_was_taken_over_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: str, reason: str
) -> None:
    write_audio(tmp_path / "a.wav", tone())
    header = '{"sample_rate": 22050, "n_channels": 1, "container": "WAV"}'
    action = f"""yield decoding.HEADER, b'{header}'
    yield {message}"""
    with_decoder(monkeypatch, tmp_path, action)
    with pytest.raises(AudioError, match=reason):
        read_audio(tmp_path / "a.wav")
