"""The structure that songs are loaded with: by the trained model, or estimated if units are not bars."""

import numpy as np

from editorbot_core.analysis.beats.grid import Units
from editorbot_core.analysis.features.table import BeatFeatures
from editorbot_core.analysis.structure.bars import bar_features
from editorbot_core.analysis.structure.estimate import estimate_structure
from editorbot_core.analysis.structure.network import StructureModel, shipped_structure_model
from editorbot_core.analysis.structure.phrases import (
    length_log_prior,
    likeliest_phrases,
    phrase_clusters,
    phrase_posterior,
)
from editorbot_core.analysis.structure.structure import N_PHASES, Structure

# Changes whenever the same weights and features would give another structure.
STRUCTURE_VERSION = 4
_SAME_LABEL = 0.5
_SURE = 6.0


def read_structure(
    features: BeatFeatures, units: Units, *, work: str = "", model: StructureModel | None = None
) -> Structure:
    """Structure of a song by the trained model; estimated if units are single beats or there is no context.

    Args:
        features: Features, with context for the model.
        units: How the beats are grouped.
        work: Id of the composition; a work of the training set is read only by networks that were not trained on it.
        model: None for the shipped one.
    """
    beats_per_unit = int(np.median(units.lengths))
    if features.context is None or beats_per_unit == 1:
        return estimate_structure(features.values, units)
    model = model or shipped_structure_model()
    found = model.probabilities(bar_features(features.values, features.context, units), work)
    # A pick-up is before the first phrase, not in it.
    pickup = int(units.n_units > 1 and units.lengths[0] < beats_per_unit)
    odds = np.clip(found.start, 1e-6, 1 - 1e-6)
    log_odds = np.clip(np.log(odds / (1 - odds)), -_SURE, _SURE)[pickup:]
    log_prior = length_log_prior(1)
    posterior = phrase_posterior(log_odds, log_prior)
    phase = np.concatenate([np.eye(N_PHASES)[[N_PHASES - 1] * pickup], posterior.phase])
    phase = 0.5 * (phase + found.phase)
    starts = pickup + likeliest_phrases(log_odds, log_prior)
    cluster = np.pad(phrase_clusters(found.same, starts, threshold=_SAME_LABEL), (pickup, 0), mode="edge")
    certainty = (phase.max(axis=1).mean() - 1 / N_PHASES) / (1 - 1 / N_PHASES)
    return Structure(
        phrase_start=(0.5 * (found.start + np.pad(posterior.start, (pickup, 0)))).astype(np.float32),
        phase=(phase / phase.sum(axis=1, keepdims=True)).astype(np.float32),
        cluster=cluster,
        confidence=float(np.clip(certainty, 0.0, 1.0)),
    )
