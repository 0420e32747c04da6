"""Synthesis of the demo songs: notes to samples, by instruments, a drum kit, a room and a limiter.

A voice makes one note, mono, with a peak of about 1; `perform` places notes in time, `add_room` puts them in a room,
`finish` sets the level. Stems are float32 `(n_channels, n_samples)`. Times are seconds, pitches MIDI note numbers
(69 is 440 Hz).

Methods: frequency modulation (Chowning 1973), plucked strings (Karplus and Strong 1983), wavetables of band-limited
partials, and a room of decaying noise.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import signal

from editorbot_core.base.errors import ParameterError

PARTS = ("drums", "bass", "vocals", "other")

_TABLE_SIZE = 4096
_VARIANTS = 3
_LIMIT_KNEE = 0.7


class Note(NamedTuple):
    """One note or drum stroke.

    Attributes:
        start_s: Onset, s from the start of the song.
        duration_s: Time the key is held, s; ignored for drums.
        pitch: MIDI note number; ignored for drums.
        gain: Linear gain, > 0.
        instrument: A name in `INSTRUMENTS` or `DRUMS`.
        part: One of `PARTS`.
        pan: Position between the loudspeakers, -1 left to 1 right; ignored in mono.
    """

    start_s: float
    duration_s: float
    pitch: int
    gain: float
    instrument: str
    part: str
    pan: float = 0.0


class _Tone(NamedTuple):
    """One note of a voice: frequency in Hz, duration in s, sample rate in Hz, generator of small irregularities."""

    frequency: float
    duration_s: float
    sample_rate: int
    rng: np.random.Generator

    def times(self, release_s: float) -> np.ndarray:
        return np.arange(int((self.duration_s + release_s) * self.sample_rate)) / self.sample_rate


def _gate(tone: _Tone, t: np.ndarray, *, attack_s: float, release_s: float) -> np.ndarray:
    """Rise over `attack_s`, fall over `release_s` from the end of the note, both as half a cosine."""
    rise = np.clip(t / attack_s, 0.0, 1.0)
    fall = np.clip(1.0 - (t - tone.duration_s) / release_s, 0.0, 1.0)
    return 0.25 * (1 - np.cos(np.pi * rise)) * (1 - np.cos(np.pi * fall))


def _table(amplitudes: np.ndarray) -> np.ndarray:
    """One period of the sum of harmonics 1, 2, ... with the given amplitudes, peak 1, its first sample repeated."""
    spectrum = np.zeros(_TABLE_SIZE // 2 + 1, dtype=complex)
    spectrum[1 : len(amplitudes) + 1] = -1j * amplitudes
    period = np.fft.irfft(spectrum, _TABLE_SIZE)
    return np.append(period, period[0]) / np.abs(period).max()


def _oscillate(table: np.ndarray, cycles: np.ndarray) -> np.ndarray:
    """Read a period at phases `cycles`, with linear interpolation."""
    place = (cycles % 1.0) * _TABLE_SIZE
    index = np.minimum(place.astype(np.int64), _TABLE_SIZE - 1)
    low = table[index]
    return low + (place - index) * (table[index + 1] - low)


def _harmonics(tone: _Tone, n_max: int) -> np.ndarray:
    """Numbers 1, 2, ... of the harmonics below 0.45 of the sample rate, at most `n_max`."""
    return np.arange(1, max(1, min(n_max, int(0.45 * tone.sample_rate / tone.frequency))) + 1)


def _ensemble(
    tone: _Tone, amplitudes: np.ndarray, t: np.ndarray, *, cents: Sequence[float], vibrato_cents: float = 0.0
) -> np.ndarray:
    """Several detuned oscillators of one table, with a vibrato that grows in the first 0.4 s."""
    table = _table(amplitudes)
    phase = tone.rng.random(len(cents))
    rate = 5.0 + 0.6 * tone.rng.standard_normal()
    depth = np.log(2) / 1200 * vibrato_cents / (2 * np.pi * rate)
    wobble = depth * np.minimum(t / 0.4, 1.0) * np.sin(2 * np.pi * rate * t)
    voices = [
        _oscillate(table, tone.frequency * 2 ** (c / 1200) * (t + wobble) + p)
        for c, p in zip(cents, phase, strict=True)
    ]
    return np.sum(voices, axis=0) / len(cents)


def _electric_piano(tone: _Tone) -> np.ndarray:
    t = tone.times(0.15)
    base = 2 * np.pi * tone.frequency * t
    body = np.sin(base + (0.25 + 1.1 * np.exp(-t / 0.35)) * np.sin(base + tone.rng.random()))
    ratio = 7.0 if 7.0 * tone.frequency < 0.45 * tone.sample_rate else 3.0
    tine = 0.18 * np.exp(-t / 0.06) * np.sin(ratio * base)
    return (body + tine) * np.exp(-t / 1.3) * _gate(tone, t, attack_s=0.004, release_s=0.15)


def _pad(tone: _Tone) -> np.ndarray:
    t = tone.times(0.4)
    k = _harmonics(tone, 16)
    amplitudes = k**-1.1 * np.exp(-k * tone.frequency / 2200)
    return _ensemble(tone, amplitudes, t, cents=(-7.0, 0.0, 8.0)) * _gate(tone, t, attack_s=0.09, release_s=0.4)


def _organ(tone: _Tone) -> np.ndarray:
    t = tone.times(0.06)
    amplitudes = np.array([1.0, 0.7, 0.35, 0.3, 0.0, 0.15, 0.0, 0.12])[: len(_harmonics(tone, 8))]
    tremolo = 1 + 0.12 * np.sin(2 * np.pi * 6.1 * t + tone.rng.random())
    sound = _ensemble(tone, amplitudes, t, cents=(-2.0, 2.0)) * tremolo
    return sound * _gate(tone, t, attack_s=0.008, release_s=0.06)


def _string(tone: _Tone, *, brightness: float, decay_s: float, release_s: float) -> np.ndarray:
    """A plucked string: noise in a delay line of one period, low-passed on each pass (Karplus and Strong 1983)."""
    t = tone.times(release_s)
    period = tone.sample_rate / tone.frequency
    # The three taps delay by 1 - damping samples more than `size` plus the fraction.
    damping = 0.5 + 0.45 * brightness
    size = int(period - (1 - damping))
    fraction = period - (1 - damping) - size
    taps = np.convolve([1 - fraction, fraction], [damping, 1 - damping]) * 0.001 ** (
        period / tone.sample_rate / decay_s
    )
    y = np.zeros(size + 2 + len(t) + size)
    pluck = tone.rng.uniform(-1, 1, size)
    pluck = pluck - np.roll(pluck, max(1, size // 5))
    y[2 : size + 2] = signal.lfilter([0.3 + 0.7 * brightness], [1, -0.7 * (1 - brightness)], pluck)
    for start in range(size + 2, size + 2 + len(t), size):
        past = y[start - size - 2 : start]
        y[start : start + size] = taps[0] * past[2:] + taps[1] * past[1:-1] + taps[2] * past[:-2]
    sound = y[2 : 2 + len(t)]
    return sound / np.abs(sound[:size]).max() * _gate(tone, t, attack_s=0.002, release_s=release_s)


def _guitar(tone: _Tone) -> np.ndarray:
    return _string(tone, brightness=0.45, decay_s=2.6, release_s=0.12)


def _pluck_lead(tone: _Tone) -> np.ndarray:
    return _string(tone, brightness=0.9, decay_s=3.0, release_s=0.2)


def _picked_bass(tone: _Tone) -> np.ndarray:
    return np.tanh(1.6 * _string(tone, brightness=0.25, decay_s=2.2, release_s=0.06))


def _round_bass(tone: _Tone) -> np.ndarray:
    t = tone.times(0.08)
    base = 2 * np.pi * tone.frequency * t
    sound = np.sin(base) + 0.45 * np.sin(2 * base) * np.exp(-t / 0.5) + 0.25 * np.sin(3 * base) * np.exp(-t / 0.2)
    return np.tanh(1.2 * sound) * np.exp(-t / 1.6) * _gate(tone, t, attack_s=0.006, release_s=0.08)


def _saw_bass(tone: _Tone) -> np.ndarray:
    t = tone.times(0.07)
    k = _harmonics(tone, 24)
    dark = _ensemble(tone, np.exp(-k / 3.0) / k, t, cents=(-4.0, 4.0))
    bright = _ensemble(tone, np.exp(-k / 9.0) / k, t, cents=(0.0,)) * np.exp(-t / 0.15)
    return (dark + 0.6 * bright) * _gate(tone, t, attack_s=0.005, release_s=0.07)


def _flute(tone: _Tone) -> np.ndarray:
    t = tone.times(0.12)
    amplitudes = np.array([1.0, 0.45, 0.18, 0.06, 0.03])[: len(_harmonics(tone, 5))]
    breath = signal.lfilter([0.2], [1, -0.8], tone.rng.standard_normal(len(t))) * (0.02 + 0.2 * np.exp(-t / 0.04))
    sound = _ensemble(tone, amplitudes, t, cents=(0.0,), vibrato_cents=14.0) + breath
    return sound * _gate(tone, t, attack_s=0.035, release_s=0.12)


def _voice(tone: _Tone) -> np.ndarray:
    """A sung 'ah': a harmonic source through three formants."""
    t = tone.times(0.14)
    k = _harmonics(tone, 40)
    formants = ((750.0, 130.0, 1.0), (1200.0, 160.0, 0.6), (2700.0, 250.0, 0.25))
    f = k * tone.frequency
    shape = sum((gain / (1 + ((f - centre) / width) ** 2) for centre, width, gain in formants), start=0.03 + 0.0 * f)
    sound = _ensemble(tone, shape / k**0.5, t, cents=(-5.0, 6.0), vibrato_cents=22.0)
    return sound * _gate(tone, t, attack_s=0.05, release_s=0.14)


def _reed(tone: _Tone) -> np.ndarray:
    t = tone.times(0.09)
    k = _harmonics(tone, 18)
    amplitudes = np.where(k % 2 == 1, 1.0, 0.35) * k**-0.9 * np.exp(-k * tone.frequency / 4000)
    sound = _ensemble(tone, amplitudes, t, cents=(0.0,), vibrato_cents=12.0)
    return sound * (0.75 + 0.25 * np.exp(-t / 0.2)) * _gate(tone, t, attack_s=0.02, release_s=0.09)


def _bell(tone: _Tone) -> np.ndarray:
    t = tone.times(0.5)
    base = 2 * np.pi * tone.frequency * t
    ratio = 3.5 if 4.5 * tone.frequency < 0.45 * tone.sample_rate else 1.5
    sound = np.sin(base + 1.4 * np.exp(-t / 0.3) * np.sin(ratio * base))
    return sound * np.exp(-t / 0.8) * _gate(tone, t, attack_s=0.003, release_s=0.5)


INSTRUMENTS: Mapping[str, Callable[[_Tone], np.ndarray]] = {
    "electric_piano": _electric_piano,
    "pad": _pad,
    "organ": _organ,
    "guitar": _guitar,
    "picked_bass": _picked_bass,
    "round_bass": _round_bass,
    "saw_bass": _saw_bass,
    "flute": _flute,
    "voice": _voice,
    "reed": _reed,
    "bell": _bell,
    "pluck_lead": _pluck_lead,
}


def _filtered_noise(rng: np.random.Generator, n: int, band: tuple[float, float], sample_rate: int) -> np.ndarray:
    high = min(band[1], 0.47 * sample_rate)
    sos = signal.butter(2, (band[0], high), btype="bandpass", fs=sample_rate, output="sos")
    noise = signal.sosfilt(sos, rng.standard_normal(n))
    return noise / np.abs(noise).max()


def _drum(t: np.ndarray, high: float, low: float, fall_s: float, decay_s: float) -> np.ndarray:
    """A drum skin: a decaying sine whose frequency falls from `high` to `low` Hz."""
    cycles = low * t + (high - low) * fall_s * (1 - np.exp(-t / fall_s))
    return np.sin(2 * np.pi * cycles) * np.exp(-t / decay_s)


DRUMS = ("kick", "snare", "rim", "closed_hat", "open_hat", "crash", "low_tom", "high_tom", "shaker")


def _drum_stroke(name: str, sample_rate: int, rng: np.random.Generator, tuning: float) -> np.ndarray:
    """One stroke of the drum `name`, tuned by the factor `tuning`."""
    lengths = {"crash": 2.2, "open_hat": 0.45, "kick": 0.4, "snare": 0.35, "low_tom": 0.45, "high_tom": 0.4}
    n = int(lengths.get(name, 0.16) * sample_rate)
    t = np.arange(n) / sample_rate

    def noise(low: float, high: float) -> np.ndarray:
        return _filtered_noise(rng, n, (low, high), sample_rate)

    if name == "kick":
        sound = _drum(t, 170 * tuning, 48 * tuning, 0.03, 0.13) + 0.25 * noise(800, 5000) * np.exp(-t / 0.006)
    elif name == "snare":
        sound = 0.5 * _drum(t, 260 * tuning, 185 * tuning, 0.02, 0.07) + 0.8 * noise(900, 9000) * np.exp(-t / 0.08)
    elif name == "rim":
        sound = _drum(t, 900 * tuning, 800 * tuning, 0.01, 0.018) + 0.4 * noise(1500, 8000) * np.exp(-t / 0.01)
    elif name == "closed_hat":
        sound = noise(6500, 16000) * np.exp(-t / 0.03)
    elif name == "open_hat":
        sound = noise(6000, 16000) * np.exp(-t / 0.16)
    elif name == "crash":
        sound = noise(3000, 15000) * (0.4 * np.exp(-t / 0.12) + 0.6 * np.exp(-t / 0.6))
    elif name == "shaker":
        sound = noise(4500, 12000) * np.minimum(t / 0.015, 1.0) * np.exp(-t / 0.035)
    elif name in ("low_tom", "high_tom"):
        pitch = (95.0 if name == "low_tom" else 150.0) * tuning
        sound = _drum(t, 1.6 * pitch, pitch, 0.04, 0.15) + 0.15 * noise(500, 4000) * np.exp(-t / 0.02)
    else:
        raise ParameterError(f"no drum {name!r}; there are {', '.join(DRUMS)}")
    return sound * np.clip((t[-1] - t) / 0.02, 0.0, 1.0)


def pitch_to_frequency(pitch: float) -> float:
    """Hz of a MIDI note number, equal temperament, 69 = 440 Hz."""
    return float(440.0 * 2.0 ** ((pitch - 69) / 12))


def perform(
    notes: Sequence[Note], *, duration_s: float, sample_rate: int, n_channels: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Play `notes`: a dry stem per part, float32 (n_channels, n_samples).

    A note of the same instrument, pitch and length sounds in one of three slightly different ways.

    Raises:
        ParameterError: If a note names an instrument or part that does not exist, or starts outside the song.
    """
    n_samples = int(np.ceil(duration_s * sample_rate))
    stems = {part: np.zeros((n_channels, n_samples), dtype=np.float32) for part in PARTS}
    tuning = float(rng.uniform(0.9, 1.1))
    cache: dict[tuple[str, int, int, int], np.ndarray] = {}
    for note in notes:
        start = round(note.start_s * sample_rate)
        if note.part not in stems or not 0 <= start < n_samples:
            raise ParameterError(f"{note} does not fit a song of {duration_s:.2f} s with parts {', '.join(PARTS)}")
        variant = int(rng.integers(_VARIANTS))
        # Held times within 20 ms of each other share one sound.
        length = 0 if note.instrument in DRUMS else max(1, round(note.duration_s / 0.02))
        key = (note.instrument, note.pitch, length, variant)
        if key not in cache:
            if note.instrument in INSTRUMENTS:
                tone = _Tone(pitch_to_frequency(note.pitch), 0.02 * length, sample_rate, rng)
                cache[key] = INSTRUMENTS[note.instrument](tone).astype(np.float32)
            else:
                cache[key] = _drum_stroke(note.instrument, sample_rate, rng, tuning).astype(np.float32)
        sound = cache[key][: n_samples - start] * np.float32(note.gain)
        # Equal power between the loudspeakers; 1 each in the middle.
        angle = np.pi / 4 * (1 + note.pan)
        gains = (2**0.5 * np.cos(angle), 2**0.5 * np.sin(angle)) if n_channels == 2 else (1.0,)
        for channel, gain in enumerate(gains):
            stems[note.part][channel, start : start + len(sound)] += np.float32(gain) * sound
    return stems


