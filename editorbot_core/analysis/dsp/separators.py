"""Stem separators by name: masks on the mel spectrogram, or Demucs with its own weights.

A separator has a name, which configurations use, and a version, which is stored with the features made with it: a song
whose features are of another version is analysed again. Demucs is used only if the user has installed it; nothing is
downloaded here, and there is no fallback.
"""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from editorbot_core.analysis.dsp.filterbanks import SAMPLE_RATE
from editorbot_core.analysis.dsp.frames import FrameFeatures, analyse_frames
from editorbot_core.analysis.dsp.stems import STEM_NAMES, StemFrames, mel_stem, stem_frames
from editorbot_core.analysis.names import DEFAULT_SEPARATOR, check_separator
from editorbot_core.audio.clip import AudioClip, resample
from editorbot_core.base.errors import ParameterError

DEMUCS_MODEL = "htdemucs"
_DEMUCS_WEIGHTS = "955717e8-8726e21a.th"


def separator_version(name: str) -> str:
    """Version of the separator `name`, as stored with features; for Demucs it contains the version of the package.

    Raises:
        ParameterError: If there is no such separator, or its package is not installed.
    """
    package = check_separator(name)
    return name if name == DEFAULT_SEPARATOR else f"demucs-{package}-{DEMUCS_MODEL}"


def separates_samples(name: str) -> bool:
    """Whether a separator needs the samples, beyond the frame features."""
    return name == "demucs"


def find_stems(name: str, frames: FrameFeatures, samples: np.ndarray | None = None) -> StemFrames:
    """The stems of a song, per frame.

    Args:
        name: One of `SEPARATORS`.
        frames: Frame features of the song.
        samples: The song, mono, float32 (n,) at `SAMPLE_RATE`; for separators of which `separates_samples` is true.

    Raises:
        ParameterError: If there is no such separator, or its package or weights are missing.
    """
    separator_version(name)
    if name == "demucs":
        assert samples is not None
        return _demucs_stems(samples)
    return stem_frames(frames.mel)


def _demucs_stems(samples: np.ndarray) -> StemFrames:
    """Stems by a hybrid transformer (Rouard, Massa and Défossez 2023), of the mono mix."""
    import torch
    from demucs.apply import apply_model

    model = _demucs_model()
    mix = resample(AudioClip(samples[None], SAMPLE_RATE), model.samplerate).samples
    mean, scale = float(mix.mean()), float(mix.std()) + 1e-8
    heard = torch.from_numpy(np.repeat((mix - mean) / scale, model.audio_channels, axis=0))[None]
    with torch.inference_mode():
        # Without random shifts, so that the same file has the same features.
        parts = apply_model(model, heard, shifts=0, split=True, device="cpu")[0].mean(dim=1).numpy() * scale + mean
    found = []
    for stem in STEM_NAMES:
        part = AudioClip(parts[model.sources.index(stem)][None].astype(np.float32), model.samplerate)
        # Trimmed or padded to the length of the mix, since both conversions of rate round.
        own = np.zeros_like(samples)
        back = resample(part, SAMPLE_RATE).samples[0][: len(own)]
        own[: len(back)] = back
        found.append(mel_stem(analyse_frames(own).mel))
    return StemFrames(*(np.stack(column, axis=1) for column in zip(*found, strict=True)))


@cache
def _demucs_model() -> Any:
    """The model that separates a stereo mix at 44.1 kHz; its weights must have been downloaded."""
    import torch
    from demucs.pretrained import get_model

    weights = Path(torch.hub.get_dir()) / "checkpoints" / _DEMUCS_WEIGHTS
    if not weights.is_file():
        raise ParameterError(
            f"separator 'demucs' needs its weights at {weights}; fetch them once with "
            f'python -c "from demucs.pretrained import get_model; get_model({DEMUCS_MODEL!r})"'
        )
    return get_model(DEMUCS_MODEL).eval()
