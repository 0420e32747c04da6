"""Annotated songs, and settings so small that training takes seconds."""

from dataclasses import replace

import pytest

from editorbot_core.analysis.beats.annotations import Annotation, Section
from editorbot_core.config import get_default_config, overridden

SMALL = {
    "n_pairs": 12,
    "total_steps": 1500,
    "reward.hidden": 32,
    "reward.n_layers": 1,
    "reward.n_members": 1,
    "reward.epochs": 1,
    "policy.width": 32,
    "policy.n_layers": 1,
    "warm_start.n_steps": 2,
    "warm_start.edits_per_song": 3,
    "ppo.n_steps": 1000,
    "ppo.samples_per_song": 4,
    "ppo.whitening_edits": 8,
    "ppo.evaluate_every": 2,
}


@pytest.fixture(scope="module")
def config():
    return overridden(get_default_config(), SMALL)


@pytest.fixture(scope="module")
def songs(synthetic_song):
    def annotated(song, work):
        bounds = song.units.bounds(song.grid)
        starts = song.grid.times[song.units.first_beats]
        sections = tuple(
            Section(float(starts[i]), float(bounds[min(i + 4, song.units.n_units)]), "ABAC"[i // 4 % 4])
            for i in range(0, song.units.n_units, 4)
        )
        return replace(song, annotation=Annotation(work, song.grid, sections))

    return [annotated(synthetic_song(seed, n_bars=16), f"work-{seed}") for seed in range(6)]
