"""Formats by suffix: what can be written can be read again, and the refusal names what can be written."""

from pathlib import Path

import numpy as np
import pytest

from editorbot_core.audio.clip import AudioClip
from editorbot_core.audio.files import read_audio, write_audio
from editorbot_core.audio.formats import AUDIO_SUFFIXES, WRITTEN_SUFFIXES, check_output
from editorbot_core.base.errors import ParameterError


@pytest.mark.parametrize("suffix", WRITTEN_SUFFIXES)
def test_what_is_written_is_found_and_read_again(suffix: str, tmp_path: Path) -> None:
    assert suffix in AUDIO_SUFFIXES
    path = tmp_path / f"tone{suffix.upper()}"
    check_output(path)
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(44_100) / 44_100)
    write_audio(path, AudioClip(tone[None].astype(np.float32), 44_100))
    assert read_audio(path).duration_s == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("name", ["edit.txt", "edit", "edit.wav.bak"])
def test_other_suffixes_are_refused_with_those_that_can_be_written(name: str) -> None:
    with pytest.raises(ParameterError, match=r"\.wav, \.flac, \.ogg, \.mp3, \.m4a"):
        check_output(Path(name))
