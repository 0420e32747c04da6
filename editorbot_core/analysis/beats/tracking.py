"""Beat tracking: from frame features to a beat grid.

Onsets in six bands of the mel spectrogram (a rise above the loudest neighbouring band of the frame before: Böck and
Widmer 2013) are made one activation at twice the frame rate. The beats are the best path through the states (time,
interval since the last beat) for intervals of 55-215 beats per minute, with the beat and non-beat likelihoods of
bar-pointer models (Whiteley et al. 2006; Krebs et al. 2015), a quadratic cost on changes of the logarithm of tempo, a
log-normal tempo prior and the autocorrelation of the song's own activation. Which beats start bars is decided by
changes of harmony and bass and by low against high onsets, as the best path through the positions of bars of three and
four.

Half and double tempo, the off-beat and every other phase of the bars are readings of the same song; a trained model
ranks them (`beats.readings`), and `track_beats` takes the first.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numba import njit

from editorbot_core.analysis.beats.grid import BeatGrid, region_bounds
from editorbot_core.analysis.beats.readings import (
    METRES,
    Instants,
    Reading,
    cosine_novelty,
    reading_features,
    reading_probabilities,
)
from editorbot_core.analysis.dsp.filterbanks import FRAME_RATE, N_MELS
from editorbot_core.analysis.dsp.frames import FrameFeatures, sums_from
from editorbot_core.analysis.dsp.lanes import LANES, choose_if_less, fill, load, maximum, store

TRACKER = "semi-markov-2"

ACTIVATION_RATE = 2 * FRAME_RATE
BAND_EDGES = (0, 8, 20, 36, 60, 90, N_MELS)
_PERIODICITY_WINDOW_S = 10.0
_PHASE_WINDOW_S = 15.0
_CHUNK_FRAMES = 1_024
# Most frames of the activation by which an interval differs from the one before.
_MAX_STEP = 6


@dataclass(frozen=True)
class TrackerConfig:
    """Constants of the tracker; the defaults lie on a wide plateau: on the 119 songs that train the ranking, no other
    value of one of them gains more than chance explains (`editorbot tune-tracker`).

    Attributes:
        compression: Gain before the logarithm of the mel spectrogram, relative to its mean.
        mean_s: Window of the moving mean that is taken off the onsets, s.
        gain_s: Window of the automatic gain control, s.
        full_scale: Onset, in units of its local deviation, that counts as certain.
        min_bpm: Slowest tempo.
        max_bpm: Fastest tempo.
        prior_bpm: Centre of the tempo prior.
        prior_octaves_e: Width of the tempo prior, natural logarithm of tempo.
        prior_weight: Weight of the tempo prior, per beat.
        periodicity_weight: Weight of the logarithm of the autocorrelation, per beat.
        non_beat_share: Frames between beats over frames on a beat, as the likelihood of a frame between beats sees it.
        tempo_change_cost: Cost per beat of a squared change of log tempo.
        bar_change_cost: Cost of a bar that is cut short, in units of the bar evidence.
        triple_cost: Advantage in evidence that a metre of three needs over one of four.
        level_change_cost: Advantage in evidence that double or half the tempo needs.
        min_level_bpm: Slowest tempo of a reading other than the tracker's own.
        max_level_bpm: Fastest tempo of such a reading.
    """

    compression: float = 100.0
    mean_s: float = 0.4
    gain_s: float = 5.0
    full_scale: float = 4.0
    min_bpm: float = 55.0
    max_bpm: float = 215.0
    prior_bpm: float = 100.0
    prior_octaves_e: float = 0.6
    prior_weight: float = 2.0
    periodicity_weight: float = 2.0
    non_beat_share: float = 5.0
    tempo_change_cost: float = 300.0
    bar_change_cost: float = 24.0
    triple_cost: float = 0.15
    level_change_cost: float = 0.7
    min_level_bpm: float = 40.0
    max_level_bpm: float = 240.0


class GridHypothesis(NamedTuple):
    """One reading of a song.

    Attributes:
        grid: Its beats and bars.
        level: Beats per beat of the tracker's own reading: 1, 2 (midpoints added), 0.5 (every second beat), or 1.5 for
            the midpoints alone.
        score: The higher the better: for readings of one song the probability of being right; for beats that were
            found elsewhere the evidence for their bars.
    """

    grid: BeatGrid
    level: float
    score: float


def _moving_mean(values: np.ndarray, width: int) -> np.ndarray:
    """Mean over `width` rows around each row, fewer at the ends."""
    sums = np.concatenate([np.zeros((1, *values.shape[1:])), np.cumsum(values, axis=0, dtype=np.float64)])
    place = np.arange(len(values))
    low = np.maximum(place - width // 2, 0)
    high = np.minimum(place + width // 2 + 1, len(values))
    return (sums[high] - sums[low]) / (high - low).reshape(-1, *[1] * (values.ndim - 1))


def _levels(mel: np.ndarray, bounds: Iterable[tuple[int, int]], compression: float) -> Iterator[np.ndarray]:
    """Compressed mel spectrogram, log(1 + gain * power), float32, of the frames between each pair of bounds."""
    gain = np.float32(compression / max(float(mel.mean(dtype=np.float64)), 1e-20))
    for low, high in bounds:
        level = mel[low:high] * gain
        yield np.log1p(level, out=level)


def band_onsets(mel: np.ndarray, *, compression: float = 100.0) -> np.ndarray:
    """Rise of the log mel spectrogram in six bands, low to high, float32 (F, 6), each over its deviation.

    Args:
        mel: Mel power spectrogram, float32 (F, 128).
        compression: Gain before the logarithm, relative to the mean power.
    """
    starts, widths = np.array(BAND_EDGES[:-1]), np.diff(BAND_EDGES).astype(np.float32)
    bands = np.zeros((len(mel), len(starts)), dtype=np.float32)
    bounds = [(low, min(low + _CHUNK_FRAMES + 1, len(mel))) for low in range(0, max(len(mel) - 1, 0), _CHUNK_FRAMES)]
    for (low, high), level in zip(bounds, _levels(mel, bounds, compression), strict=True):
        before = level[:-1].copy()
        np.maximum(before[:, 1:], level[:-1, :-1], out=before[:, 1:])
        np.maximum(before[:, :-1], level[:-1, 1:], out=before[:, :-1])
        rise = np.subtract(level[1:], before, out=before)
        np.maximum(rise, 0.0, out=rise)
        bands[low + 1 : high] = np.add.reduceat(rise, starts, axis=1) / widths
    return bands / (bands.std(axis=0) + np.float32(1e-9))


def beat_activation(onsets: np.ndarray, *, config: TrackerConfig) -> np.ndarray:
    """How much each instant looks like a beat, float64 (2 F - 1,) in (0, 1), at `ACTIVATION_RATE`."""
    total = onsets.sum(axis=1, dtype=np.float64)
    total = np.maximum(total - _moving_mean(total, int(config.mean_s * FRAME_RATE)), 0.0)
    gain = np.sqrt(_moving_mean(total**2, int(config.gain_s * FRAME_RATE)))
    total /= gain + 0.1 * gain.mean() + 1e-12
    doubled = np.empty(2 * len(total) - 1)
    doubled[::2] = total
    doubled[1::2] = 0.5 * (total[1:] + total[:-1])
    return 0.01 + 0.98 * np.minimum(doubled / config.full_scale, 1.0)


def _autocorrelation(values: np.ndarray, n_lags: int) -> np.ndarray:
    centred = values - values.mean()
    size = 1 << int(np.ceil(np.log2(len(centred) + n_lags + 1)))
    spectrum = np.fft.rfft(centred, size)
    correlation = np.fft.irfft(spectrum.real**2 + spectrum.imag**2, size)[: n_lags + 1]
    return correlation / max(correlation[0], 1e-12)


@njit(cache=True, nogil=True)
def _best_path(
    on_beat: np.ndarray,
    off_beat_sums: np.ndarray,
    intervals: np.ndarray,
    interval_score: np.ndarray,
    step_cost: np.ndarray,
) -> np.ndarray:
    """Frames of the beats on the best path, int64, in order.

    on_beat (T,) is the log-likelihood of a frame on a beat; off_beat_sums (T + 1,) the running sum of that between
    beats; step_cost[i, k] what it costs that interval k follows interval k + i - S, of 2 S + 1 steps (infinite: not
    allowed). Intervals rise by one frame.
    """
    n_frames, n_intervals = len(on_beat), len(intervals)
    n_steps, longest = len(step_cost), intervals[-1]
    max_step = n_steps // 2
    # What a beat is worth before its own frame, by frame and interval; filled as soon as the beat before is known.
    n_rows = longest + 1
    coming = np.empty((n_rows, n_intervals))
    # Steps from the interval before, from 0 to 2 max_step; -1 where the path begins.
    origin = np.full((n_frames, n_intervals), -1, dtype=np.int8)
    width = step_cost.shape[1]
    value = np.full(width + 2 * max_step, -np.inf)
    best, chosen = np.empty(width), np.empty(width)
    best_end, best_frame, best_interval = -np.inf, 0, 0
    row = -1
    for t in range(n_frames):
        row = row + 1 if row < longest else 0
        for k in range(n_intervals):
            before = off_beat_sums[t]
            if t >= intervals[k]:
                before = coming[row, k] + (off_beat_sums[t] - off_beat_sums[t - intervals[k] + 1])
            value[max_step + k] = before + on_beat[t] + interval_score[k]
        if t + longest >= n_frames:
            for k in range(n_intervals):
                ending = value[max_step + k] + off_beat_sums[n_frames] - off_beat_sums[t + 1]
                if t + intervals[k] >= n_frames and ending > best_end:
                    best_end, best_frame, best_interval = ending, t, k
        for k in range(0, width, LANES):
            greatest, step = fill(-np.inf), fill(0.0)
            for i in range(n_steps):
                stepped = load(value, k + i) - load(step_cost, i * width + k)
                step = choose_if_less(greatest, stepped, fill(np.float64(i)), step)
                greatest = maximum(greatest, stepped)
            store(best, k, greatest)
            store(chosen, k, step)
        for k in range(n_intervals):
            later = row + intervals[k]
            coming[later if later < n_rows else later - n_rows, k] = best[k]
            if t + intervals[k] < n_frames:
                origin[t + intervals[k], k] = int(chosen[k])
    path = np.empty(n_frames, dtype=np.int64)
    n_beats = 0
    t, k = best_frame, best_interval
    while True:
        path[n_beats] = t
        n_beats += 1
        if origin[t, k] < 0:
            break
        step = origin[t, k] - max_step
        t -= intervals[k]
        k += step
    return path[:n_beats][::-1].copy()


def beat_frames(activation: np.ndarray, *, config: TrackerConfig) -> np.ndarray:
    """Indices of the beats in the activation, int64, in order."""
    intervals = np.arange(
        int(60 * ACTIVATION_RATE / config.max_bpm), int(60 * ACTIVATION_RATE / config.min_bpm) + 1, dtype=np.int64
    )
    tempo = 60 * ACTIVATION_RATE / intervals
    periodicity = np.maximum(_autocorrelation(activation, int(intervals[-1]))[intervals], 0.0)
    prior = -0.5 * (np.log(tempo / config.prior_bpm) / config.prior_octaves_e) ** 2
    score = config.prior_weight * prior
    score += config.periodicity_weight * np.log(periodicity / max(periodicity.max(), 1e-12) + 0.02)
    before = intervals + np.arange(-_MAX_STEP, _MAX_STEP + 1)[:, None]
    change = np.full((len(before), -(-len(intervals) // LANES) * LANES), np.inf)
    costs = np.log(before / intervals) ** 2 * config.tempo_change_cost
    allowed = (before >= intervals[0]) & (before <= intervals[-1])
    change[:, : len(intervals)] = np.where(allowed, costs, np.inf)
    between = np.log((1 - activation) / config.non_beat_share)
    sums = np.concatenate([[0.0], np.cumsum(between)])
    return np.asarray(_best_path(np.log(activation), sums, intervals, score, change))


def _standardise(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / (values.std() + 1e-9)


def _instants(times: np.ndarray, frames: FrameFeatures, onsets: np.ndarray, *, compression: float) -> Instants:
    """Sums of frame features from each of `times` to the next, the last to the end of the audio."""
    first = np.minimum(np.round(times * FRAME_RATE).astype(np.int64), frames.n_frames - 1)
    edges = np.append(first, frames.n_frames)
    timbre = np.empty((len(first), N_MELS))
    # Whole intervals per block, about a minute at a time.
    per_block = 256
    blocks = range(0, len(first), per_block)
    bounds = [(int(edges[i]), int(max(edges[min(i + per_block, len(first))], edges[i] + 1))) for i in blocks]
    for i, level in zip(blocks, _levels(frames.mel, bounds, compression), strict=True):
        timbre[i : i + per_block] = sums_from(level, first[i : i + per_block] - first[i])
    around = np.clip(first[:, None] + np.arange(-2, 4)[None], 0, frames.n_frames - 1)
    return Instants(times, sums_from(frames.chroma, first), timbre, onsets[around].max(axis=1))


def bar_evidence(chosen: np.ndarray, sums: Instants) -> np.ndarray:
    """How much every beat looks like the first of a bar, float64 (n_beats,), mean 0 and deviation 1.

    Args:
        chosen: The beats, as indices into `sums.times`, int64 (n_beats,), rising.
        sums: Of the beats and midpoints.
    """
    chroma = sums_from(sums.chroma, chosen)
    timbre = sums_from(sums.timbre, chosen)
    onsets = sums.onsets[chosen]
    return _standardise(
        _standardise(cosine_novelty(chroma))
        + 0.7 * _standardise(cosine_novelty(timbre - timbre.mean(axis=0)))
        + _standardise(onsets[:, 0])
        - 0.5 * _standardise(onsets[:, -1])
        + 0.5 * _standardise(onsets.sum(axis=1))
    )


@njit(cache=True, nogil=True)
def _bar_positions(evidence: np.ndarray, metre: int, change_cost: float) -> np.ndarray:
    """Positions 1..metre, int64, on the best path; a bar may be cut short at a cost."""
    n = len(evidence)
    score = np.full(metre, -evidence[0] / (metre - 1))
    score[0] = evidence[0]
    back = np.zeros((n, metre), dtype=np.int64)
    for t in range(1, n):
        new = np.full(metre, -np.inf)
        for place in range(metre):
            chosen = (place - 1) % metre
            best = score[chosen]
            if place == 0:
                for other in range(metre - 1):
                    if score[other] - change_cost > best:
                        best, chosen = score[other] - change_cost, other
            new[place] = best + (evidence[t] if place == 0 else -evidence[t] / (metre - 1))
            back[t, place] = chosen
        score = new
    place = int(np.argmax(score))
    positions = np.empty(n, dtype=np.int64)
    for t in range(n - 1, -1, -1):
        positions[t] = place + 1
        place = back[t, place]
    return positions


def _bar_score(evidence: np.ndarray, positions: np.ndarray, *, metre: int, config: TrackerConfig) -> float:
    """Mean evidence on the first beats of bars over that elsewhere, less the costs of cut bars and of three."""
    first = positions == 1
    if not first.any() or first.all():
        return 0.0
    cut_short = np.count_nonzero(first[1:] & (positions[:-1] != metre))
    cost = config.bar_change_cost * cut_short / len(evidence) + config.triple_cost * (metre == 3)
    return float(evidence[first].mean() - evidence[~first].mean()) - cost


def _with_midpoints(times: np.ndarray) -> np.ndarray:
    """The beats and the midpoints between them, s, (2 n - 1,)."""
    out = np.empty(2 * len(times) - 1)
    out[::2] = times
    out[1::2] = 0.5 * (times[1:] + times[:-1])
    return out


def _pulses(n_beats: int) -> list[tuple[float, np.ndarray]]:
    """Level and indices into beats with midpoints: the tracker's beats, with midpoints, every second, the midpoints."""
    fine = np.arange(2 * n_beats - 1)
    pulses = [(1.0, fine[::2])]
    if n_beats >= 2:
        pulses.append((2.0, fine))
    if n_beats >= 8:
        pulses += [(0.5, fine[::4]), (0.5, fine[2::4]), (1.5, fine[1::2])]
    return pulses


