"""Editing: actions and edit decision lists, what joins cost, the search, and editors that learn nothing.

Public: `EditDecisionList`, `edl_of`, `compile_actions` (`edits`), `SongBatch`, `EditBatch`, `collate` (`batches`),
`search_edits` (`search`), `dp_unit_actions` (`retargeting`), `outlook_of` (`outlook`), `BASELINES`, `Editor`
(`baselines`), `write_edl`, `read_edl` (`interchange`).
"""
