"""Analysis of a song: beats and bars, 121 features per beat, phrases and which of them share their material.

Public: `analyse` (`features.extraction`), `BeatFeatures`, `FEATURE_NAMES` (`features.table`, `features.columns`),
`BeatGrid`, `Units` (`beats.grid`), `Correction` (`beats.corrections`), `Structure` (`structure.structure`),
`read_structure` (`structure.read`).
"""