def find_readings(
    frames: FrameFeatures, onsets: np.ndarray, activation: np.ndarray, *, config: TrackerConfig
) -> tuple[Instants, list[Reading]]:
    """Readings of the song: the tracker's tempo, double, half and the off-beat; bars of four and three at every phase.

    Args:
        frames: Frame features of the song.
        onsets: As `band_onsets`.
        activation: As `beat_activation`.
        config: Constants of the tracker.
    """
    beats = beat_frames(activation, config=config) / ACTIVATION_RATE
    beats = _without_silence(beats[beats < frames.duration_s - 1e-3], frames)
    instants = _instants(_with_midpoints(beats), frames, onsets, compression=config.compression)
    readings = []
    for level, chosen in _pulses(len(beats)):
        times = instants.times[chosen]
        tempo = 60.0 / np.median(np.diff(times)) if len(times) > 1 else 0.0
        if level != 1.0 and not config.min_level_bpm <= tempo <= config.max_level_bpm:
            continue
        evidence = bar_evidence(chosen, instants)
        for metre in METRES:
            for score, positions in _bar_readings(evidence, (metre,), config):
                score -= config.level_change_cost * (level != 1.0)
                readings.append(Reading(chosen, positions, metre, level, score))
    return instants, readings


def grid_hypotheses(
    frames: FrameFeatures, *, onsets: np.ndarray | None = None, config: TrackerConfig | None = None
) -> list[GridHypothesis]:
    """Readings of the song, likeliest first.

    The first carries a confidence, and one per region; the confidence of the others is 0.

    Args:
        frames: Frame features of the song.
        onsets: As `band_onsets`, if they are at hand.
        config: Constants of the tracker.
    """
    config = config or TrackerConfig()
    if onsets is None:
        onsets = band_onsets(frames.mel, compression=config.compression)
    activation = beat_activation(onsets, config=config)
    instants, readings = find_readings(frames, onsets, activation, config=config)
    probabilities = reading_probabilities(reading_features(instants, readings))
    order = np.argsort(-probabilities, kind="stable")
    hypotheses = []
    for rank, i in enumerate(order):
        reading, probability = readings[i], float(probabilities[i])
        times = instants.times[reading.chosen]
        confidence = 0.0 if rank else probability * _pulse_clarity(activation, times)
        grid = BeatGrid(times, reading.positions, frames.duration_s, confidence)
        if rank == 0:
            evidence = bar_evidence(reading.chosen, instants)
            grid = replace(grid, region_confidence=region_confidence(grid, activation, evidence))
        hypotheses.append(GridHypothesis(grid, reading.level, probability))
    return hypotheses


