"""The 121 feature columns: name, unit, range and definition, in the order in which they are stored.

Columns `*_diff` hold the change of another column from the beat before. `python -m
editorbot_core.analysis.features.columns` prints the page `docs/features.md`, which a test compares with this module.
"""

import math
import sys
from collections.abc import Iterator
from itertools import pairwise, starmap
from typing import NamedTuple

from editorbot_core.analysis.dsp.filterbanks import (
    FRAME_RATE,
    HOP_LENGTH,
    N_CONTRAST,
    N_FFT,
    N_MELS,
    N_MFCC,
    SAMPLE_RATE,
)
from editorbot_core.analysis.dsp.stems import STEM_NAMES
from editorbot_core.base.errors import ParameterError

_NYQUIST = SAMPLE_RATE / 2
# The largest absolute sample that is read; full scale is 1.
_PEAK = 16.0
# Range of levels in dB below the loudest.
_TOP_DB = 80.0
_COSINE, _SLOPE = "cosine coefficient", "least-squares slope of"
_CONTRAST = "mean of the strongest 2 % of magnitudes over that of the weakest 2 %"
_PITCHES = ("c", "cs", "d", "ds", "e", "f", "fs", "g", "gs", "a", "as", "b")
_PITCH_SIGNS = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")


# What columns measure; every column belongs to one group, and whoever compares songs names a union of groups.
_SHAPE = "spectral shape"
GROUPS = (
    *("level", "zero crossings", _SHAPE, "contrast", "MFCC", "MFCC delta", "chroma", "difference"),
    *("bar phase", "grid", "stem energy", "stem centroid", "stem share"),
)
# What is heard at a beat: everything but differences between beats and what describes the grid.
SOUND_GROUPS = tuple(group for group in GROUPS if group not in ("difference", "bar phase", "grid"))


class FeatureColumn(NamedTuple):
    """One column.

    Attributes:
        name: In files and in code.
        group: One of `GROUPS`.
        unit: Of the values; "" for plain numbers.
        low: Smallest value that is possible.
        high: Largest value that is possible.
        definition: In one line.
    """

    name: str
    group: str
    unit: str
    low: float
    high: float
    definition: str


_CONTRAST_EDGES = (0.0, *(200.0 * 2**band for band in range(N_CONTRAST - 1)), _NYQUIST)
# Over nine frames a slope is at most a sixth of the range.
_STEEPEST = tuple(math.ceil(span / 6) for span in (_TOP_DB * math.sqrt(N_MELS), *[816.0] * (N_MFCC - 1)))
_MIX = (
    ("onset_strength", "level", "dB", 0.0, _TOP_DB, f"mean rise of the {N_MELS} mel bands from frame to frame"),
    ("rms", "level", "full scale", 0.0, _PEAK, f"root mean square of the {N_FFT:,} samples of a frame"),
    ("spectral_centroid", _SHAPE, "Hz", 0.0, _NYQUIST, "mean frequency, weighted by magnitude"),
    ("zero_crossing_rate", "zero crossings", "share", 0.0, 1.0, "sign changes over samples of a frame"),
    ("spectral_rolloff", _SHAPE, "Hz", 0.0, _NYQUIST, "frequency below which 85 % of the magnitude lie"),
    ("spectral_bandwidth", _SHAPE, "Hz", 0.0, _NYQUIST / 2, "deviation from the centroid, weighted by magnitude"),
    ("spectral_flatness", _SHAPE, "share", 0.0, 1.0, "geometric over arithmetic mean of the power spectrum"),
    *(
        (f"spectral_contrast_{i}", "contrast", "dB", 0.0, 143.0, f"{_CONTRAST}, {low:.0f}-{high:.0f} Hz")
        for i, (low, high) in enumerate(pairwise(_CONTRAST_EDGES), 1)
    ),
    # Of 128 bands between -100 dB and the loudest possible; above the first, bands differ by at most 80 dB.
    ("mfcc_01", "MFCC", "dB", -1_132.0, 960.0, f"{_COSINE} 0 of the mel bands in dB (loudness)"),
    *(
        (f"mfcc_{i + 1:02d}", "MFCC", "dB", -408.0, 408.0, f"{_COSINE} {i} of the mel bands in dB ({i / 2:g} cycles)")
        for i in range(1, N_MFCC)
    ),
    *(
        (f"mfcc_delta_{i:02d}", "MFCC delta", "dB per frame", -most, most, f"{_SLOPE} `mfcc_{i:02d}` over nine frames")
        for i, most in enumerate(_STEEPEST, 1)
    ),
    *(
        (f"chroma_{name}", "chroma", "share", 0.0, 1.0, f"power at pitch class {sign}, of the strongest class")
        for name, sign in zip(_PITCHES, _PITCH_SIGNS, strict=True)
    ),
)
_GRID = (
    ("beat_phase", "grid", "bars", 0.0, 1.0, "place in the bar, 0 at the downbeat, below 1"),
    ("beat_phase_sin", "bar phase", "", -1.0, 1.0, "sine of `beat_phase`, as an angle"),
    ("beat_phase_cos", "bar phase", "", -1.0, 1.0, "cosine of `beat_phase`, as an angle"),
    ("tempo_deviation", "grid", "ln", -1.5, 1.5, "logarithm of the beat's length over the song's median"),
    ("inter_beat_interval_ratio", "grid", "", 0.2, 5.0, "length of the beat over that of the beat before"),
)


