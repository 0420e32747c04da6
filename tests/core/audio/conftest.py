"""Tones, and decoders that misbehave."""

from pathlib import Path

import numpy as np
import pytest

from editorbot_core.audio import decoder as decoding
from editorbot_core.audio.clip import AudioClip


def tone(duration_s: float = 2.0, *, sample_rate: int = 22_050, n_channels: int = 1, hz: float = 440.0) -> AudioClip:
    t = np.arange(round(duration_s * sample_rate)) / sample_rate
    rows = [0.4 * np.sin(2 * np.pi * hz * (channel + 1) * t) for channel in range(n_channels)]
    return AudioClip(np.array(rows, dtype=np.float32), sample_rate)


def with_decoder(monkeypatch: pytest.MonkeyPatch, folder: Path, action: str) -> None:
    """Decoders that do `action` where they would decode."""
    script = f"""
import os, signal, struct, sys, time
sys.path.insert(0, {str(Path(decoding.__file__).parents[2])!r})
from editorbot_core.audio import decoder as decoding
def decode(descriptor, limits):
    {action}
    yield decoding.HEADER, b""
decoding.decode = decode
decoding.in_form = lambda messages, form, limits: messages
sys.exit(decoding.main())
"""
    (folder / "decoder.py").write_text(script)
    monkeypatch.setattr(decoding, "__file__", str(folder / "decoder.py"))