def grid_of_beats(
    times: np.ndarray,
    frames: FrameFeatures,
    *,
    positions: np.ndarray | None = None,
    metres: tuple[int, ...] = METRES,
    config: TrackerConfig | None = None,
) -> GridHypothesis:
    """The grid of beats that were found elsewhere, with score and confidences as the tracker's own have.

    Args:
        times: Beats, s, rising, at least one.
        frames: Frame features of the song.
        positions: Their places in bars; None to find bars by the evidence in the audio.
        metres: Beats per bar, of which the likeliest is taken.
        config: Constants of the tracker.
    """
    config = config or TrackerConfig()
    onsets = band_onsets(frames.mel, compression=config.compression)
    activation = beat_activation(onsets, config=config)
    instants = _instants(times, frames, onsets, compression=config.compression)
    evidence = bar_evidence(np.arange(len(times)), instants)
    readings = sorted(_bar_readings(evidence, metres, config), key=lambda reading: -reading[0])
    if positions is None:
        score, positions = readings[0]
    else:
        metre = BeatGrid(times, positions, frames.duration_s).metre
        score = _bar_score(evidence, positions, metre=metre, config=config)
    rival = max(other for other, place in readings if not np.array_equal(place, positions))
    lag_s = _common_lag(times, activation)
    heard = np.maximum(times + lag_s, 0.0)
    confidence = _leading(score - rival, len(times)) * _pulse_clarity(activation, heard)
    grid = BeatGrid(times, positions, frames.duration_s, confidence)
    regions = region_confidence(grid, activation, evidence, lag_s=lag_s)
    return GridHypothesis(replace(grid, region_confidence=regions), 1.0, score)


