"""The page about the features says what the code says, and what the code says holds."""

from pathlib import Path

import numpy as np
import pytest

from editorbot_core.analysis.features.columns import (
    FEATURE_COLUMNS,
    FEATURE_NAMES,
    GROUPS,
    N_FEATURES,
    SOUND_GROUPS,
    columns_of,
    page,
    span,
)
from editorbot_core.analysis.features.extraction import extract_features
from editorbot_core.base.errors import ParameterError
from editorbot_core.songs.demo.songs import compose_song

PAGE = Path(__file__).parents[4] / "docs" / "features.md"


def test_the_page_is_the_code() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), (
        "python -m editorbot_core.analysis.features.columns > docs/features.md"
    )


def test_every_column_is_described_once() -> None:
    assert len(set(FEATURE_NAMES)) == len(FEATURE_COLUMNS) == 121
    for column in FEATURE_COLUMNS:
        assert column.low < column.high, column.name
        assert column.definition, column.name
        assert "|" not in column.definition, column.name


@pytest.mark.parametrize("index", [2, 7])
def test_demo_songs_lie_within_the_ranges(index: int) -> None:
    values = extract_features(compose_song(index, seed=0).clip).values
    low = np.array([column.low for column in FEATURE_COLUMNS])
    high = np.array([column.high for column in FEATURE_COLUMNS])
    outside = ((values < low - 1e-5) | (values > high + 1e-5)).any(axis=0)
    assert not outside.any(), [FEATURE_NAMES[i] for i in np.flatnonzero(outside)]
    # Ranges that a wrong unit would leave at once: the median lies where music does.
    median = dict(zip(FEATURE_NAMES, np.median(values, axis=0), strict=True))
    assert 300 < median["spectral_centroid"] < 4_000
    assert 0.02 < median["rms"] < 0.5
    assert 5 < median["spectral_contrast_4"] < 60


def test_groups_partition_the_columns() -> None:
    members = [columns_of(group) for group in GROUPS]
    assert all(members)
    assert sorted(i for group in members for i in group) == list(range(N_FEATURES))
    assert columns_of(*GROUPS) == list(range(N_FEATURES))


def test_groups_hold_what_their_names_say() -> None:
    counts = {group: len(columns_of(group)) for group in GROUPS}
    assert counts["MFCC"] == counts["MFCC delta"] == 13
    assert counts["chroma"] == 12
    assert counts["difference"] == 52
    assert counts["stem energy"] == counts["stem centroid"] == counts["stem share"] == 4
    assert len(columns_of(*SOUND_GROUPS)) == 64
    assert all(FEATURE_NAMES[i].endswith("_diff") for i in columns_of("difference"))


def test_a_span_is_its_group() -> None:
    for group in ("contrast", "MFCC", "MFCC delta", "chroma", "difference"):
        assert list(range(N_FEATURES))[span(group)] == columns_of(group)
    with pytest.raises(ParameterError, match="side by side"):
        span("stem energy")
    with pytest.raises(ParameterError, match="no group of columns 'timbre'"):
        columns_of("timbre")