def _differences() -> Iterator[FeatureColumn]:
    for column in starmap(FeatureColumn, _MIX):
        span, text = column.high - column.low, f"`{column.name}` less that of the beat before"
        yield FeatureColumn(f"{column.name}_diff", "difference", column.unit, -span, span, text)


def _stem_columns() -> Iterator[FeatureColumn]:
    for stem in STEM_NAMES:
        energy, centroid = f"root mean square of the pseudo-stem {stem}", f"mean frequency of {stem}, weighted by power"
        yield FeatureColumn(f"{stem}_energy", "stem energy", "full scale", 0.0, _PEAK, energy)
        yield FeatureColumn(f"{stem}_centroid", "stem centroid", "Hz", 0.0, _NYQUIST, f"{centroid}; 0: silent")
        share = f"power of {stem} over that of the four pseudo-stems"
        yield FeatureColumn(f"{stem}_energy_share", "stem share", "share", 0.0, 1.0, share)


FEATURE_COLUMNS: tuple[FeatureColumn, ...] = (
    *starmap(FeatureColumn, _MIX),
    *_differences(),
    *starmap(FeatureColumn, _GRID),
    *_stem_columns(),
)
FEATURE_NAMES: tuple[str, ...] = tuple(column.name for column in FEATURE_COLUMNS)
N_FEATURES = len(FEATURE_NAMES)
FEATURE_INDEX: dict[str, int] = {name: i for i, name in enumerate(FEATURE_NAMES)}


def columns_of(*groups: str) -> list[int]:
    """Indices of the columns of these groups, rising.

    >>> [FEATURE_NAMES[i] for i in columns_of("level", "bar phase")]
    ['onset_strength', 'rms', 'beat_phase_sin', 'beat_phase_cos']
    """
    unknown = sorted(set(groups) - set(GROUPS))
    if unknown:
        raise ParameterError(f"there is no group of columns {unknown[0]!r}; there are {', '.join(GROUPS)}")
    return [i for i, column in enumerate(FEATURE_COLUMNS) if column.group in groups]


def span(group: str) -> slice:
    """The columns of one group whose columns stand side by side, as a slice, which takes them without a copy.

    >>> span("chroma")
    slice(40, 52, None)
    """
    found = columns_of(group)
    if found != list(range(found[0], found[-1] + 1)):
        raise ParameterError(f"the columns of {group!r} do not stand side by side")
    return slice(found[0], found[-1] + 1)


