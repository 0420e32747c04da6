"""Preferences: pairs of edits, answers and their store, the bootstrap listener, the rating page.

Public: `Preference`, `EditPair` (`preference`), `PreferenceStore` (`store`), `propose_pairs` (`pairs`),
`BootstrapListener` (`listener`), `run_rating_page` (`rating.server`).
"""
