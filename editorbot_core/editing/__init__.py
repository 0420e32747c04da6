"""Editing: actions and edit decision lists, costs of joins, the search, and editors that need no training.

Public: `EditDecisionList`, `edl_of`, `compile_actions` (`edits`), `SongBatch`, `EditBatch`, `collate` (`batches`),
`search_edits` (`search`), `dp_unit_actions` (`retargeting`), `outlook_of` (`outlook`), `BASELINES`, `Editor`
(`baselines`), `write_edl`, `read_edl` (`interchange`).
"""
