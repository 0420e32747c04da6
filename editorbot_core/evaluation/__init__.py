"""Evaluation: metrics of an edit, comparison of editors, reports. `__main__` is the command.

Public: `edit_metrics` (`metrics`), `evaluate`, `Evaluation` (`evaluate`), `paired_gain` (`comparison`),
`write_evaluation` (`report`).
"""
