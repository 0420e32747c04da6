"""Analysis: what is heard in a song. Beats and bars, 121 features per beat, phrases and material.

Public: `analyse` (`features.extraction`), `BeatFeatures`, `FEATURE_NAMES` (`features.table`, `features.columns`),
`BeatGrid`, `Units` (`beats.grid`), `Correction` (`beats.corrections`), `Structure` (`structure.structure`),
`read_structure` (`structure.read`).
"""