def add_room(stem: np.ndarray, *, sample_rate: int, wet: float, decay_s: float, rng: np.random.Generator) -> np.ndarray:
    """A stem (n_channels, n) with reverberation that decays by 60 dB in `decay_s`; `wet` is the gain of it."""
    if wet == 0:
        return stem
    n_channels, n_samples = stem.shape
    t = np.arange(int(decay_s * sample_rate)) / sample_rate
    noise = rng.standard_normal((n_channels, len(t)))
    # Highs die twice as fast.
    dull = signal.lfilter([0.25], [1, -0.75], noise, axis=1)
    response = 0.3 * noise * 1e-3 ** (2 * t / decay_s) + dull * 1e-3 ** (t / decay_s)
    response[:, : int(0.012 * sample_rate)] = 0.0
    response *= wet / np.sqrt((response**2).sum(axis=1, keepdims=True))
    send = stem.mean(axis=0, keepdims=True)
    return stem + signal.oaconvolve(send, response.astype(np.float32), axes=1)[:, :n_samples]


def mix_stems(stems: Mapping[str, np.ndarray]) -> np.ndarray:
    """The sum of the stems, float32 (n_channels, n_samples)."""
    mix = np.zeros_like(next(iter(stems.values())))
    for stem in stems.values():
        mix += stem
    return mix