def _common_lag(times: np.ndarray, activation: np.ndarray) -> float:
    """The lag of all beats within 50 ms at which they meet the activation best, s: others place beats otherwise."""
    frames = np.round(times * ACTIVATION_RATE).astype(np.int64)
    lags = sorted(range(-4, 5), key=abs)
    met = [activation[np.clip(frames + lag, 0, len(activation) - 1)].mean() for lag in lags]
    return lags[int(np.argmax(met))] / ACTIVATION_RATE


def region_confidence(
    grid: BeatGrid, activation: np.ndarray, evidence: np.ndarray, *, lag_s: float = 0.0
) -> np.ndarray:
    """How far to trust a grid in each of its regions (see `beats.grid.region_bounds`), float64 (n_regions,) in [0, 1].

    The product of three: the beats of the region stand out of the activation around them, the activation is periodic
    at their interval, and the bars' phase leads over the others (one half where it neither leads nor trails).

    Args:
        grid: Beats and bars.
        activation: Of the song, at `ACTIVATION_RATE`.
        evidence: For bars, of every beat, (n_beats,).
        lag_s: By how much the activation follows the beats, s.
    """
    heard = np.round((grid.times + lag_s) * ACTIVATION_RATE).astype(np.int64)
    on_beat = activation[np.clip(heard, 0, len(activation) - 1)]
    bounds = region_bounds(grid.duration)
    trust = np.zeros(len(bounds) - 1)
    for i, (start, end) in enumerate(pairwise(bounds)):
        inside = (grid.times >= start) & (grid.times < end)
        around = activation[int(start * ACTIVATION_RATE) : int(end * ACTIVATION_RATE) + 1]
        if np.count_nonzero(inside) < 2 or len(around) < 2:
            continue
        interval = round(float(np.median(np.diff(grid.times[inside]))) * ACTIVATION_RATE)
        near = np.abs(grid.times - 0.5 * (start + end)) < _PHASE_WINDOW_S
        standing_out = np.clip((on_beat[inside].mean() - around.mean()) / 0.15, 0.0, 1.0)
        periodic = np.clip((_autocorrelation(around, interval + 4)[max(interval - 3, 1) :].max() - 0.1) / 0.3, 0.0, 1.0)
        trust[i] = standing_out * periodic / (1.0 + np.exp(-_phase_lead(evidence[near], grid.positions[near]) / 0.25))
    return trust


