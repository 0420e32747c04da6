"""The process that decodes: its limits, its messages, and what becomes of it."""

from pathlib import Path

import numpy as np
import pytest

from editorbot_core.audio import decoder as decoding
from editorbot_core.audio.clip import AudioClip
from editorbot_core.audio.decoder import DecodingLimits, SampleForm
from editorbot_core.audio.files import read_audio, write_audio
from editorbot_core.base.errors import AudioError
from tests.core.audio.conftest import tone, with_decoder


def test_limits_stop_long_audio(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.flac", AudioClip(np.zeros((1, 30 * 22_050), dtype=np.float32), 22_050))
    with pytest.raises(AudioError, match="longer than 10 s"):
        read_audio(tmp_path / "a.flac", limits=DecodingLimits(max_duration_s=10.0))


def test_limits_stop_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_audio(tmp_path / "a.wav", tone())
    # More than the limit in one piece, whatever memory the process had to spare before the limit was set.
    with_decoder(monkeypatch, tmp_path, "bytearray(2**31)")
    with pytest.raises(AudioError, match=r"a\.wav: decoding needs more than 1024 MiB"):
        read_audio(tmp_path / "a.wav", limits=DecodingLimits(memory_bytes=2**30))


def test_a_decoder_that_uses_too_much_time_is_an_error_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_audio(tmp_path / "a.wav", tone())
    with_decoder(monkeypatch, tmp_path, "os.kill(os.getpid(), signal.SIGXCPU)")
    with pytest.raises(AudioError, match="processor time"):
        read_audio(tmp_path / "a.wav")


def test_decoding_writes_messages_to_a_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "_limit_process", lambda limits: None)
    write_audio(tmp_path / "a.wav", tone(0.1))
    with (tmp_path / "a.wav").open("rb") as audio, (tmp_path / "messages").open("wb") as output:
        form = SampleForm(mono=True, sample_rate=44_100)
        assert decoding.decode_into(output.fileno(), audio.fileno(), form, DecodingLimits()) == 0
    messages = (tmp_path / "messages").read_bytes()
    assert messages.startswith(decoding.HEADER)
    assert messages.endswith(decoding.MESSAGE.pack(decoding.END, 4) + b"2205")