def _limit(x: np.ndarray) -> np.ndarray:
    """A soft limiter: `x` up to 0.7, bent towards 1 above."""
    excess = np.maximum(np.abs(x) - _LIMIT_KNEE, 0.0)
    if not excess.any():
        return x
    room = 1 - _LIMIT_KNEE
    return np.sign(x) * (np.minimum(np.abs(x), _LIMIT_KNEE) + room * np.tanh(excess / room))


def finish(
    stems: Mapping[str, np.ndarray], *, level_db: float, ending_s: float, sample_rate: int
) -> dict[str, np.ndarray]:
    """The stems with one common gain, sample for sample, that sets their sum to `level_db` RMS below full scale.

    Peaks of the sum above 0.7 are limited and never reach 1; the last `ending_s` fade to silence.
    """
    mix = mix_stems(stems)
    n = mix.shape[1]
    fade = np.clip((n - np.arange(n, dtype=np.float32)) / np.float32(ending_s * sample_rate), 0.0, 1.0) ** 2
    mix *= fade
    # The limiter takes a little level away; a few rounds on every eighth sample settle it.
    some = mix[:, ::8]
    scale = 1.0
    for _ in range(6):
        scale *= 10 ** (level_db / 20) / float(np.sqrt(np.mean(_limit(scale * some) ** 2)))
    magnitude = np.float32(scale) * np.abs(mix)
    gain = np.float32(scale) * np.broadcast_to(fade, mix.shape)
    loud = magnitude > _LIMIT_KNEE
    gain[loud] *= _limit(magnitude[loud]) / magnitude[loud]
    return {part: stem * gain for part, stem in stems.items()}