_PAGE = """# Features of a beat

{n_features} numbers per beat, float32, not standardised; models do that. This page is printed by
`python -m editorbot_core.analysis.features.columns`.

## Rows

- Row *i* describes the audio from beat *i* to beat *i* + 1: the mean over the frames centred in between. A beat with no
  frame in it takes the next frame.
- The first row begins with the first beat: the lead-in before it is in no row. The last row ends with the audio and
  includes the final decay.
- Audio is the mean of the channels at {sample_rate:,} Hz (soxr, HQ). A frame is {n_fft:,} samples under a periodic
  Hann window, centred on a multiple of {hop_length} samples ({frame_rate:.1f} frames a second); beyond its ends the
  audio is silent.
- Differences are 0 in the first row. The length of the last beat counts as that of the beat before it.
- `beat_phase` comes from the estimated downbeats; in a bar that is longer than the song's usual bar it starts again.

## Definitions in detail

- **RMS** is computed from samples without a window (librosa's `rms(y=)`); from spectra it would differ by up to 40 %.
- **Mel** bands are {n_mels} Slaney triangles of unit area on the power spectrum; in dB they are at least -100 dB and at
  most {top_db:.0f} dB below the song's loudest. One mel spectrogram serves onset strength, MFCC and pseudo-stems.
- **MFCC** are coefficients 0-{last_mfcc} of the orthonormal cosine transform (type II) of the mel bands in dB, without
  liftering.
- **Contrast** is 10 log10 of magnitudes, peaks and valleys each counted to {top_db:.0f} dB below the song's largest.
- **Chroma** comes from the power spectrum, tuned to the song: the deviation from A = 440 Hz, in hundredths of a
  semitone, that most spectral peaks share, estimated on the first ten minutes.
- **Deltas** at the ends of a song are those of the first and the last full window.
- All features that exist in librosa 0.11 have its default definition; `make bench` prints the largest differences.

## Pseudo-stems

Masks on the mel power spectrogram that sum to one. They are proxies, not separated audio.

| stem | definition | correlation |
|---|---|---|
{stems}

The correlation is that of `*_energy` with the energy of the true stem, beat by beat, averaged over the first twelve
demo songs (in brackets: that of the RMS of the mix); `make bench` measures it. Recordings are harder.

With `separator=demucs` (`pip install 'editorbot[demucs]'`; weights are downloaded once, by hand) the stems are those of
Hybrid Transformer Demucs (Rouard, Massa and Défossez 2023) on the mono mix. It holds the whole song in memory and is
far slower. A file of features names its separator in the schema metadata, `separator`; a model needs songs with the
separator that it was trained on. There is no fallback to masks: if Demucs or its weights are missing, that is an error.

## Columns

Ranges are what is possible for audio that is read (samples up to {peak:.0f} times full scale); those of
`tempo_deviation` and `inter_beat_interval_ratio` are what tracked beats stay within. Groups partition the columns: what
compares songs names the groups it compares.

| # | name | group | unit | range | definition |
|---|---|---|---|---|---|
{columns}
"""
# Definition, correlation of the energy, and of the mix's, with the true stem.
_STEMS = {
    "drums": (
        "energy smooth across frequency rather than along time: medians of 13 bands, 17 frames (Fitzgerald 2010)",
        0.72,
        0.55,
    ),
    "bass": ("of the rest, energy below about 200 Hz", 0.78, 0.64),
    "vocals": (
        "of the rest, energy in 150-5,000 Hz above 2.4 s of background (as in REPET: Rafii and Pardo 2013)",
        0.90,
        0.75,
    ),
    "other": ("the remainder", 0.73, 0.68),
}


def page() -> str:
    """The text of `docs/features.md`."""
    stems = [
        f"| {stem} | {definition} | {correlation:.2f} ({of_mix:.2f}) |"
        for stem, (definition, correlation, of_mix) in _STEMS.items()
    ]
    columns = [
        f"| {i} | `{column.name}` | {column.group} | {column.unit} | {column.low:g} to {column.high:g} "
        f"| {column.definition} |"
        for i, column in enumerate(FEATURE_COLUMNS)
    ]
    return _PAGE.format(
        n_features=N_FEATURES,
        sample_rate=SAMPLE_RATE,
        n_fft=N_FFT,
        hop_length=HOP_LENGTH,
        frame_rate=FRAME_RATE,
        n_mels=N_MELS,
        last_mfcc=N_MFCC - 1,
        top_db=_TOP_DB,
        peak=_PEAK,
        stems="\n".join(stems),
        columns="\n".join(columns),
    )


if __name__ == "__main__":
    sys.stdout.write(page())