def _phase_lead(evidence: np.ndarray, positions: np.ndarray) -> float:
    """Mean evidence on downbeats over that at the best other place in the bar."""
    means = [evidence[positions == place].mean() for place in np.unique(positions)]
    return float(means[0] - max(means[1:])) if positions.min() == 1 and len(means) > 1 else 0.0


def _bar_readings(
    evidence: np.ndarray, metres: tuple[int, ...], config: TrackerConfig
) -> Iterator[tuple[float, np.ndarray]]:
    """Score and positions, int64 (n_beats,), of bars of every metre at every phase."""
    for metre in metres:
        best = _bar_positions(evidence, metre, config.bar_change_cost)
        for shift in range(metre):
            positions = (best - 1 + shift) % metre + 1
            yield _bar_score(evidence, positions, metre=metre, config=config), positions


def _periodicity(activation: np.ndarray, times: np.ndarray) -> float:
    """Autocorrelation of the activation at the interval of the beats, mean over windows of ten seconds."""
    interval = round(float(np.median(np.diff(times))) * ACTIVATION_RATE) if len(times) > 1 else 1
    width = round(_PERIODICITY_WINDOW_S * ACTIVATION_RATE)
    near = slice(max(interval - 3, 1), interval + 4)
    starts = range(0, max(len(activation) - width, 1), width // 2)
    windows = (activation[start : start + width] for start in starts)
    return float(np.mean([_autocorrelation(window, interval + 4)[near].max() for window in windows]))


def _leading(lead: float, n_beats: int) -> float:
    """How surely the bars' phase is right when its evidence leads by `lead`: more than chance explains."""
    return float(1.0 / (1.0 + np.exp(-(lead - 0.1 - 1.0 / np.sqrt(n_beats)) / 0.12)))


def _pulse_clarity(activation: np.ndarray, times: np.ndarray) -> float:
    """How much the song has a beat at all, in [0, 1]: its beats stand out, and it is periodic (0.5-0.8; noise 0.1)."""
    on_beat = np.minimum(np.round(times * ACTIVATION_RATE).astype(np.int64), len(activation) - 1)
    standing_out = np.clip((activation[on_beat].mean() - activation.mean()) / 0.15, 0.0, 1.0)
    periodic = np.clip((_periodicity(activation, times) - 0.1) / 0.3, 0.0, 1.0)
    return float(standing_out * periodic)


def _without_silence(times: np.ndarray, frames: FrameFeatures) -> np.ndarray:
    """The beats between the first and the last frame within 60 dB of the loudest."""
    sounding = np.flatnonzero(frames.rms > 1e-3 * frames.rms.max()) / FRAME_RATE
    if len(sounding) == 0:
        return times
    inside = times[(times >= sounding[0] - 0.05) & (times <= sounding[-1] + 0.05)]
    return inside if len(inside) else times[:1]


def track_beats(
    frames: FrameFeatures, *, onsets: np.ndarray | None = None, config: TrackerConfig | None = None
) -> BeatGrid:
    """The beats and bars of a song.

    Args:
        frames: Frame features of the song.
        onsets: As `band_onsets`, if they are at hand.
        config: Constants of the tracker.
    """
    return grid_hypotheses(frames, onsets=onsets, config=config)[0].grid
