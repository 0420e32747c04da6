"""Segments to audio: joins moved to the best-matching sample, and crossfades of constant power.

Times of segments are seconds from the start of the source, times of joins seconds from the start of the rendered edit.
The rendered edit is as long as its segments together, except that each bound is rounded to a sample. Away from joins
the samples of the source are copied bit for bit.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from editorbot_core.audio.clip import AudioClip
from editorbot_core.audio.segments import Segment
from editorbot_core.base.errors import ParameterError

# How far a segment may end after the audio: a grid made at another sample rate rounds the duration differently.
_END_SLACK_S = 2e-3
# Audio compared when a join is moved, on either side of it.
_MATCH_MS = 30.0
# Correlation that a join must gain to be moved by the whole search range; proportionally less for smaller moves.
_STAY_BONUS = 0.02
# Length of the fades on either side of a join where the source has no samples to crossfade with.
_EDGE_FADE_MS = 3.0

# Chosen on rendered songs: none of 2047 beats of the source counts as a click, and one in five hard splices on bars
# does.
CLICK_FACTOR = 2.5
_CLICK_FLOOR = 1e-3
_CLICK_AT_MS = 0.75
_CLICK_AROUND_MS = 8.0


def _bounds(clip: AudioClip, segments: Sequence[Segment]) -> list[tuple[int, int]]:
    """Half-open sample ranges of the segments; every bound is rounded once.

    Raises:
        ParameterError: If a segment ends after the audio.
    """
    bounds = []
    for i, segment in enumerate(segments):
        if segment.end_s > clip.duration_s + _END_SLACK_S:
            raise ParameterError(
                f"segment {i} ends at {segment.end_s:.3f} s but the audio lasts {clip.duration_s:.3f} s; "
                "is it another file?"
            )
        start = min(round(segment.start_s * clip.sample_rate), clip.n_samples)
        end = min(round(segment.end_s * clip.sample_rate), clip.n_samples)
        if clip.duration_s - segment.end_s < _END_SLACK_S:
            end = clip.n_samples
        bounds.append((start, end))
    return bounds


def join_times(segments: Sequence[Segment]) -> np.ndarray:
    """Times of the joins in the rendered edit, s, float64 (n_joins,): starts of segments that continue no other.

    Examples:
        The second segment continues the first, the third does not:

        >>> join_times([Segment(0.0, 2.0), Segment(2.0, 3.0), Segment(8.0, 10.0)])
        array([3.])
    """
    ends = np.cumsum([segment.duration_s for segment in segments])
    jumps = [abs(after.start_s - before.end_s) > 1e-6 for before, after in pairwise(segments)]
    return ends[:-1][np.array(jumps, dtype=bool)]


def align_joins(clip: AudioClip, segments: Sequence[Segment], *, search_ms: float = 12.0) -> tuple[Segment, ...]:
    """Move the start of every segment after the first to where the waveforms around the join match best.

    The measure is the normalised cross-correlation of the source around the exit with the source around the entry,
    channels summed. Only `start_s` changes; a segment that continues the one before it stays as it is.

    Args:
        clip: The source.
        segments: Segments in output order.
        search_ms: Largest move of a start, in either direction.

    Returns:
        The same segments with moved starts.

    Raises:
        ParameterError: If `search_ms` is negative or a segment ends after the audio.

    Examples:
        A cut in a 100 Hz tone enters a fifth of a period late; the entry is moved to where the wave continues:

        >>> tone = np.sin(2 * np.pi * 100 * np.arange(8_000) / 8_000).astype(np.float32)
        >>> first, second = align_joins(AudioClip(tone[None], 8_000), [Segment(0.0, 0.3), Segment(0.502, 0.8)])
        >>> second.start_s
        0.5
    """
    if not np.isfinite(search_ms) or search_ms < 0:
        raise ParameterError(f"search_ms must be 0 or more; got {search_ms}")
    bounds = _bounds(clip, segments)
    search = int(search_ms * 1e-3 * clip.sample_rate)
    aligned = list(segments)
    for i in range(1, len(aligned)):
        exit_sample, (start, end) = bounds[i - 1][1], bounds[i]
        if start == exit_sample or search == 0:
            continue
        shift = _best_shift(clip, exit_sample, start, search=search, furthest=(start + end) // 2)
        if shift:
            aligned[i] = replace(aligned[i], start_s=(start + shift) / clip.sample_rate)
            fade_out_s = min(aligned[i].fade_out_s, aligned[i].duration_s)
            aligned[i] = replace(aligned[i], fade_out_s=fade_out_s)
    return tuple(aligned)


def _best_shift(clip: AudioClip, exit_sample: int, start: int, *, search: int, furthest: int) -> int:
    """Samples by which `start` is moved, at most `search`; the moved start is at least 0 and at most `furthest`."""
    half = max(1, int(_MATCH_MS * 1e-3 * clip.sample_rate))
    pattern = _padded(clip, exit_sample - half, exit_sample + half)
    region = _padded(clip, start - search - half, start + search + half)
    # Windowed, so that the samples nearest to the join count most.
    window = np.hanning(2 * half + 2)[1:-1]
    product = np.zeros(2 * search + 1)
    energy = np.zeros(2 * search + 1)
    for outgoing, incoming in zip(pattern, region, strict=True):
        product += np.correlate(incoming, outgoing * window, mode="valid")
        energy += np.correlate(incoming**2, window, mode="valid")
    own = float((pattern**2 * window).sum())
    # Silence matches nothing: below -90 dB a start stays where it is.
    floor = 1e-9 * window.sum()
    usable = (energy > floor) & (own > floor)
    score = np.where(usable, product / np.sqrt(np.maximum(energy, floor) * max(own, floor)), 0.0)
    shifts = np.arange(-search, search + 1)
    score -= _STAY_BONUS * np.abs(shifts) / max(search, 1)
    score[(start + shifts < 0) | (start + shifts > furthest)] = -np.inf
    return int(shifts[int(np.argmax(score))])


def _padded(clip: AudioClip, low: int, high: int) -> np.ndarray:
    """Samples `[low, high)` as float64, silence outside the clip."""
    inside = clip.samples[:, max(low, 0) : max(min(high, clip.n_samples), 0)].astype(np.float64)
    before = min(max(-low, 0), high - low)
    return np.pad(inside, ((0, 0), (before, high - low - before - inside.shape[1])))


def render(clip: AudioClip, segments: Sequence[Segment]) -> AudioClip:
    """The audio of an edit.

    At every join the outgoing segment ends late and the incoming one starts early, by half a crossfade each, so the
    length stays that of the segments. The gains hold the power constant for the correlation that the two signals have
    (Fink, Holters and Zoelzer 2016): equal gain for the same signal, equal power for unrelated ones. Where the source
    or a segment is too short for its side of the fade, that side is shortened.

    Args:
        clip: The source.
        segments: Segments in output order.

    Returns:
        float32 audio with the source's rate and channels.

    Raises:
        ParameterError: If there is no segment, one ends after the source, or one is shorter than a sample.

    Examples:
        Eight samples at 4 Hz, their second half played before the first, without a crossfade:

        >>> clip = AudioClip(np.arange(8, dtype=np.float32)[None], sample_rate=4)
        >>> render(clip, [Segment(1.0, 2.0), Segment(0.0, 1.0, crossfade_ms=0.0)]).samples
        array([[4., 5., 6., 7., 0., 1., 2., 3.]], dtype=float32)

        The bound at 1 s is no join where playback continues over it:

        >>> render(clip, [Segment(0.0, 1.0), Segment(1.0, 2.0)]).samples
        array([[0., 1., 2., 3., 4., 5., 6., 7.]], dtype=float32)
    """
    if not segments:
        raise ParameterError("an edit needs at least one segment")
    bounds = _bounds(clip, segments)
    for i, (start, end) in enumerate(bounds):
        if end <= start:
            raise ParameterError(f"segment {i} is shorter than one sample: {segments[i]}")
    lengths = [end - start for start, end in bounds]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    out = np.empty((clip.n_channels, int(starts[-1])), dtype=np.float32)
    for i, (start, end) in enumerate(bounds):
        out[:, starts[i] : starts[i + 1]] = _material(clip, segments[i], bounds[i], start, end)
    for i in range(1, len(bounds)):
        before, after = segments[i - 1], segments[i]
        plays_on = bounds[i - 1][1] == bounds[i][0]
        if plays_on and before.gain_db == after.gain_db and before.fade_out_s == 0:
            continue
        half = int(after.crossfade_ms * 0.5e-3 * clip.sample_rate)
        early = min(half, bounds[i][0], lengths[i - 1] // 2)
        late = min(half, clip.n_samples - bounds[i - 1][1], lengths[i] // 2)
        join, exit_sample, entry = int(starts[i]), bounds[i - 1][1], bounds[i][0]
        if early + late == 0:
            if half:
                _fade_edges(out, join, min(int(_EDGE_FADE_MS * 1e-3 * clip.sample_rate), half, *lengths[i - 1 : i + 1]))
            continue
        outgoing = _material(clip, before, bounds[i - 1], exit_sample - early, exit_sample + late)
        incoming = _material(clip, after, bounds[i], entry - early, entry + late)
        out[:, join - early : join + late] = _crossfade(outgoing, incoming)
    return AudioClip(out, clip.sample_rate)


class Rendering(NamedTuple):
    """An edit as it is heard: its segments with the joins where they were moved to, and the audio."""

    segments: tuple[Segment, ...]
    clip: AudioClip


def render_edit(clip: AudioClip, segments: Sequence[Segment]) -> Rendering:
    """Move the joins of an edit to the best-matching samples and render it, as listeners hear it."""
    aligned = align_joins(clip, segments)
    return Rendering(aligned, render(clip, aligned))


def _material(clip: AudioClip, segment: Segment, own: tuple[int, int], low: int, high: int) -> np.ndarray:
    """Source samples `[low, high)` as the segment plays them: with its gain, and silent after its fade-out."""
    samples = clip.samples[:, low:high]
    if segment.gain_db:
        samples = samples * np.float32(10 ** (segment.gain_db / 20))
    fade = round(segment.fade_out_s * clip.sample_rate)
    first = own[1] - fade
    if fade and high > first:
        progress = np.clip((np.arange(low, high) - first + 1) / fade, 0, 1)
        samples = samples * (0.5 + 0.5 * np.cos(np.pi * progress)).astype(np.float32)
    return samples


def _crossfade(outgoing: np.ndarray, incoming: np.ndarray) -> np.ndarray:
    """`outgoing` turning into `incoming`, both float32 (n_channels, n)."""
    a, b = outgoing.astype(np.float64), incoming.astype(np.float64)
    power = np.sqrt((a * a).sum() * (b * b).sum())
    correlation = float(np.clip((a * b).sum() / power, 0.0, 1.0)) if power > 0 else 0.0
    angle = (np.arange(a.shape[1]) + 0.5) / a.shape[1] * (np.pi / 2)
    down, up = np.cos(angle), np.sin(angle)
    scale = 1.0 / np.sqrt(1.0 + 2.0 * correlation * down * up)
    return ((a * down + b * up) * scale).astype(np.float32)


def _fade_edges(out: np.ndarray, join: int, length: int) -> None:
    """Fade out before the join and in after it, in place: where the end of a file meets its start."""
    ramp = (np.sin((np.arange(length) + 0.5) / max(length, 1) * np.pi / 2) ** 2).astype(np.float32)
    out[:, join - length : join] *= ramp[::-1]
    out[:, join : join + length] *= ramp


def count_clicks(clip: AudioClip, join_times_s: Sequence[float] | np.ndarray) -> int:
    """Number of joins at which the waveform is discontinuous.

    The clip is high-passed twice by the sample difference. A join is a click if the largest absolute value within
    0.75 ms of it exceeds `CLICK_FACTOR` times the largest between there and 8 ms away, on both sides of the join, in
    any channel, and 0.001. A drum on the join is not a click: what follows it is as steep as its beginning.

    Args:
        clip: A rendered edit.
        join_times_s: Times of its joins, s, as `join_times` gives them.
    """
    rate = clip.sample_rate
    at, around = max(2, round(_CLICK_AT_MS * 1e-3 * rate)), max(8, round(_CLICK_AROUND_MS * 1e-3 * rate))
    n_clicks = 0
    for time_s in join_times_s:
        join = round(float(time_s) * rate)
        if not at < join < clip.n_samples - at:
            continue
        low = max(join - around, 0)
        steep = np.abs(np.diff(clip.samples[:, low : join + around].astype(np.float64), n=2, axis=1))
        place = join - low - 1  # the difference between the two samples that meet at the join
        peak = steep[:, place - at : place + at].max(axis=1)
        before = steep[:, : place - at].max(axis=1, initial=0.0)
        after = steep[:, place + at :].max(axis=1, initial=0.0)
        n_clicks += bool(((peak > CLICK_FACTOR * np.maximum(before, after)) & (peak > _CLICK_FLOOR)).any())
    return n_clicks
