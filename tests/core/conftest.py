"""Synthetic songs: without audio and of known durations for what edits them, and audio of known bars."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pytest

from editorbot_core.analysis.beats.annotations import Annotation, Section
from editorbot_core.analysis.beats.grid import BeatGrid, Units
from editorbot_core.analysis.features.columns import N_FEATURES
from editorbot_core.analysis.features.table import BeatFeatures
from editorbot_core.analysis.structure.estimate import estimate_structure
from editorbot_core.analysis.structure.structure import Structure
from editorbot_core.editing.batches import EditBatch
from editorbot_core.preferences.pairs import PairBatch
from editorbot_core.preferences.preference import EditPair, Preference
from editorbot_core.songs.song import Song


def make_song(
    seed: int = 0,
    *,
    n_bars: int = 12,
    pickup: int = 0,
    beat_s: float | np.ndarray | None = None,
    jitter: float = 0.02,
    first_s: float = 0.1,
    tail_s: float = 2.0,
    values: np.ndarray | None = None,
    units_of_beats: bool = False,
    phrase_bars: int | Sequence[int] | None = 4,
    labels: Sequence[str] | None = None,
    n_materials: int = 2,
    doubt: float = 0.1,
    annotated: bool = False,
    estimated: bool = False,
) -> Song:
    """A song without audio: bars of four beats, random features, phrases of four bars, and a final decay.

    Args:
        seed: Of everything that is random; the track id is made of it.
        n_bars: Whole bars; `values` or `labels` decide instead, if given.
        pickup: Beats before the first downbeat, in a unit of their own.
        beat_s: Length of a beat, or of each; drawn from 0.4 to 0.6 s if not given.
        jitter: Largest change of a beat's length, as a share of it.
        first_s: Instant of the first beat.
        tail_s: What follows the last beat.
        values: Features (n_beats, n_features); drawn from a normal distribution if not given.
        units_of_beats: Whether every beat is a unit of its own, instead of every bar.
        phrase_bars: Units of each phrase, or of all; None for random guesses instead of phrases.
        labels: Material of each phrase; `n_materials` in turn if not given.
        n_materials: How many materials.
        doubt: Probability that a phrase starts elsewhere, and half that of every wrong place in the phrase.
        annotated: Whether the phrases are annotated as sections, the last without the decay.
        estimated: Whether the structure is estimated from the features, instead of what the phrases are.
    """
    rng = np.random.default_rng(seed)
    if labels is not None and isinstance(phrase_bars, int):
        n_bars = phrase_bars * len(labels)
    n_beats = 4 * n_bars + pickup if values is None else len(values)
    even_s = rng.uniform(0.4, 0.6) if beat_s is None else beat_s
    lengths_s = even_s * (1 + rng.uniform(-jitter, jitter, n_beats))
    times = np.concatenate([[first_s], first_s + np.cumsum(lengths_s)])
    positions = (np.arange(n_beats) - pickup) % 4 + 1
    grid = BeatGrid(times[:-1], positions, duration=float(times[-1] + tail_s), confidence=0.9)
    if values is None:
        values = rng.normal(size=(n_beats, N_FEATURES))
    features = BeatFeatures(values.astype(np.float32), grid)
    units = Units.beats(n_beats) if units_of_beats else Units.bars(grid)
    n_units = units.n_units
    annotation = None
    if phrase_bars is None:
        phase = rng.dirichlet(np.full(4, 0.4), n_units)
        start = rng.beta(0.4, 1.2, n_units)
        cluster = np.cumsum(rng.random(n_units) < 0.3) % n_materials
    else:
        each = [phrase_bars] * -(-n_units // phrase_bars) if isinstance(phrase_bars, int) else phrase_bars
        starts = np.cumsum([0, *each])[:-1]
        phrase = np.searchsorted(starts, np.arange(n_units), side="right") - 1
        labels = labels or [str(i % n_materials) for i in range(len(starts))]
        materials = list(dict.fromkeys(labels))
        start = np.where(np.isin(np.arange(n_units), starts), 1 - doubt, doubt)
        phase = np.full((n_units, 4), doubt / 2)
        phase[np.arange(n_units), (np.arange(n_units) - starts[phrase]) % 4] = 1 - 1.5 * doubt
        cluster = np.array([materials.index(labels[i]) for i in phrase])
        bounds_s = [*times[units.first_beats[starts]].tolist(), float(times[-1])]
        sections = tuple(Section(a, b, label) for (a, b), label in zip(pairwise(bounds_s), labels, strict=True))
        annotation = Annotation(f"work {seed}", grid, sections) if annotated else None
    structure = Structure(start.astype(np.float32), phase.astype(np.float32), cluster.astype(np.int64), 0.8)
    if estimated:
        structure = estimate_structure(features.values, units)
    return Song(f"{seed:016x}", f"song-{seed}.wav", f"{seed:064x}", features, units, structure, annotation)


@pytest.fixture(scope="session")
def synthetic_song() -> Callable[..., Song]:
    """Makes songs, see `make_song`."""
    return make_song


def sides(pairs: PairBatch) -> tuple[EditBatch, EditBatch]:
    """The first and the second edits of the pairs."""
    first, second = (
        EditBatch(pairs.songs, pairs.song_index, actions, pairs.target_ratio)
        for actions in (pairs.actions_a, pairs.actions_b)
    )
    return first, second


def answers(pairs: Sequence[EditPair], **changes: object) -> list[Preference]:
    """A person's answers to the pairs, each for the first edit; `changes` replace fields of all of them."""
    fields = {
        "label": 1.0,
        "strength": 3,
        "confidence": 0.5,
        "rater": "ann",
        "source": "person",
        "created_at": "2026-01-01T00:00:00+00:00",
    }
    return [Preference(a=pair.a, b=pair.b, answer_id=f"{i}", **(fields | changes)) for i, pair in enumerate(pairs)]
