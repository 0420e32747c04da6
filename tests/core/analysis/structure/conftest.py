"""Songs of known sections."""

import numpy as np

from editorbot_core.analysis.beats.annotations import Annotation, Section
from editorbot_core.analysis.beats.grid import BeatGrid
from editorbot_core.analysis.features.columns import FEATURE_INDEX, N_FEATURES

BEAT_S = 0.5


def song_from(form, *, seed=0, noise=0.0, beats_per_bar=4, pickup=0):
    """Features of a song of known sections: form is [(label, bars), ...]; equal labels have equal beats."""
    rng = np.random.default_rng(seed)
    material = {}
    rows = [rng.standard_normal((pickup, N_FEATURES))] if pickup else []
    for label, bars in form:
        if label not in material:
            timbre = rng.standard_normal(N_FEATURES)
            material[label] = timbre + rng.standard_normal((16 * beats_per_bar, N_FEATURES))
        rows.append(material[label][: bars * beats_per_bar])
    values = np.concatenate(rows)
    values = values + noise * rng.standard_normal(values.shape)
    chroma = slice(FEATURE_INDEX["chroma_c"], FEATURE_INDEX["chroma_b"] + 1)
    values[:, chroma] = np.abs(values[:, chroma])
    beat = np.arange(len(values))
    grid = BeatGrid(
        times=0.4 + BEAT_S * beat,
        positions=(beat - pickup) % beats_per_bar + 1,
        duration=0.4 + BEAT_S * len(values) + 1.0,
    )
    return values.astype(np.float32), grid


def annotation_of(form, grid, *, first_beat=0, beats_per_bar=4):
    sections, beat = [], first_beat
    for label, bars in form:
        start = grid.times[beat]
        beat += bars * beats_per_bar
        sections.append(Section(float(start), float(start + bars * beats_per_bar * BEAT_S), label))
    return Annotation("song", grid, tuple(sections))


def check_laws(structure, n_units):
    assert structure.phrase_start.shape == (n_units,) and structure.phrase_start.dtype == np.float32
    assert structure.phase.shape == (n_units, 4) and structure.phase.dtype == np.float32
    assert structure.cluster.shape == (n_units,) and structure.cluster.dtype == np.int64
    np.testing.assert_allclose(structure.phase.sum(axis=1), 1, atol=1e-5)
    assert (structure.phase >= 0).all()
    assert structure.cluster.min() == 0
    assert set(structure.cluster) == set(range(structure.cluster.max() + 1))
    assert 0 <= structure.confidence <= 1


AABA = [("A", 8), ("A", 8), ("B", 8), ("A", 8)]
MIXED = [("i", 4), ("A", 8), ("B", 5), ("A", 8), ("B", 5), ("C", 6), ("A", 8), ("o", 3)]
